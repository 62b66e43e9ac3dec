"""What the two recipes of an 8B model take of a card, against the plan of training/vram.py; at most 8 minutes.

    python benchmarks/gpu_training.py [FOLDER] [--minutes 8] [--tiny]

Needs one NVIDIA card of 12 GB or more, 8 GB of disk under FOLDER, and `.[train]` with requirements-gpu.txt; no network:
weights are random, quantised to nf4 on the card and written once, in the form that `…-bnb-4bit` has on the Hub. Every
point runs in its own process through the project's own trainer program, in an order of importance: what no longer fits
into the time is left out, and said. Memory and ratios travel to other cards, tokens/s do not.

`--tiny` goes the same way on small shapes, without a card too: a rehearsal, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from persona_dagster.artifacts import RunCard
from persona_dagster.config.recipes import Base, Recipe, load_recipe
from persona_dagster.models.base_model import load_tokenizer
from persona_dagster.models.hardware import GIB, cards
from persona_dagster.training.job_spec import TrainJob, find_adapter
from persona_dagster.training.vram import ModelShape, estimate_vram, known_shape

LLAMA = known_shape(Base(model="llama3-8b"))
TINY = ModelShape(layers=2, hidden=256, intermediate=512, heads=4, kv_heads=2, vocabulary=4096, context=2048)
FROM_STEP, TO_STEP = 4, 20  # speed is read here: the first steps still compile and allocate, a sample comes at 50
CONTEXT_GIB = 0.6  # of a capped card, what the allocator never sees
LEAST_SECONDS = 30  # for less, a point is not begun


@dataclass(frozen=True, slots=True)
class Point:
    recipe: str
    hardware: str
    backend: str
    steps: int
    cap_gib: float | None = None  # the size of the card that this one plays
    goal_gib: float | None = None


# 11.2 GB and 7.5 GB are what PersonaLlama-3 and PEFT-Capybara-Chat say of themselves.
POINTS = {
    "persona_v2, Unsloth, card of 12 GB": Point("persona_v2", "gpu_12gb", "unsloth", 60, 12.0, 11.2e9 / GIB),
    "capybara_qlora, Unsloth, card of 8 GB": Point("capybara_qlora", "gpu_8gb", "unsloth", 10, 8.0, 7.5e9 / GIB),
    "persona_v2, TRL": Point("persona_v2", "gpu_12gb", "trl", TO_STEP),
}
FASTER, PEER = "persona_v2, Unsloth, card of 12 GB", "persona_v2, TRL"
KILLED = Point("persona_v2", "gpu_12gb", "unsloth", TO_STEP)


def write_model(folder: Path, shape: ModelShape) -> None:
    """A Llama of `shape` with random weights, its linear maps in nf4, a file a layer, and a tokenizer of our own."""
    target = folder / "model"
    if (target / "config.json").is_file():
        return
    import torch
    from bitsandbytes.functional import quantize_4bit
    from safetensors.torch import save_file
    from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

    target.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(Base(model="tiny-llama"), folder / "models")
    tokenizer.save_pretrained(target)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rope_theta=500000.0,
        dtype="bfloat16",
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).state_dict().items()}
    config.quantization_config = nf4.to_dict()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    files: dict[str, dict[str, torch.Tensor]] = {}
    where: dict[str, str] = {}
    for name, size in shapes.items():
        layer = name.split(".")[2] if ".layers." in name else name.replace(".", "-")
        file = f"model-{layer}.safetensors"
        weight = torch.ones(size) if "norm" in name else torch.randn(size, device=device) * 0.02
        parts = {name: weight.to(torch.bfloat16)}
        if ".layers." in name and "norm" not in name:
            packed, state = quantize_4bit(parts[name], blocksize=64, compress_statistics=True, quant_type="nf4")
            parts = {name: packed} | {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
        files.setdefault(file, {}).update({key: value.cpu().contiguous() for key, value in parts.items()})
        where |= dict.fromkeys(parts, file)
    for file, weights in files.items():
        save_file(weights, target / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(target)


def write_mix(folder: Path) -> None:
    """Rows that fill any length asked for: the worst case for memory, and no padding."""
    mix = folder / "mix"
    mix.mkdir(parents=True, exist_ok=True)
    sentence = "這一段回答說明注意力怎麼決定要看哪裡，也說明訓練時的損失怎麼變化。"
    for split, count in (("train", 64), ("validation", 3)):
        lines = []
        for number in range(count):
            messages = [
                {"role": "user", "content": f"第{number}個問題：" + sentence},
                {"role": "assistant", "content": sentence * 60},
            ]
            row = {"row_id": f"{split}{number}-0", "persona": "assistant", "messages": messages}
            lines.append(json.dumps(row, ensure_ascii=False))
        (mix / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def job_of(point: Point, folder: Path, home: Path, tiny: bool) -> TrainJob:
    """The packaged recipe on the random model: its own batch, length, sample at step 50, one evaluation of two rows."""
    values = load_recipe(point.recipe, Path("nowhere"), "live", point.hardware).model_dump()
    # Measured, not refused; the losses of random weights are healthy.
    values |= {"backend": point.backend, "vram_gib": None, "requires_cuda": not tiny, "healthy_loss": {}}
    values["base"] = {"model": str(folder / "model")}
    values["training"] |= {"max_steps": point.steps, "eval_rows": 2, "eval_every": 1000, "save_every": 5}
    values["training"] |= {"on_trouble": "warn"} | ({"max_length": 192} if tiny else {})
    return TrainJob(
        recipe=Recipe.model_validate(values),
        mix_dir=folder / "mix",
        out_dir=home / "adapters",
        models_dir=folder / "models",
        checkpoints_dir=home / "checkpoints",
    )


def measure(point: Point, folder: Path, home: Path, tiny: bool) -> dict[str, Any]:
    """One point, in this process: the trainer's own log gives the speed, torch and NVML the memory."""
    import torch

    from persona_dagster.pipes_reporting import Reporter
    from persona_dagster.training.train import train

    job = job_of(point, folder, home, tiny)
    cuda = torch.cuda.is_available()
    if cuda and point.cap_gib is not None:
        torch.cuda.set_per_process_memory_fraction((point.cap_gib - CONTEXT_GIB) / cards()[0].total_gib)
    log = train(job, Reporter(None, quiet=True)) / "training_log.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    timed = [line for line in steps if FROM_STEP <= line["step"] <= TO_STEP]
    shape = known_shape(job.recipe.base)
    assert shape is not None
    return {
        "steps": len(steps),
        "samples": sum(line["kind"] == "sample" for line in lines),
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB if cuda else None,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB if cuda else None,
        "card_gib": max(line["vram_gib"] for line in steps) if cuda else None,
        "plan_gib": estimate_vram(job.recipe, shape).total,
        "tokens_per_s": statistics.median(line["tokens_per_s"] for line in timed),
        "power_w": statistics.median(line["power_w"] for line in timed) if cuda else None,
    }


