"""A mix in the forms that other programs take: OpenAI, ShareGPT, Alpaca, LLaMA-Factory, a `datasets` folder.

Rows keep their order and split; nothing is drawn, shuffled or cleaned again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from persona_dagster.artifacts import replacing

SPLITS = ("train", "validation", "test")
FORMATS = ("openai", "sharegpt", "alpaca", "llamafactory", "datasets")
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
Message = dict[str, str]


class MixExportError(ValueError):
    """A mix that is not there, or a row that a format has no place for; the message names both."""


def export_mix(mix: Path, folder: Path, form: str) -> Path:
    """The mix folder's rows under `folder/form`, put in place whole. Returns that folder."""
    if form not in FORMATS:
        raise MixExportError(f"no format {form!r}; known are {', '.join(FORMATS)}")
    splits = [split for split in SPLITS if (mix / f"{split}.jsonl").is_file()]
    if not splits:
        raise MixExportError(f"{mix}: holds no mix; persona build RECIPE --until mix makes one")
    with replacing(folder / form) as fresh:
        WRITERS[form](mix, fresh, splits)
    return folder / form


def rows_of(mix: Path, split: str) -> Iterator[dict[str, Any]]:
    with (mix / f"{split}.jsonl").open("rb") as file:
        for line in file:
            yield orjson.loads(line)


def _openai(mix: Path, folder: Path, splits: list[str]) -> None:
    """`{"messages": [...]}` a line: what OpenAI's fine-tuning takes, and everything that is compatible with it."""
    for split in splits:
        lines = (orjson.dumps({"messages": row["messages"]}) + b"\n" for row in rows_of(mix, split))
        with (folder / f"{split}.jsonl").open("wb") as file:
            file.writelines(lines)


def _sharegpt(mix: Path, folder: Path, splits: list[str]) -> None:
    """`{"conversations": [{"from": "human" | "gpt" | "system", "value"}]}`, a JSON array a split."""
    for split in splits:
        rows = [
            {
                "id": row["row_id"],
                "conversations": [{"from": SPEAKERS[one["role"]], "value": one["content"]} for one in row["messages"]],
            }
            for row in rows_of(mix, split)
        ]
        _json(folder / f"{split}.json", rows)


def _alpaca(mix: Path, folder: Path, splits: list[str]) -> None:
    """`instruction`, `input`, `output`, with `system` and `history` where a row has them."""
    for split in splits:
        _json(folder / f"{split}.json", [_alpaca_row(row) for row in rows_of(mix, split)])


def _alpaca_row(row: dict[str, Any]) -> dict[str, Any]:
    turns: list[Message] = [one for one in row["messages"] if one["role"] != "system"]
    if len(turns) % 2 or any(one["role"] != ("user", "assistant")[n % 2] for n, one in enumerate(turns)):
        raise MixExportError(f"row {row['row_id']}: Alpaca knows only a question and its answer in turn; use openai")
    system = "\n".join(one["content"] for one in row["messages"] if one["role"] == "system")
    pairs = [[turns[n]["content"], turns[n + 1]["content"]] for n in range(0, len(turns), 2)]
    made: dict[str, Any] = {"instruction": pairs[-1][0], "input": "", "output": pairs[-1][1]}
    return made | ({"system": system} if system else {}) | ({"history": pairs[:-1]} if pairs[:-1] else {})


def _llamafactory(mix: Path, folder: Path, splits: list[str]) -> None:
    """OpenAI's rows with the `dataset_info.json` that LLaMA-Factory's `dataset_dir` needs."""
    _openai(mix, folder, splits)
    # It takes an absent tag for none: all seven stand, though no row here calls a function.
    roles = {f"{name}_tag": name for name in ("role", "content", "user", "assistant", "system", "observation")}
    tags = roles | {"function_tag": "function_call"}
    info = {
        f"persona_{split}": {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": tags,
        }
        for split in splits
    }
    _json(folder / "dataset_info.json", info)


def _datasets(mix: Path, folder: Path, splits: list[str]) -> None:
    """Parquet a split with a card: `load_dataset("folder")`, or upload it as it is."""
    counts = {}
    for split in splits:
        frame = pl.DataFrame(list(rows_of(mix, split)))
        counts[split] = frame.height
        (folder / "data").mkdir(exist_ok=True)
        frame.write_parquet(folder / "data" / f"{split}.parquet")
    files = "\n".join(f"  - split: {split}\n    path: data/{split}.parquet" for split in splits)
    table = "\n".join(f"| {split} | {count:,} |" for split, count in counts.items())
    card = (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\nlanguage: [zh]\n"
        f"task_categories: [text-generation]\n---\n# Mix `{mix.parent.name}` ({mix.name})\n\n"
        f"Chat rows of persona_dagster: `row_id`, `persona`, `messages`.\n\n| split | rows |\n|---|--:|\n{table}\n\n"
        "The texts belong to their authors: look at the data card of the mix before you publish them.\n"
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Path, list[str]], None]] = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "llamafactory": _llamafactory,
    "datasets": _datasets,
}
