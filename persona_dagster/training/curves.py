"""The curves of one training as a PNG, small enough to stand in an event of Dagster (under 100 KB)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def draw_curves(log: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Train loss, evaluation loss and learning rate over steps, from the lines of training_log.jsonl; a PNG."""
    from matplotlib.figure import Figure

    train = [line for line in log if line["kind"] == "train"]
    evaluation = [line for line in log if line["kind"] == "eval"]
    figure = Figure(figsize=(8, 4), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.plot([line["step"] for line in train], [line["loss"] for line in train], color="#94a3b8", label="train loss")
    axes.plot(
        [line["step"] for line in evaluation],
        [line["loss"] for line in evaluation],
        color="#db2777",
        marker="o",
        label="evaluation loss",
    )
    for line in log:
        if line["kind"] == "trouble":
            axes.axvline(line["step"], color="#d97706", linestyle=":", label=f"{line['trouble']} at {line['step']}")
    axes.set(xlabel="step", ylabel="nats a token", title=title)
    axes.grid(alpha=0.3)
    rate = axes.twinx()
    rate.plot([line["step"] for line in train], [line["learning_rate"] for line in train], color="#2563eb", lw=0.6)
    rate.set_ylabel("learning rate", color="#2563eb")
    axes.legend(loc="upper right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
