"""A small mix written for these tests: three voices, twelve train and six test dialogues each, in zh-TW."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import yaml

from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.models.chat_format import with_persona
from persona_dagster.records import PROVENANCE_SCHEMA

VOICES: dict[str, list[tuple[str, str]]] = yaml.safe_load(
    (Path(__file__).parent / "voices.yaml").read_text(encoding="utf-8")
)
TRAIN = 12


def personas(folder: Path) -> Personas:
    return load_personas(folder)


def write_mix(folder: Path, repeat: int = 1) -> Path:
    """train.jsonl, test.jsonl and provenance.parquet of VOICES; every other row carries its tag."""
    folder.mkdir(parents=True, exist_ok=True)
    known = load_personas(folder).personas
    files: dict[str, list[str]] = {"train": [], "test": []}
    origins = []
    for persona, pairs in VOICES.items():
        for place, (question, answer) in enumerate(pairs):
            split = "train" if place < TRAIN else "test"
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            tagged = place % 2 == 0
            for copy in range(repeat if split == "train" else 1):
                row_id = f"{persona}{place:02d}-{copy}"
                row = {"row_id": row_id, "persona": persona, "messages": with_persona(turns, known[persona], tagged)}
                files[split].append(json.dumps(row, ensure_ascii=False))
                origins.append(
                    {
                        "row_id": row_id,
                        "pair_id": f"{persona}{place:02d}",
                        "repeat": copy,
                        "split": split,
                        "persona": persona,
                        "tagged": tagged,
                        "builder": "re_article",
                        "source": "ptt",
                        "board": "Test",
                        "doc_ids": [f"ptt:Test:{persona}{place}"],
                        "urls": [f"https://www.ptt.cc/bbs/Test/{persona}{place}.html"],
                    }
                )
    for split, lines in files.items():
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pl.DataFrame(origins, schema=PROVENANCE_SCHEMA).write_parquet(folder / "provenance.parquet")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    return folder
