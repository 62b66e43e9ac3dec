"""A mix in the forms of others, read back by what reads them where that is here (datasets)."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from persona_dagster.publishing.mix_exports import FORMATS, MixExportError, export_mix

MESSAGES = [
    {"role": "system", "content": "你是助教"},
    {"role": "user", "content": "什麼是梯度？"},
    {"role": "assistant", "content": "是斜率。"},
    {"role": "user", "content": "再說一次"},
    {"role": "assistant", "content": "是方向導數最大的方向。"},
]


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    folder = tmp_path / "persona_v2" / "abc123"
    folder.mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 1), ("test", 2)):
        rows = [{"row_id": f"{split}-{n}", "persona": "assistant", "messages": MESSAGES} for n in range(count)]
        (folder / f"{split}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


def test_every_form_keeps_rows_and_splits(mix: Path, tmp_path: Path) -> None:
    out = {form: export_mix(mix, tmp_path / "out", form) for form in FORMATS}
    assert [json.loads(line) for line in (out["openai"] / "train.jsonl").open()] == [{"messages": MESSAGES}] * 3
    (first, *_) = json.loads((out["sharegpt"] / "train.json").read_text(encoding="utf-8"))
    assert [turn["from"] for turn in first["conversations"]] == ["system", "human", "gpt", "human", "gpt"]
    assert json.loads((out["alpaca"] / "test.json").read_text(encoding="utf-8"))[0] == {
        "instruction": "再說一次",
        "input": "",
        "output": "是方向導數最大的方向。",
        "system": "你是助教",
        "history": [["什麼是梯度？", "是斜率。"]],
    }
    info = json.loads((out["llamafactory"] / "dataset_info.json").read_text(encoding="utf-8"))
    assert all((out["llamafactory"] / entry["file_name"]).is_file() for entry in info.values()) and len(info) == 3


# What LLaMA-Factory reads of the entry of a file (its src/llamafactory/data/parser.py and data/README.md).
ENTRY = {"file_name", "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"}
SHAREGPT_COLUMNS = {"messages", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag"}
TAGS = {f"{name}_tag" for name in ("role", "content", "user", "assistant", "observation", "function", "system")}


def test_llamafactory_finds_every_row_by_its_own_schema(mix: Path, tmp_path: Path) -> None:
    """As its converter goes: a system turn may come first, then user and assistant in turn, an even number of them."""
    from datasets import load_dataset

    folder = export_mix(mix, tmp_path / "out", "llamafactory")
    for name, entry in json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).items():
        assert set(entry) <= ENTRY and set(entry["columns"]) <= SHAREGPT_COLUMNS and set(entry["tags"]) == TAGS, name
        assert entry["formatting"] == "sharegpt"
        tags, column = entry["tags"], entry["columns"]["messages"]
        rows = load_dataset(
            "json", data_files=str(folder / entry["file_name"]), split="train", cache_dir=str(tmp_path / "cache")
        )
        for row in rows:
            turns = row[column]
            turns = turns[1:] if turns[0][tags["role_tag"]] == tags["system_tag"] else turns
            assert turns and len(turns) % 2 == 0 and all(turn[tags["content_tag"]] for turn in turns)
            wanted = [tags["user_tag"], tags["assistant_tag"]] * (len(turns) // 2)
            assert [turn[tags["role_tag"]] for turn in turns] == wanted


def test_datasets_loads_the_folder_as_it_is(mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(export_mix(mix, tmp_path / "out", "datasets")), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3, "validation": 1, "test": 2}
    assert loaded["train"][0]["messages"] == MESSAGES


@pytest.mark.parametrize("form", ["openai", "llamafactory", "sharegpt", "alpaca"])
def test_datasets_loads_every_other_form_as_json(mix: Path, tmp_path: Path, form: str) -> None:
    from datasets import load_dataset

    folder = export_mix(mix, tmp_path / "out", form)
    files = {path.stem: str(path) for path in folder.iterdir() if path.stem != "dataset_info"}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 3, "validation": 1, "test": 2}
    assert MESSAGES[-1]["content"] in str(loaded["test"][0])


def test_what_cannot_be_exported_is_named(mix: Path, tmp_path: Path) -> None:
    with pytest.raises(MixExportError, match="no format 'xml'"):
        export_mix(mix, tmp_path, "xml")
    with pytest.raises(MixExportError, match="holds no mix"):
        export_mix(tmp_path / "nothing", tmp_path, "openai")
