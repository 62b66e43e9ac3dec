"""The model card and the data card of a release, written from what was measured: run card, report, mix manifest.

Neither repeats any training text: they hold figures, digests and what this project itself wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from persona_dagster.config.base_models import Licence
from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Recipe
from persona_dagster.publishing.exports import GGUF, MERGED, Export

# Metric of the report: what a reader is told.
FIGURES = {
    "fidelity": "speaks in the asked voice (share, by a style judge)",
    "clarity": "how clear the asked voice is (mean probability by that judge)",
    "over_chance": "… more than a voice drawn at random",
    "routing": "chooses the right voice untagged (share)",
    "contradiction": "obeys its tag against the topic (share)",
    "loss": "test loss (nats a token, human answers)",
    "bertscore_f1": "BERTScore F1 against human answers",
    "knowledge": "knowledge probes right (share)",
    "repetition": "repeated 4-grams within an answer (share)",
    "residue": "answers with forum residue or personal data, before the filter (share)",
    "broken": "empty, cut or looping answers (share)",
}


def write_model_card(
    *,
    recipe: Recipe,
    personas: Personas,
    base: str,
    run: Mapping[str, Any],
    report: Mapping[str, Any],
    manifest: Mapping[str, Any],
    repo_id: str,
    exports: Sequence[Export] = (),
) -> str:
    """README.md of the model's repository, its front matter included."""
    licence = recipe.base.entry.licence
    front = {
        "base_model": base,
        "library_name": "peft",
        "license": "other" if licence.id == "unknown" else licence.id,
        "language": ["zh", "en"],
        "pipeline_tag": "text-generation",
        "tags": ["lora", "persona", "traditional-chinese", "taiwan", "dagster"],
    }
    sections = [
        f"# {recipe.title}",
        f"A LoRA adapter that gives `{base}` the voices of {len(personas.personas)} personas. Made by a Dagster graph "
        "in which every training row can say which post it came from.",
        _personas(personas),
        _use(repo_id, personas, base, recipe.lora.r),
        *([_exports(repo_id, exports)] if exports else []),
        _training(recipe, run),
        _data(manifest),
        _evaluation(report),
        _limits(report),
        _privacy(),
        _licence(base, licence),
        _provenance(run, report, manifest),
    ]
    return (
        "---\n" + yaml.safe_dump(front, allow_unicode=True, sort_keys=False) + "---\n\n" + "\n\n".join(sections) + "\n"
    )


def write_data_card(manifest: Mapping[str, Any]) -> str:
    """data_card.md of a release: how much of what, and nothing of what anybody said."""
    return f"# The mix of {manifest['recipe']}\n\n{_data(manifest)}\n\n{_privacy()}\n"


def _personas(personas: Personas) -> str:
    rows = [f"| `{p.tag}` | {p.title} | {p.system_prompt} |" for p in personas.personas.values()]
    return "\n".join(["## Personas", "", "| tag | voice | system prompt |", "|---|---|---|", *rows])


def _use(repo_id: str, personas: Personas, base: str, rank: int) -> str:
    persona = next(iter(personas.personas.values()))
    system = f"{persona.tag} {persona.system_prompt}"
    return f"""## Use

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{repo_id}")
tokenizer = AutoTokenizer.from_pretrained("{repo_id}")
messages = [
    {{"role": "system", "content": "{system}"}},
    {{"role": "user", "content": "{persona.probes[0]}"}},
]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=200)[0]))
```

With vLLM: `vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules persona={repo_id}`.

Leave the system message out, and the model chooses a voice by itself. Meant for chat, writing aid and research on
style; not for advice on health, law, money or crisis: the mentor is a tone of voice, and no counsellor."""


def _exports(repo_id: str, exports: Sequence[Export]) -> str:
    uses = {
        MERGED: f'Base and adapter in one: `AutoModelForCausalLM.from_pretrained("{repo_id}", subfolder="{MERGED}")`.',
        GGUF: "For llama.cpp, and for Ollama with a Modelfile a persona: "
        f"`hf download {repo_id} --include '{GGUF}/*' --local-dir .`, "
        f"then `ollama create mentor -f {GGUF}/Modelfile.mentor`.",
    }
    lines = []
    for export in exports:
        lines += [f"- `{export.kind}/`: {uses[export.kind]}"]
        lines += [f"  Read back by {name}: {agreement}." for name, agreement in export.agreements.items()]
    return "\n".join(["## Other forms", "", *lines])


