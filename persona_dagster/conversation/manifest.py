"""What a mix says of itself, and where the newest one lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class MixManifest:
    """What a mix holds: manifest.json without its folder. `weights`: a row a persona."""

    digest: str
    recipe: str
    train_rows: int
    test_rows: int
    train_by_persona: dict[str, int]
    test_by_persona: dict[str, int]
    tagged: dict[str, int]  # rows by split
    by_source: dict[str, int]  # train rows
    by_builder: dict[str, int]  # train rows
    weights: list[dict[str, Any]]
    warnings: list[str]
    largest_jaccard: float  # between any train row and any test row, prompt and answer
    chars: dict[str, int]  # by split
    files: dict[str, dict[str, Any]]
    config: dict[str, Any]  # the recipe's mix and a digest of the personas
    folder: Path

    def weights_markdown(self) -> str:
        unit = self.config["mix"].get("unit", "rows")
        head = ["persona", "dialogues", "asked", "feasible", "reached", "copies", "effective epochs", ""]
        top = [f"Shares of {unit}.", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines = [
            f"| {w['persona']} | {w['dialogues']} | {w['asked']:.1%} | {w['feasible']:.1%} | {w['reached']:.1%} "
            f"| {w['rows'] / w['dialogues']:.2f} | {w['effective_epochs']:.1f} | {w['note']} |"
            for w in self.weights
        ]
        return "\n".join([*top, *lines])


def latest_mix(folder: Path) -> Path:
    """The newest mix under `folder`; FileNotFoundError where none was written."""
    return folder / (folder / "latest").read_text(encoding="utf-8").strip()


def point_latest(folder: Path, digest: str) -> None:
    """Makes the mix `digest` the newest under `folder`, whole or not at all."""
    pointer = folder / f".latest.{os.getpid()}"
    with pointer.open("w", encoding="utf-8") as file:
        file.write(f"{digest}\n")
        file.flush()
        os.fsync(file.fileno())
    pointer.replace(folder / "latest")


def read_manifest(mix: Path) -> MixManifest:
    """The manifest of the mix in the directory `mix`."""
    return MixManifest(**orjson.loads((mix / "manifest.json").read_bytes()), folder=mix)
