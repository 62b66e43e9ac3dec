"""A training's log as TensorBoard events, for whoever compares runs there: after the fact, and for old runs too."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

NOT_CURVES = {"kind", "step", "seconds"}


class TrackingError(RuntimeError):
    """A log that cannot be shown; the message names the cure."""


def write_tensorboard(adapter_dir: Path, folder: Path) -> int:
    """The curves of `adapter_dir`/training_log.jsonl as an event file under `folder`; returns how many points.

    Scalars are named `train/loss`, `eval/loss`, `train/tokens_per_s`… over optimizer steps; wall times are seconds
    since the training began.

    Raises:
        TrackingError: no log there, or tensorboardX is not installed.
    """
    log = adapter_dir / "training_log.jsonl"
    if not log.is_file():
        raise TrackingError(f"{log}: not there; train the recipe first")
    if importlib.util.find_spec("tensorboardX") is None:
        raise TrackingError("tensorboardX is not installed: pip install tensorboardX")
    from tensorboardX import SummaryWriter

    points = 0
    with SummaryWriter(str(folder)) as writer, log.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            for name, value in entry.items():
                if name in NOT_CURVES or not isinstance(value, int | float):
                    continue
                writer.add_scalar(f"{entry['kind']}/{name}", value, entry["step"], walltime=entry.get("seconds", 0.0))
                points += 1
    return points