def _training(recipe: Recipe, run: Mapping[str, Any]) -> str:
    training, lora = recipe.training, recipe.lora
    epochs = f"{training.max_steps} steps at most" if training.max_steps else f"{training.epochs:g} epochs"
    rows = {
        "method": f"LoRA r={lora.r}, alpha={lora.alpha}, {recipe.quantisation.scheme} quantisation, {recipe.backend}",
        "length": f"{run['steps']} optimizer steps ({epochs}), {training.max_length} tokens a row",
        "optimizer": f"{training.optimizer}, learning rate {training.learning_rate:g}, {training.scheduler}",
        "batch": f"{training.batch_size} × {training.accumulation} accumulation",
        "evaluation loss": f"{run['eval_loss_before']:.3f} → {run['eval_loss_after']:.3f} nats a token",
        "train loss": f"{run['train_loss']:.3f} nats a token",
        "time": f"{run['seconds']:.0f} s, peak memory {run.get('peak_memory_gib', 0):.2f} GiB",
        "libraries": ", ".join(f"{name} {version}" for name, version in sorted(run.get("versions", {}).items())),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, "", "![Loss](curves.png)"])


def _data(manifest: Mapping[str, Any]) -> str:
    personas = [
        f"| {name} | {rows} | {manifest['test_by_persona'].get(name, 0)} |"
        for name, rows in sorted(manifest["train_by_persona"].items())
    ]
    sources = ", ".join(f"{source} {rows}" for source, rows in sorted(manifest["by_source"].items()))
    return "\n".join(
        [
            "## Data",
            "",
            "| persona | train rows | test rows |",
            "|---|---:|---:|",
            *personas,
            "",
            f"Train rows by source: {sources}. No dialogue, no thread and no near-duplicate stands on both sides of "
            f"the split: the largest Jaccard similarity between a train row and a test row is "
            f"{manifest['largest_jaccard']:.3f}.",
        ]
    )


def _evaluation(report: Mapping[str, Any]) -> str:
    lines = [
        f"| {words} | {_interval(report, f'{name}_base')} | {_interval(report, f'{name}_adapter')} |"
        for name, words in FIGURES.items()
        if f"{name}_adapter" in report["intervals"]
    ]
    gates = [
        f"| {gate['verdict']} | {gate['title']} | {_number(gate['value'])} | {gate['bound']} {gate['threshold']:g} |"
        for gate in report["gates"]
    ]
    return "\n".join(
        [
            "## Evaluation",
            "",
            f"On {report['test']['rows']} test rows and the project's probes, with 95 % intervals.",
            "",
            "| | base | adapter |",
            "|---|---|---|",
            *lines,
            "",
            f"Verdict of the report: **{report['verdict']}**.",
            "",
            "| verdict | gate | measured | threshold |",
            "|---|---|---:|---|",
            *gates,
        ]
    )


def _limits(report: Mapping[str, Any]) -> str:
    weak = [gate["title"].lower() for gate in report["gates"] if gate["verdict"] in ("red", "amber")]
    known = f" Not shown by the report: {'; '.join(weak)}." if weak else ""
    return (
        "## Limits\n\nThe adapter learnt a form of speech, and hardly any facts. It can be wrong, rude (the mouthpiece "
        "is meant to be) and biased as forums are. Small models lose the thread in long answers." + known
    )


def _privacy() -> str:
    return (
        "## Privacy\n\nThe texts are public posts. E-mail addresses, telephone numbers, ids, accounts, handles and "
        "postal addresses were masked before training as far as rules find them, authors stand as keyed hashes, "
        "and none of the text is published with the model. A post can be forgotten on request: its rows leave "
        "the data, and adapters that saw it are marked stale."
    )


def _licence(base: str, licence: Licence) -> str:
    where = f"[{licence.id}]({licence.url})" if licence.url else licence.id
    notice = f" {licence.notice}." if licence.notice else ""
    return (
        f"## Licence\n\nThe adapter is bound by the licence of its base model, `{base}` ({where}).{notice} The "
        "training texts stay their authors'."
    )


def _provenance(run: Mapping[str, Any], report: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    digests = {
        "adapter": run["digest"],
        "mix": manifest["digest"],
        "recipe": run["recipe_digest"],
        "report": report["digest"],
        "base revision": run["base_revision"],
    }
    lines = [f"- {name}: `{digest}`" for name, digest in digests.items()]
    return "\n".join(["## Provenance", "", *lines, "", "`release.json` holds the sha256 of every file here."])


def _interval(report: Mapping[str, Any], name: str) -> str:
    found = report["intervals"].get(name)
    if not found or found["value"] is None:
        return "–"
    if found["low"] is None or found["high"] is None:
        return _number(found["value"])
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
