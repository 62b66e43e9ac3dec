"""Peak memory and speed of both backends on a Llama-3-8B-shaped model, against the estimate of training/vram.py.

    python benchmarks/gpu_training.py [FOLDER] [--only NAME …]

Needs one NVIDIA card of 12 GB or more, 20 GB of disk under FOLDER, and the `train` and `gpu` extras; no network:
the weights are random, written once, quantised to nf4 as they are loaded. Every point runs in its own process
through the project's own trainer program, and gives one line: allocated, reserved, the card's own figure, the
estimate, and non-padding tokens/s. Tokens/s hold for the card they were measured on; memory and ratios travel.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from persona_dagster.config.recipes import Base, Recipe, load_recipe
from persona_dagster.models.base_model import load_tokenizer
from persona_dagster.models.hardware import GIB, cards
from persona_dagster.training.job import TrainJob
from persona_dagster.training.vram import estimate_vram, known_shape

LLAMA = known_shape(Base(model="meta-llama/Llama-3.1-8B-Instruct"))
STEPS, WARM = 8, 3  # optimizer steps; those before the third still compile and allocate
# name → recipe, hardware overlay, backend, goal in GiB (11.2 GB and 7.5 GB of the two seeds; None: the peer)
POINTS: dict[str, tuple[str, str, str, float | None]] = {
    "persona_v2 by unsloth": ("persona_v2", "gpu_12gb", "unsloth", 11.2e9 / GIB),
    "persona_v2 by trl": ("persona_v2", "gpu_12gb", "trl", None),
    "persona_v2 by trl, chunked loss": ("persona_v2", "gpu_12gb", "trl", None),
    "capybara_qlora on gpu_8gb": ("capybara_qlora", "gpu_8gb", "unsloth", 7.5e9 / GIB),
    "capybara_qlora on gpu_8gb by trl": ("capybara_qlora", "gpu_8gb", "trl", None),
}


def write_model(folder: Path) -> Path:
    """A Llama-3-8B of random bfloat16 weights, a file a layer, and a tokenizer of our own; made once (16 GB)."""
    target = folder / "llama-3-8b-random"
    if (target / "config.json").is_file():
        return target
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    target.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(Base(model="tiny-llama"), folder / "models")
    tokenizer.save_pretrained(target)
    config = LlamaConfig(
        vocab_size=LLAMA.vocabulary,
        hidden_size=LLAMA.hidden,
        intermediate_size=LLAMA.intermediate,
        num_hidden_layers=LLAMA.layers,
        num_attention_heads=LLAMA.heads,
        num_key_value_heads=LLAMA.kv_heads,
        max_position_embeddings=LLAMA.context,
        rope_theta=500000.0,
        dtype="bfloat16",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).state_dict().items()}
    files: dict[str, list[str]] = {}
    for name in shapes:
        layer = name.split(".")[2] if ".layers." in name else name.replace(".", "-")
        files.setdefault(f"model-{layer}.safetensors", []).append(name)
    for file, names in files.items():
        weights = {}
        for name in names:
            norm = "norm" in name
            weight = torch.ones(shapes[name]) if norm else torch.randn(shapes[name], device="cuda") * 0.02
            weights[name] = weight.to(torch.bfloat16).cpu().contiguous()
        save_file(weights, target / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in files.items() for name in names}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(target)
    return target


def write_mix(folder: Path, rows: int = 64) -> Path:
    """Rows that fill any length asked for: the worst case for memory, and no padding."""
    mix = folder / "mix"
    mix.mkdir(parents=True, exist_ok=True)
    sentence = "這一段回答說明注意力怎麼決定要看哪裡，也說明訓練時的損失怎麼變化。"
    for split, count in (("train", rows), ("test", 2)):
        lines = []
        for number in range(count):
            messages = [
                {"role": "user", "content": f"第{number}個問題：" + sentence * 4},
                {"role": "assistant", "content": sentence * 60},
            ]
            row = {"row_id": f"{split}{number}-0", "persona": "assistant", "messages": messages}
            lines.append(json.dumps(row, ensure_ascii=False))
        (mix / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return mix


def recipe_of(point: str, model: Path) -> Recipe:
    """The packaged recipe on the random model: 8 steps of its own batch and length, no samples, one evaluation."""
    name, hardware, backend, _ = POINTS[point]
    recipe = load_recipe(name, Path("nowhere"), "live", hardware)
    chunked = "chunked" in point or (backend == "trl" and hardware == "gpu_8gb")
    changes = {
        "max_steps": STEPS,
        "sample_every": 0,
        "eval_every": 1000,
        "save_every": 1000,
        "eval_rows": 2,
        "chunked_loss": chunked,
    }
    return recipe.model_copy(
        update={
            "backend": backend,
            "vram_gib": None,  # measured, not refused
            "base": recipe.base.model_copy(update={"model": str(model)}),
            "training": recipe.training.model_copy(update=changes),
        }
    )


def measure(point: str, folder: Path) -> dict[str, object]:
    """One point, in this process: the trainer's own log gives the speed, torch and NVML the memory."""
    import torch

    from persona_dagster.reporting import Reporter
    from persona_dagster.training.train import train

    recipe = recipe_of(point, folder / "llama-3-8b-random")
    with tempfile.TemporaryDirectory(dir=folder) as home:
        job = TrainJob(
            recipe=recipe,
            mix_dir=folder / "mix",
            out_dir=Path(home, "adapters"),
            models_dir=folder / "models",
            checkpoints_dir=Path(home, "checkpoints"),
        )
        log = train(job, Reporter(None, quiet=True)) / "training_log.jsonl"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train" and line["step"] >= WARM]
    return {
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "card_gib": max(line["vram_gib"] for line in steps),
        "estimate_gib": estimate_vram(recipe, LLAMA).total,
        "tokens_per_s": statistics.median(line["tokens_per_s"] for line in steps),
        "power_w": statistics.median(line["power_w"] for line in steps),
    }


