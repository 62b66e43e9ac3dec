"""The mission's own path without a card: Unsloth's CPU backend trains SmolLM2 in nf4 through our trainer program.

The program itself refuses weights that are not in 4 bits (trainer.check_quantised), so a training that ends well has
them; that the check bites here too is shown by asking for none and checking for nf4.

Part of `make test-unsloth`: its environment is made by scripts/make_unsloth_env.sh, or named by $PERSONA_UNSLOTH.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.config.recipes import Base, Recipe, load_recipe
from persona_dagster.settings import PROJECT_ROOT
from persona_dagster.training.job_spec import TrainJob, find_adapter

PYTHON = Path(os.environ.get("PERSONA_UNSLOTH", PROJECT_ROOT / ".venv-unsloth")) / "bin" / "python"


# Run in the environment with Unsloth: what lies in memory, and the flags before and after a sample.
LOOK = """
import json, sys
from pathlib import Path
from persona_dagster.training.job_spec import JobError, TrainJob
from persona_dagster.training import unsloth_backend
job = TrainJob.load(Path(sys.argv[1]))
unsloth_backend.prepare()
from persona_dagster.training.rows import read_rows
from persona_dagster.training.train import sampler
from persona_dagster.training.trainer import check_quantised
wanted = job.recipe
given = wanted.model_copy(update={"quantisation": wanted.quantisation.model_copy(update={"scheme": sys.argv[2]})})
model, tokenizer = unsloth_backend.load(given, job.models_dir)
maps = [module.get_base_layer().weight for module in model.modules() if hasattr(module, "lora_A")]
try:
    check_quantised(wanted, model)
    refused = ""
except JobError as error:
    refused = str(error)
def flags():
    armed = ((one.training, bool(getattr(one, "gradient_checkpointing", False))) for one in model.modules())
    return list(armed)
unsloth_backend.resume(wanted, model)
before = flags()
rows = read_rows(job.mix_dir, "train", tokenizer, 192).rows[:1]
answers = sampler(rows, tokenizer, lambda asked: unsloth_backend.resume(wanted, asked))(model)
after = flags()
from unsloth import FastLanguageModel
FastLanguageModel.for_inference(model)  # what `generate` may do
lost = flags()
unsloth_backend.resume(wanted, model)
print(json.dumps({
    "classes": sorted({type(one).__name__ for one in maps}),
    "bytes_a_weight": sum(one.numel() * one.element_size() for one in maps)
    / sum(one.quant_state.shape.numel() if hasattr(one, "quant_state") else one.numel() for one in maps),
    "learning": sorted({str(one.dtype) for one in model.parameters() if one.requires_grad}),
    "refused": refused,
    "checkpointing": sum(on for _, on in before),
    "kept": after == before,
    "lost_by_inference": lost != before,
    "brought_back": flags() == before,
}))
"""
needs_unsloth = pytest.mark.skipif(
    not PYTHON.is_file(), reason="no environment with Unsloth: scripts/make_unsloth_env.sh"
)


def make(mix_dir: Path, tmp_path: Path) -> TrainJob:
    recipe = load_recipe("persona_v2", tmp_path, "sample", "cpu")
    values = recipe.model_dump()
    values["base"] = Base(model="smollm2-135m-instruct").model_dump()  # 135 M parameters: 1.5 GB of memory
    values |= {"backend": "unsloth", "quantisation": {"scheme": "nf4", "compute_dtype": "bfloat16"}}
    values["training"] |= {
        "max_steps": 3,
        "batch_size": 2,
        "accumulation": 1,
        "warmup_steps": 0,
        "max_length": 192,
        "chunked_loss": False,
        "padding_free": False,
        "eval_rows": 2,
        "eval_every": 3,
        "sample_every": 0,
        "gradient_checkpointing": True,
    }
    return TrainJob(
        recipe=Recipe.model_validate(values),
        mix_dir=mix_dir,
        out_dir=tmp_path / "adapters",
        models_dir=Path(os.environ.get("PERSONA_MODELS", tmp_path / "models")),
        checkpoints_dir=tmp_path / "checkpoints",
    )


def look(job: TrainJob, tmp_path: Path, scheme: str) -> dict[str, Any]:
    command = [str(PYTHON), "-c", LOOK, str(job.save(tmp_path / "job.json")), scheme]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@needs_unsloth
@pytest.mark.soak
def test_what_unsloth_loads_is_in_4_bits_and_goes_on_checkpointing(mix_dir: Path, tmp_path: Path) -> None:
    job = make(mix_dir, tmp_path)
    seen = look(job, tmp_path, "nf4")
    assert seen["classes"] == ["Params4bit"] and seen["bytes_a_weight"] == 0.5 and seen["refused"] == ""
    assert seen["learning"] == ["torch.float32"]
    assert seen["checkpointing"] > 0 and seen["kept"], "a sample in mid-training leaves every flag as it was"
    assert seen["lost_by_inference"], "control: inference disarms, and it is seen"
    assert seen["brought_back"]
    whole = look(job, tmp_path, "none")
    assert whole["bytes_a_weight"] >= 2 and "pip install bitsandbytes" in whole["refused"], "control: 16 bits"


@needs_unsloth
@pytest.mark.soak
def test_unsloth_trains_in_nf4_on_the_cpu(mix_dir: Path, tmp_path: Path) -> None:
    job = make(mix_dir, tmp_path)
    command = [str(PYTHON), "-m", "persona_dagster.training.train", str(job.save(tmp_path / "job.json"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = find_adapter(job)
    assert folder is not None
    card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
    assert card["steps"] == 3 and "unsloth" in card["versions"]
    assert card["eval_loss_after"] < card["eval_loss_before"]
