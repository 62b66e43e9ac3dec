"""What the voice judge learns from: answers that were written or labelled for a voice, never what a selector chose."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from persona_dagster.artifacts import write_text
from persona_dagster.digest import text_digest


def write_judge_rows(
    written: Iterable[tuple[str, str, str]], dialogues: pl.DataFrame, split: pl.DataFrame, path: Path
) -> Path | None:
    """`written` (voice, question, answer) as a JSONL of mix rows, in stable order; None where there is none.

    An answer, or a question, that a validation or test dialogue holds (DIALOGUE_SCHEMA, SPLIT_SCHEMA) is left out: on
    those the judge is examined, and used.
    """
    held = split.filter(pl.col("split") != "train").select("pair_id")
    kept_back = {
        _letters(turn["content"])
        for messages in dialogues.join(held, on="pair_id", how="semi")["messages"].to_list()
        for turn in messages
    }
    rows = {
        text_digest(voice, question, answer): (voice, question, answer)
        for voice, question, answer in written
        if answer.strip() and _letters(answer) not in kept_back and _letters(question) not in kept_back
    }
    if not rows:
        return None
    lines = [
        json.dumps(
            {
                "row_id": name,
                "persona": voice,
                "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            },
            ensure_ascii=False,
        )
        for name, (voice, question, answer) in sorted(rows.items())
    ]
    return write_text(path, "".join(f"{line}\n" for line in lines))


def _letters(text: str) -> str:
    """A text without what cleaning and parsing change: spaces and marks."""
    return "".join(char for char in text if char.isalnum())
