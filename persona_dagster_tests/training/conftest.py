"""A small mix in the voices of the personas, and jobs over it; all real, nothing of anyone else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.training.job_spec import TrainJob

ANSWERS = {
    "assistant": ("什麼是{0}？", "{0}是 NLP 裡的方法。重點：\n- 先整理資料\n- 再訓練模型"),
    "mentor": ("我最近{0}，好難過", "抱抱你，{0}一定很難受，慢慢來，我陪你。"),
    "mouthpiece": ("他{0}，超扯", "笑死，{0}還敢講？快封鎖，下一位！"),
}
THINGS = {
    "assistant": ("分詞", "注意力", "微調", "梯度", "向量", "語料"),
    "mentor": ("失戀", "分手", "單戀", "吵架", "不安", "失眠"),
    "mouthpiece": ("已讀不回", "甩鍋", "劈腿", "遲到", "借錢", "說他忙"),
}


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def mix_dir(tmp_path: Path) -> Path:
    """12 train rows and 6 validation rows; a manifest, as the dialogue room writes one."""
    folder = tmp_path / "mix"
    folder.mkdir()
    lines: dict[str, list[str]] = {"train": [], "validation": []}
    for persona, (question, answer) in ANSWERS.items():
        for number, thing in enumerate(THINGS[persona]):
            messages = [
                {"role": "user", "content": question.format(thing)},
                {"role": "assistant", "content": answer.format(thing)},
            ]
            row = {"row_id": f"{persona}{number}-0", "persona": persona, "messages": messages}
            lines["validation" if number > 3 else "train"].append(json.dumps(row, ensure_ascii=False))
    for split, rows in lines.items():
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"digest": "a mix by hand"}), encoding="utf-8")
    return folder


@pytest.fixture
def make_job(tmp_path: Path, mix_dir: Path, models_dir: Path) -> Callable[..., TrainJob]:
    """`make_job(epochs=2, …)`: a job of the tiny profile with these training settings."""

    def make(name: str = "persona_v2", home: str = "home", **training: Any) -> TrainJob:
        return TrainJob(
            recipe=with_training(load_recipe(name, tmp_path, "tiny", "cpu"), **training),
            mix_dir=mix_dir,
            out_dir=tmp_path / home / "adapters" / name,
            models_dir=models_dir,
            checkpoints_dir=tmp_path / home / "checkpoints" / name,
        )

    return make


def with_training(recipe: Recipe, **training: Any) -> Recipe:
    """Validated anew, as a file would be: `epochs=2` becomes 2.0, and so the digest is that of the file."""
    values = recipe.model_dump()
    return Recipe.model_validate({**values, "training": {**values["training"], **training}})