def kill_and_resume(folder: Path, home: Path, tiny: bool, ends: float) -> dict[str, Any]:
    """SIGKILL after a checkpoint, and the same job again: it goes on from there, and every step is logged once."""
    job = job_of(KILLED, folder, home, tiny)
    command = [sys.executable, "-m", "persona_dagster.training.train", str(job.save(home / "job.json"))]
    log = job.work_dir / "training_log.jsonl"
    first = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        while not log.is_file() or log.read_text(encoding="utf-8").count('"kind": "train"') < 12:
            if first.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"no step 12: status {first.poll()}")
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=ends - time.monotonic())
    folder_ = find_adapter(job)
    assert folder_ is not None
    lines = (folder_ / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["kind"] == "train"]
    went_on = [line for line in again.stdout.splitlines() if "going on from step" in line]
    assert went_on and steps == list(range(1, KILLED.steps + 1)), (went_on, steps)
    return {"resumed": went_on[0].split(": ")[-1], "steps": len(steps), "loss": RunCard.read(folder_).train_loss}


def table(results: dict[str, dict[str, Any]]) -> str:
    def figure(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    here = cards()
    machine = f"{here[0].name} ({here[0].total_gib:.0f} GiB)" if here else "no card: a rehearsal"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}: `python benchmarks/gpu_training.py`",
        "",
        "| point | steps | allocated GiB | reserved GiB | card GiB | plan GiB | goal GiB | tokens/s | W |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        if name in POINTS:
            cells = [figure(one[key]) for key in ("allocated_gib", "reserved_gib", "card_gib", "plan_gib")]
            cells += [figure(POINTS[name].goal_gib), figure(one["tokens_per_s"], 0), figure(one["power_w"], 0)]
            lines.append(f"| {name} | {one['steps']} | {' | '.join(cells)} |")
    lines.append("")
    if FASTER in results and PEER in results:
        ratio = results[FASTER]["tokens_per_s"] / results[PEER]["tokens_per_s"]
        lines.append(f"Unsloth / TRL: {ratio:.2f}× tokens/s over steps {FROM_STEP} to {TO_STEP} (goal 1.5×)")
    if "kill" in results:
        lines.append(f"SIGKILL after step 12: {results['kill']['resumed']}, all {results['kill']['steps']} steps")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir(), "persona-gpu-training"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--point", help=argparse.SUPPRESS)  # the model, a point, or the kill: a process of its own
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if given.point:
        if given.point == "model":
            write_model(folder, TINY if given.tiny else LLAMA)
            result: dict[str, Any] = {}
        else:
            with tempfile.TemporaryDirectory(dir=folder) as home:
                if given.point == "kill":
                    ends = time.monotonic() + given.seconds
                    result = kill_and_resume(folder, Path(home), given.tiny, ends)
                else:
                    result = measure(POINTS[given.point], folder, Path(home), given.tiny)
        print(json.dumps(result))
        return 0
    if not cards() and not given.tiny:
        print("skipped: no NVIDIA card on this machine (--tiny rehearses without one)")
        return 0
    ends = time.monotonic() + 60 * given.minutes
    write_mix(folder)
    results: dict[str, dict[str, Any]] = {}
    missed = []
    for name in ("model", *POINTS, "kill"):
        left = ends - time.monotonic()
        if left < LEAST_SECONDS:
            missed.append(name)
            print(f"{name}: left out, {left:.0f} s are left", flush=True)
            continue
        command = [sys.executable, __file__, str(folder), "--point", name, "--seconds", str(left)]
        command += ["--tiny"] if given.tiny else []
        began = time.monotonic()
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=left)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            missed.append(name)
            print(f"{name}: {error}", flush=True)
            continue
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: {time.monotonic() - began:.0f} s {results[name]}", flush=True)
    text = table(results)
    (folder / "result.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
