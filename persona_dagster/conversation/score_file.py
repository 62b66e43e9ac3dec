"""Pairs of question and answer from any JSON lines, scored for every persona, outside the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from persona_dagster import artifacts
from persona_dagster.conversation.safety import unsafe_kinds
from persona_dagster.conversation.voice_classifier import Voices

NEAREST = 3  # rows that are named where a persona got none


class PairsError(ValueError):
    """A file that holds no pairs; the message names file, line and cure."""


def score_file(source: Path, target: Path, voices: Voices, unsafe: Mapping[str, tuple[str, ...]]) -> str:
    """Writes `{id, scores: {persona: probability}, chosen: persona or null, reason}` a row, in the order of `source`.

    A pair that the first stage ruled out has probability 0. Returns a summary: how many each persona got, and the
    nearest rows of one that got none.
    """
    pairs = read_pairs(source)
    scores = voices.scores(pairs["question"].to_list(), pairs["answer"].to_list())
    flags = pairs.select(kinds=unsafe_kinds("question", "answer", dict(unsafe)))["kinds"].to_list()
    counts: Counter[str] = Counter()
    with artifacts.writing(target) as fresh, fresh.open("wb") as file:
        for row_id, kinds, found in zip(pairs["id"], flags, scores.iter_rows(named=True), strict=True):
            row = {"id": row_id, "scores": {name: round(value or 0.0, 4) for name, value in found.items()}}
            chosen, reason = judge(found, kinds, voices)
            counts[chosen or "none"] += 1
            file.write(orjson.dumps(row | {"chosen": chosen, "reason": reason}, option=orjson.OPT_APPEND_NEWLINE))
    lines = [f"{name}: {counts[name]} of {pairs.height}" for name in (*scores.columns, "none")]
    for name in scores.columns:
        if not counts[name]:
            near = scores.with_columns(pairs["id"]).sort(name, descending=True, nulls_last=True)["id"].head(NEAREST)
            lines.append(f"{name}: not in this data; nearest: {', '.join(map(str, near))}")
    return "\n".join(lines)


def judge(scores: Mapping[str, float | None], unsafe: list[str], voices: Voices) -> tuple[str | None, str]:
    """The persona whose threshold is passed by the widest margin, if the pair is safe; and why."""
    known = {name: value for name, value in scores.items() if value is not None}
    if not known:
        return None, "ruled out by the first stage"
    best = max(known, key=lambda name: known[name] - voices.threshold(name))
    told = f"{best} {known[best]:.2f}, threshold {voices.threshold(best):.2f}"
    if known[best] < voices.threshold(best):
        return None, told
    return (None, f"{told}; unsafe: {', '.join(unsafe)}") if unsafe else (best, told)


def read_pairs(path: Path) -> pl.DataFrame:
    """id, question, answer of every line. Raises PairsError."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            found = {name: row[name] for name in ("id", "question", "answer")}
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise PairsError(f"{path}:{number}: {error}; one {{id, question, answer}} a line is expected") from error
        if not all(isinstance(found[name], str | None) for name in ("question", "answer")):
            raise PairsError(f"{path}:{number}: question and answer must be text")
        rows.append({name: "" if value is None else value for name, value in found.items()})
    if not rows:
        raise PairsError(f"{path}: no rows; one {{id, question, answer}} a line is expected")
    return pl.DataFrame(
        {"question": [row["question"] for row in rows], "answer": [row["answer"] for row in rows]}
    ).with_columns(pl.Series("id", [row["id"] for row in rows], strict=False))
