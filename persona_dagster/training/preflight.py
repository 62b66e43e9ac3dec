"""What must hold before the first step: each failure is one clear error, and costs no model load."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from persona_dagster.config.base_models import Hub
from persona_dagster.config.recipes import Recipe
from persona_dagster.models.hardware import GIB, VISIBLE, Card, cards
from persona_dagster.training.job_spec import JobError, TrainJob
from persona_dagster.training.rows import Rows
from persona_dagster.training.vram import ModelShape, cures, estimate_vram, known_shape, lora_weights

_MOST_DROPPED = 0.2  # share of rows: beyond it the recipe trains on something else than its mix
# What each tracker of training.report_to needs: any one of these modules.
_TRACKERS = {
    "tensorboard": ("tensorboardX", "tensorboard"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
_CHECKPOINTS = 4  # two kept, one being written, the best one


def check_machine(job: TrainJob) -> None:
    """Card, memory, token and disk, before anything is loaded.

    Raises:
        JobError: with the cure.
    """
    recipe = job.recipe
    here = cards()
    if here and len(here) < recipe.training.processes:
        raise JobError(
            f"recipe {recipe.name} asks for training.processes={recipe.training.processes}, a card each, and "
            f"{len(here)} card(s) are visible here: lower it, or widen {VISIBLE}"
        )
    if recipe.requires_cuda and not here:
        raise JobError(
            f"recipe {recipe.name} needs an NVIDIA card and none is found: check the driver with nvidia-smi, or set "
            "PERSONA_HARDWARE=cpu"
        )
    if recipe.quantisation.scheme == "nf4" and find_spec("bitsandbytes") is None:
        raise JobError(
            f"recipe {recipe.name} asks for nf4, and bitsandbytes is not installed: pip install bitsandbytes"
        )
    for tracker in recipe.training.report_to:
        if not any(find_spec(module) for module in _TRACKERS[tracker]):
            raise JobError(
                f"recipe {recipe.name}: training.report_to names {tracker}, which is not installed: "
                f"pip install {_TRACKERS[tracker][0]}"
            )
    shape = known_shape(recipe.base)
    if shape is not None:
        _check_context(recipe, shape)
        if here:
            _check_fits(recipe, shape, max(card.total_gib for card in here))
        _check_disk(job, shape)
    _check_token(recipe)
    if recipe.requires_cuda:
        _check_cuda(recipe, here)


def _check_cuda(recipe: Recipe, here: Sequence[Card]) -> None:
    """That the PyTorch here can compute on the cards that the driver shows."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    known = [tuple(divmod(int(name[3:]), 10)) for name in torch.cuda.get_arch_list() if name[:3] == "sm_"]
    for card in here:
        # A binary runs on later cards of its own generation.
        runs = any(card.capability[0] == major and card.capability[1] >= minor for major, minor in known)
        if not torch.cuda.is_available() or not runs:
            raise JobError(
                f"recipe {recipe.name}: PyTorch {torch.__version__}, built for {built}, cannot use {card.name} (sm_"
                f"{card.capability[0]}{card.capability[1]}): install the build for the CUDA version that nvidia-smi "
                "shows (pip install torch --index-url https://download.pytorch.org/whl/cu130), or a newer driver"
            )


def check_rows(recipe: Recipe, rows: Rows, split: str) -> None:
    """Most rows must fit `max_length`: what is dropped is never dropped in silence."""
    whole = len(rows.rows) + len(rows.dropped)
    if len(rows.dropped) > _MOST_DROPPED * whole:
        named = ", ".join(rows.dropped[:3])
        raise JobError(
            f"recipe {recipe.name}: {len(rows.dropped)} of {whole} {split} rows do not fit "
            f"training.max_length={recipe.training.max_length} ({named}, …): raise it"
        )


def _check_context(recipe: Recipe, shape: ModelShape) -> None:
    if recipe.training.max_length > shape.context:
        raise JobError(
            f"recipe {recipe.name}: training.max_length={recipe.training.max_length} exceeds the {shape.context} "
            f"tokens that {recipe.base.model} can see: lower it"
        )


def check_memory(recipe: Recipe, lent: Sequence[Card]) -> None:
    """What other programs have left free on the cards of this training.

    Raises:
        JobError: too little, with the cure.
    """
    shape = known_shape(recipe.base)
    if shape is not None and lent:
        _check_fits(recipe, shape, min(card.free_gib for card in lent))


def _check_fits(recipe: Recipe, shape: ModelShape, card_gib: float) -> None:
    budget = min(recipe.vram_gib or card_gib, card_gib)
    need = estimate_vram(recipe, shape)
    if need.total > budget:
        raise JobError(
            f"recipe {recipe.name} needs about {need.total:.1f} GiB of {budget:.1f} GiB "
            f"({', '.join(f'{part} {size:.2f}' for part, size in need.as_dict().items() if part != 'total')}). "
            f"Any of these makes it fit: {'; '.join(cures(recipe, shape, budget))}"
        )


def _check_disk(job: TrainJob, shape: ModelShape) -> None:
    """Weights, gradients' moments and the base model's cache."""
    checkpoint = lora_weights(job.recipe, shape) * (4 + 8)
    base = (shape.linear_weights + shape.embedding_weights) * 2
    existing = next(path for path in (job.checkpoints_dir, *job.checkpoints_dir.parents) if path.exists())
    need = (_CHECKPOINTS * checkpoint + base) / GIB
    free = shutil.disk_usage(existing).free / GIB
    if free < need:
        raise JobError(
            f"recipe {job.recipe.name} may write {need:.2f} GiB under {existing}, where {free:.2f} GiB are "
            "free: make room, or move PERSONA_HOME"
        )


def _check_token(recipe: Recipe) -> None:
    source = recipe.base.entry.source
    if not isinstance(source, Hub) or not source.gated:
        return
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cached = (hub / "hub" / f"models--{source.hub.replace('/', '--')}").is_dir()
    if not (cached or os.environ.get("HF_TOKEN") or (hub / "token").is_file()):
        raise JobError(
            f"base model {source.hub} is gated and there is no token: accept its licence on huggingface.co "
            "and set HF_TOKEN, or choose another base.model"
        )
