"""Blind pairs for a reader away from the page of `persona judge`, and the votes that come back.

`make OUT COUNT FOLDER…` writes a JSONL of pairs out of folders of generations: id, asked voice, question, left, right,
without a model's name; adapter beside few-shot base first, then beside its base, then those two. `votes READ JUDGE
RECIPE FOLDER…` turns a JSONL of {"id", "choice": "left" | "right" | "tie"} into lines of `preference.VOTE_SCHEMA`,
which hold no text.
"""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from persona_dagster.evaluation.model_comparison import SPOKEN
from persona_dagster.evaluation.preference import Pair, every_pair, vote_row


def pairs_of(folders: list[Path]) -> dict[str, tuple[str, Pair]]:
    """By id: digest of the generations, and the pair."""
    found: dict[str, tuple[str, Pair]] = {}
    for folder in folders:
        frame = pl.read_parquet(folder / "generations.parquet").filter(pl.col("suite").is_in(SPOKEN))
        found |= {key: (folder.name, pair) for key, pair in every_pair(frame).items()}
    return found


def make(out: Path, count: int, folders: list[Path]) -> None:
    pairs = [pair for _, pair in pairs_of(folders).values()]
    pairs.sort(key=lambda pair: {pair.left, pair.right} != {"adapter", "fewshot"})  # those of the gate first
    chosen = pairs[:count]
    random.Random(1).shuffle(chosen)
    lines = [
        {"id": one.pair_id, "asked": one.asked, "question": one.question, "left": one.left_answer,
         "right": one.right_answer}
        for one in chosen
    ]  # fmt: skip
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def votes(read: Path, judge: str, recipe: str, folders: list[Path]) -> list[str]:
    known = pairs_of(folders)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lines = []
    for line in read.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        generations, pair = known[value["id"]]
        row = vote_row(pair, value["choice"], recipe=recipe, generations=generations, judge=judge, at=at)
        lines.append(json.dumps(row, ensure_ascii=False))
    return lines


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "make":
        make(Path(rest[0]), int(rest[1]), [Path(one) for one in rest[2:]])
    else:
        print("\n".join(votes(Path(rest[0]), rest[1], rest[2], [Path(one) for one in rest[3:]])))
