"""What the voice judge learns from: the clean train answers that all recipes share."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from persona_dagster.artifacts import write_text


def write_judge_rows(dialogues: pl.DataFrame, split: pl.DataFrame, path: Path) -> Path:
    """Train dialogues (DIALOGUE_SCHEMA, SPLIT_SCHEMA) as a JSONL of mix rows, untagged and in stable order.

    Taken from the split, before any recipe weighs or truncates, from the clean text: every recipe's report then
    meets the same judge, whatever text the recipe trained on.
    """
    train = dialogues.join(split.filter(pl.col("split") == "train").select("pair_id"), on="pair_id", how="semi")
    lines = [
        json.dumps({"row_id": pair_id, "persona": persona, "messages": messages}, ensure_ascii=False)
        for pair_id, persona, messages in train.sort("pair_id").select("pair_id", "persona", "messages").rows()
        if len(messages) >= 2 and messages[-1]["role"] == "assistant"
    ]
    return write_text(path, "".join(f"{line}\n" for line in lines))
