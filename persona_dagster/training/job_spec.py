"""One training, as data: what goes in, where it comes out, and the name that follows from its content.

Imports no torch: the graph asks `find_adapter` before it starts a process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from persona_dagster.artifacts import Job, MixManifest, RunCard, Versions
from persona_dagster.config.recipes import Recipe
from persona_dagster.digest import file_digest, json_digest, text_digest
from persona_dagster.models.base_model import base_revision

# Raise when the trainer would make other weights of the same recipe and mix: every adapter is then stale.
TRAINING_VERSION = "3"

# How often it is looked at changes no weight; what a failing watch does, and which step is best, does.
_UNSEEN = {"log_every", "save_every", "sample_every", "report_to"}


class JobError(ValueError):
    """A job that cannot be trained; the message names what is wrong and the cure."""


class TrainJob(Job):
    """The input of `python -m persona_dagster.training.train JOB.json`.

    `mix_dir` holds train.jsonl, validation.jsonl and manifest.json. `out_dir` is the recipe's own folder, in which
    the adapter is published as `<digest>/`, with the file `latest` naming it. `checkpoints_dir` is the recipe's
    own too. `extras` is copied to the run card.
    """

    recipe: Recipe
    mix_dir: Path
    out_dir: Path
    models_dir: Path
    checkpoints_dir: Path
    extras: dict[str, Any] = Field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        """Where checkpoints of this very content live until it is published."""
        return self.checkpoints_dir / adapter_digest(self)


def mix_digest(mix_dir: Path) -> str:
    """The mix's own digest from its manifest; over its two files where there is none (a mix made by hand)."""
    if (mix_dir / MixManifest.FILE).is_file():
        return MixManifest.read(mix_dir).digest
    files = [mix_dir / name for name in ("train.jsonl", "validation.jsonl")]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise JobError(f"{mix_dir}: no {' and no '.join(missing)}; materialise the mix of this recipe first")
    return text_digest(*(file_digest(path) for path in files))


def recipe_digest(recipe: Recipe, revision: str | None = None) -> str:
    """Over what decides an adapter beside its mix: of the recipe, the base model (of this `revision`, else the one that
    stands here) and this trainer."""
    content = {
        "trainer": TRAINING_VERSION,
        "backend": recipe.backend,
        "base": recipe.base.meaning(),
        "base_revision": revision or base_revision(recipe.base),
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
    return adapters(job).find(adapter_digest(job))


def adapters(job: TrainJob) -> Versions:
    return Versions(job.out_dir, RunCard.FILE)
