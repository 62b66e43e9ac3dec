"""One training, as data: what goes in, where it comes out, and the name that follows from its content.

Imports no torch: the graph asks `find_adapter` before it starts a process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field

from persona_dagster.config.loading import Config
from persona_dagster.config.recipes import Recipe
from persona_dagster.digest import file_digest, json_digest, text_digest
from persona_dagster.models.base_model import base_revision

# Raise when the trainer would make other weights of the same recipe and mix: every adapter is then stale.
TRAINING_VERSION = "3"

# How often it is looked at changes no weight; what a failing watch does, and which step is best, does.
_UNSEEN = {"log_every", "save_every", "sample_every"}


class JobError(ValueError):
    """A job that cannot be trained; the message names what is wrong and the cure."""


class TrainJob(Config):
    """The input of `python -m persona_dagster.training.train JOB.json`.

    `mix_dir` holds train.jsonl, test.jsonl and manifest.json. `out_dir` is the recipe's own folder, in which
    the adapter is published as `<digest>/`, with the file `latest` naming it. `checkpoints_dir` is the recipe's
    own too. `extras` is copied to the run card.
    """

    recipe: Recipe
    mix_dir: Path
    out_dir: Path
    models_dir: Path
    checkpoints_dir: Path
    extras: dict[str, Any] = Field(default_factory=dict)

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json(indent=2), encoding="utf-8")
        return temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> TrainJob:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    @property
    def work_dir(self) -> Path:
        """Where checkpoints of this very content live until it is published."""
        return self.checkpoints_dir / adapter_digest(self)


def mix_digest(mix_dir: Path) -> str:
    """The mix's own digest from its manifest; over its two files where there is none (a mix made by hand)."""
    manifest = mix_dir / "manifest.json"
    if manifest.is_file():
        digest = json.loads(manifest.read_text(encoding="utf-8")).get("digest")
        if digest:
            return str(digest)
    files = [mix_dir / name for name in ("train.jsonl", "test.jsonl")]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise JobError(f"{mix_dir}: no {' and no '.join(missing)}; materialise the mix of this recipe first")
    return text_digest(*(file_digest(path) for path in files))


def recipe_digest(recipe: Recipe) -> str:
    """Over what decides an adapter beside its mix: of the recipe, the base model and this trainer."""
    content = {
        "trainer": TRAINING_VERSION,
        "backend": recipe.backend,
        "base": recipe.base.model_dump(),
        "base_revision": base_revision(recipe.base),
        "quantisation": recipe.quantisation.model_dump(),
        "lora": recipe.lora.model_dump(),
        "training": recipe.training.model_dump(exclude=_UNSEEN),
        "healthy_loss": recipe.healthy_loss.get(recipe.base.model),
    }
    return json_digest(content)


def adapter_digest(job: TrainJob) -> str:
    """The content address of the adapter that `job` makes: 32 hex digits over recipe, base, trainer and mix."""
    return text_digest(recipe_digest(job.recipe), mix_digest(job.mix_dir))


def find_adapter(job: TrainJob) -> Path | None:
    """The published adapter of exactly this job, if there is one: then nothing needs training."""
    folder = job.out_dir / adapter_digest(job)
    return folder if (folder / "run_card.json").is_file() else None
