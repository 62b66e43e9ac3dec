"""The generation program: `python -m persona_dagster.evaluation.generate JOB.json`.

One process holds the model: base and adapter answer the same prompts (one base, the adapter switched off and
on), and both say how likely they find the reference answers. Batched, seeded, resumable, content-addressed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from persona_dagster.artifacts import Versions, write_json
from persona_dagster.config.recipes import Recipe
from persona_dagster.digest import file_digest, json_digest
from persona_dagster.evaluation.decoding import Draw, continue_all
from persona_dagster.evaluation.job_spec import EVALUATION_VERSION, GenerateJob
from persona_dagster.evaluation.loss import LIKELIHOOD_SCHEMA, ScoredAnswer, likelihoods
from persona_dagster.evaluation.prompts import (
    PROBES,
    MixRow,
    Prompt,
    knowledge,
    make_prompts,
    part,
    read_rows,
    stratified,
)
from persona_dagster.models.base_model import for_asking, load_base, stop_ids
from persona_dagster.models.chat_format import prompt_text
from persona_dagster.pipes_reporting import Reporter, open_reporter, progress
from persona_dagster.records import GENERATION_SCHEMA
from persona_dagster.training.trl_backend import shortcut

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

LEAST_PROMPT = 64  # tokens of a prompt that are kept however small the recipe's length
FEWSHOT_ROOM = 768  # tokens of a prompt with its examples, so that none of them is cut
JUDGING = {"gates", "encoder", "reader", "read_rows", "seeds"}  # of a recipe's evaluation: no answer changes by it
NEXT_TURN_TOKENS = 12  # the newest ones, in which a mark of the next turn is looked for


def generation_digest(job: GenerateJob) -> str:
    """The name of these generations: all that decides them."""
    recipe = job.recipe
    return json_digest(
        {
            "version": EVALUATION_VERSION,
            "base": recipe.base.meaning(),
            "sampling": recipe.evaluation.model_dump(exclude=JUDGING),
            "max_length": recipe.training.max_length,
            "adapter": _folder_digest(job.adapter_dir, ("adapter_config.json", "adapter_model.safetensors")),
            "mix": [file_digest(job.mix_dir / name) for name in ("train.jsonl", "test.jsonl")],
            "personas": job.personas.model_dump(mode="json"),
            "probes": [file_digest(path) for path in sorted(PROBES.glob("*.yaml"))],
        }
    )


def _folder_digest(folder: Path, names: tuple[str, ...]) -> str:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: no adapter there ({', '.join(missing)} missing); train the recipe first")
    return json_digest([file_digest(folder / name) for name in names])


def find_generations(job: GenerateJob) -> Path | None:
    """The folder of these very generations, if they are there."""
    return generations(job).find(generation_digest(job))


def generations(job: GenerateJob) -> Versions:
    return Versions(job.out_dir, "generations.parquet")


def generate(job: GenerateJob, reporter: Reporter) -> Path:
    """Writes generations.parquet (GENERATION_SCHEMA), likelihoods.parquet and settings.json; returns their folder.

    Answers are saved batch by batch beside the target, so an interrupted run goes on where it stopped.
    """
    digest = generation_digest(job)
    target = job.out_dir / digest
    if (found := find_generations(job)) is not None:
        reporter.line(f"generations {digest[:12]} are there already: nothing asked")
        generations(job).point(digest)
        return found
    train, test = read_rows(job.mix_dir / "train.jsonl"), read_rows(job.mix_dir / "test.jsonl")
    started = time.perf_counter()
    model, tokenizer, dtype = load_models(job)
    reporter.line(f"model loaded in {time.perf_counter() - started:.1f} s ({dtype})")
    partial = target.parent / f".partial-{digest}.jsonl"
    prompts = make_prompts(job.personas, train, test, job.recipe.evaluation)
    answers = answer_all(model, tokenizer, prompts, job=job, partial=partial, reporter=reporter)
    scored = score_all(model, tokenizer, train, test, recipe=job.recipe, reporter=reporter)
    settings = {
        "digest": digest,
        "adapter": job.adapter_dir.name,
        "base": job.recipe.base.model_dump(mode="json"),
        "dtype": dtype,
        "sampling": job.recipe.evaluation.model_dump(exclude=JUDGING),
        "seconds": round(time.perf_counter() - started, 1),
    }
    with generations(job).publishing(digest) as staging:
        answers.write_parquet(staging / "generations.parquet")
        scored.write_parquet(staging / "likelihoods.parquet")
        write_json(staging / "settings.json", settings)
    partial.unlink(missing_ok=True)
    return target


def load_models(job: GenerateJob) -> tuple[PeftModel, PreTrainedTokenizerBase, str]:
    """The base with the adapter on it, for inference.

    On the CPU it runs in float32: few CPUs multiply bfloat16 (on AVX2 it is 5 to 10 times slower), and float32
    holds every bfloat16 weight exactly.
    """
    import torch
    from peft import PeftModel

    cuda = torch.cuda.is_available()
    base = job.recipe.base if cuda else job.recipe.base.model_copy(update={"dtype": "float32"})
    model, tokenizer = load_base(base, job.models_dir, job.recipe.quantisation if cuda else None)
    for_asking(model)
    tokenizer.padding_side = "left"
    return PeftModel.from_pretrained(model, str(job.adapter_dir)).eval(), tokenizer, base.dtype


@contextlib.contextmanager
def as_model(model: PeftModel, name: str) -> Iterator[None]:
    """The adapter for `adapter`, its base for anything else."""
    if name == "adapter":
        yield
    else:
        with model.disable_adapter():
            yield


def answer_all(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Prompt],
    *,
    job: GenerateJob,
    partial: Path,
    reporter: Reporter,
) -> pl.DataFrame:
    """All answers as GENERATION_SCHEMA, in the order of `prompts`; `partial` holds those that are already there."""
    done = _read_partial(partial)
    spec = job.recipe.evaluation
    lengths = prompt_rooms(model, job.recipe)
    texts = {prompt.key: prompt_text(prompt.messages, tokenizer, lengths[prompt.model]) for prompt in prompts}
    partial.parent.mkdir(parents=True, exist_ok=True)
    known, began = len(done), time.perf_counter()
    with partial.open("a", encoding="utf-8") as file:
        for batch in _batches(prompts, texts, spec.batch_size):
            if all(prompt.key in done for prompt in batch):
                continue
            started = time.perf_counter()
            seeds = [int(json_digest([spec.seed, prompt.suite, prompt.prompt_id])[:8], 16) for prompt in batch]
            with as_model(model, batch[0].model):
                answers = _answer(model, tokenizer, [texts[prompt.key] for prompt in batch], seeds, job.recipe)
            for prompt, answer in zip(batch, answers, strict=True):
                done[prompt.key] = answer
                file.write(json.dumps([prompt.key, answer], ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            seconds = time.perf_counter() - started
            progress("answers", len(done), len(prompts))
            left = (time.perf_counter() - began) / (len(done) - known) * (len(prompts) - len(done))
            took = f"{len(batch)} in {seconds:.1f} s, {left:.0f} s left"
            reporter.line(f"{batch[0].model}: {len(done)}/{len(prompts)} answers ({took})")
    rows = [
        {**{name: getattr(prompt, name) for name in GENERATION_SCHEMA if hasattr(prompt, name)}, **done[prompt.key]}
        for prompt in prompts
    ]
    return pl.DataFrame(rows, schema=GENERATION_SCHEMA)


def _batches(prompts: list[Prompt], texts: Mapping[tuple[str, str, str], str], most: int) -> Iterator[Sequence[Prompt]]:
    """Batches of one model each, of like lengths (padding is prefill paid for nothing) and like sizes; those with
    examples by voice, whose examples they share."""
    groups: dict[tuple[str, str], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[prompt.model, prompt.asked if prompt.model == "fewshot" else ""].append(prompt)
    for key in sorted(groups):
        asked = sorted(groups[key], key=lambda p: (len(texts[p.key]), p.key))
        count = -(-len(asked) // most)
        for place in range(count):
            yield asked[len(asked) * place // count : len(asked) * (place + 1) // count]


def _read_partial(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Answers saved by a run that did not end; a last line cut short is asked again."""
    done: dict[tuple[str, str, str], dict[str, Any]] = {}
    if not path.is_file():
        return done
    good = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            key, answer = json.loads(line)
            done[tuple(key)] = answer
            good += len(line)
    os.truncate(path, good)
    return done


