"""The mission's own path without a card: Unsloth's CPU backend trains SmolLM2 in nf4 through our trainer program.

Part of `make test-unsloth`: its environment is made by scripts/make_unsloth_env.sh, or named by $PERSONA_UNSLOTH.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.settings import PROJECT_ROOT
from persona_dagster.training.job import TrainJob, find_adapter

PYTHON = Path(os.environ.get("PERSONA_UNSLOTH", PROJECT_ROOT / ".venv-unsloth")) / "bin" / "python"


@pytest.mark.skipif(not PYTHON.is_file(), reason="no environment with Unsloth: scripts/make_unsloth_env.sh")
@pytest.mark.soak
def test_unsloth_trains_in_nf4_on_the_cpu(mix_dir: Path, tmp_path: Path) -> None:
    recipe = load_recipe("persona_v2", tmp_path, "sample", "cpu")
    values = recipe.model_dump()
    values |= {"backend": "unsloth", "quantisation": {"scheme": "nf4", "compute_dtype": "bfloat16"}}
    values["training"] |= {
        "max_steps": 4,
        "batch_size": 2,
        "accumulation": 1,
        "warmup_steps": 0,
        "max_length": 192,
        "chunked_loss": False,
        "eval_rows": 2,
        "eval_every": 4,
    }
    job = TrainJob(
        recipe=Recipe.model_validate(values),
        mix_dir=mix_dir,
        out_dir=tmp_path / "adapters",
        models_dir=Path(os.environ.get("PERSONA_MODELS", tmp_path / "models")),
        checkpoints_dir=tmp_path / "checkpoints",
    )
    command = [str(PYTHON), "-m", "persona_dagster.training.train", str(job.save(tmp_path / "job.json"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = find_adapter(job)
    assert folder is not None
    card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
    assert card["steps"] == 4 and "unsloth" in card["versions"]
    assert card["eval_loss_after"] < card["eval_loss_before"]
