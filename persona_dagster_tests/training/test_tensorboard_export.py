"""TensorBoard export: every number of the log, at its step, read back from the event file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from persona_dagster.training.tensorboard_export import TrackingError, write_tensorboard

LOG = [
    {"kind": "eval", "step": 0, "loss": 3.08, "seconds": 1.5},
    {"kind": "train", "step": 1, "loss": 3.5, "learning_rate": 0.001, "seconds": 2.5},
    {"kind": "train", "step": 2, "loss": 3.25, "learning_rate": 0.002, "seconds": 4.0, "note": "text"},
]


def scalars(path: Path) -> dict[tuple[str, int], float]:
    """The scalars of an event file: TFRecords of length, checksum, an Event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, place, found = path.read_bytes(), 0, {}
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        place += 12 + length + 4
    return found


def test_every_number_is_there_at_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG), encoding="utf-8")
    assert write_tensorboard(tmp_path, tmp_path / "events") == 5
    (file,) = (tmp_path / "events").iterdir()
    assert scalars(file) == {
        ("eval/loss", 0): pytest.approx(3.08),
        ("train/loss", 1): 3.5,
        ("train/loss", 2): 3.25,
        ("train/learning_rate", 1): pytest.approx(0.001),
        ("train/learning_rate", 2): pytest.approx(0.002),
    }


def test_a_recipe_never_trained_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="train the recipe first"):
        write_tensorboard(tmp_path, tmp_path / "events")
