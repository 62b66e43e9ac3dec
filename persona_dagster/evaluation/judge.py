"""What the voice judge learns from: the clean train answers that all recipes share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return temporary.replace(path)