def prompt_rooms(model: Any, recipe: Recipe) -> dict[str, int]:
    """Tokens that a prompt may have, by model: the trained length less the answer, within the model's window; more
    where examples stand before the question."""
    trained = recipe.training.max_length
    window = getattr(model.config, "max_position_embeddings", trained)
    room = max(LEAST_PROMPT, min(window, trained) - recipe.evaluation.max_new_tokens)
    return {"base": room, "adapter": room, "fewshot": max(room, min(window, FEWSHOT_ROOM))}


def _answer(model: Any, tokenizer: Any, texts: list[str], seeds: list[int], recipe: Recipe) -> list[dict[str, Any]]:
    """Per text, with its seed: answer, finish (stop | length) and new_tokens."""
    spec = recipe.evaluation
    ends, marks = set(stop_ids(recipe.base, tokenizer)), recipe.base.entry.next_turn

    def ended(said: list[int]) -> bool:
        return said[-1] in ends or any(mark in tokenizer.decode(said[-NEXT_TURN_TOKENS:]) for mark in marks)

    answers = []
    for said in continue_all(
        model,
        [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
        Draw(seeds, spec.temperature, spec.top_p),
        ended=ended,
        most=spec.max_new_tokens,
        penalty=spec.repetition_penalty,
    ):
        new = said[:-1] if said[-1] in ends else said
        text = tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for mark in marks:
            text = text.partition(mark)[0]
        finish = "stop" if ended(said) else "length"
        answers.append({"answer": text.strip(), "finish": finish, "new_tokens": len(new)})
    return answers


def score_all(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train: list[MixRow],
    test: list[MixRow],
    *,
    recipe: Recipe,
    reporter: Reporter,
) -> pl.DataFrame:
    """Likelihoods of base and adapter: test answers, as many train answers (the gap), knowledge choices."""
    spec = recipe.evaluation
    tested = stratified(test, spec.max_rows, spec.seed)
    trained = stratified(train, len(tested), spec.seed)
    rows = [ScoredAnswer(row.row_id, "test", row.persona, row.messages) for row in tested]
    rows += [ScoredAnswer(row.row_id, "train", row.persona, row.messages) for row in trained]
    for probe in knowledge(part(spec.max_probes, 2)):
        question = {"role": "user", "content": probe.prompt}
        for option, text in enumerate((probe.answer, *probe.wrong)):
            messages = [question, {"role": "assistant", "content": probe.say.format(text)}]
            rows.append(ScoredAnswer(probe.id, "knowledge", "general", messages, option))
    tokenizer.padding_side = "right"
    frames = [pl.DataFrame(schema=LIKELIHOOD_SCHEMA)]
    # On a CPU, the layers that base and adapter share are computed once a row for both.
    with shortcut(recipe, model, tokenizer):
        for name in ("base", "adapter"):
            started = time.perf_counter()
            with as_model(model, name):
                # The train answers tell what the adapter learnt by heart; the base never saw them.
                asked = [row for row in rows if name == "adapter" or row.suite != "train"]
                frames.append(likelihoods(model, tokenizer, asked, max_length=recipe.training.max_length, name=name))
            reporter.line(f"{name}: {len(asked)} answers scored in {time.perf_counter() - started:.1f} s")
    return pl.concat(frames)


def main(path: Path) -> None:
    job = GenerateJob.load(path)
    with open_reporter() as reporter:
        folder = generate(job, reporter)
        frame = pl.read_parquet(folder / "generations.parquet")
        counts = {f"{model} answers": count for model, count in frame["model"].value_counts().sort("model").rows()}
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        reporter.finish({**counts, "seconds": settings["seconds"], "path": str(folder)}, data_version=folder.name)
        reporter.line(f"{job.recipe.name}: {frame.height} answers in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