def table(results: dict[str, dict[str, float]]) -> str:
    card = cards()[0]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {card.name} ({card.total_gib:.0f} GiB): `python benchmarks/gpu_training.py`",
        "",
        "| point | allocated GiB | reserved GiB | card GiB | estimate GiB | off | goal GiB | tokens/s | W |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for point, result in results.items():
        goal = POINTS[point][3]
        off = result["estimate_gib"] / result["card_gib"] - 1
        lines.append(
            f"| {point} | {result['allocated_gib']:.2f} | {result['reserved_gib']:.2f} | {result['card_gib']:.2f} | "
            f"{result['estimate_gib']:.2f} | {off:+.0%} | {f'{goal:.2f}' if goal else ''} | "
            f"{result['tokens_per_s']:.0f} | {result['power_w']:.0f} |"
        )
    fast, plain = results.get("persona_v2 by unsloth"), results.get("persona_v2 by trl")
    if fast and plain:
        lines += ["", f"unsloth / trl: {fast['tokens_per_s'] / plain['tokens_per_s']:.2f}× tokens/s (goal 1.5×)"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir(), "persona-gpu-training"))
    parser.add_argument("--only", nargs="+", choices=list(POINTS), default=list(POINTS))
    parser.add_argument("--point", choices=list(POINTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.point:
        print(json.dumps(measure(arguments.point, folder)))
        return 0
    if not cards():
        print("skipped: no NVIDIA card on this machine")
        return 0
    write_mix(folder)
    # In a process of its own: what it leaves on the card would count in the first point.
    make = f"from pathlib import Path; import gpu_training; gpu_training.write_model(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
    results = {}
    for point in arguments.only:
        command = [sys.executable, __file__, str(folder), "--point", point]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"{point}: failed with status {done.returncode}; its error is above", flush=True)
            continue
        results[point] = json.loads(done.stdout.splitlines()[-1])
        print(f"{point}: {results[point]}", flush=True)
    print(table(results))
    return 0 if len(results) == len(arguments.only) else 1


if __name__ == "__main__":
    raise SystemExit(main())
