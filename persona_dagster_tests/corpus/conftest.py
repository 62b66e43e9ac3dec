"""Frames of posts that we wrote: every residue the rules know, in the shapes the parsers hand over."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.intake.rows_to_posts import row_posts
from persona_dagster.intake.schema import Row
from persona_dagster.records import posts_frame

MakeFrame = Callable[..., pl.DataFrame]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return load_sources(tmp_path_factory.mktemp("config"), "tiny")


@pytest.fixture(scope="session")
def frame_of() -> MakeFrame:
    """Rows of one source and kind from texts, as they are read when somebody brings them."""

    def make(texts: list[str], source: str = "ptt", kind: str = "post", **columns: object) -> pl.DataFrame:
        row = {"source": source, "kind": kind, "board": "Boy-Girl"}
        posts = [row_posts(Row({**row, "id": f"p{number}", "text": text}), str)[0] for number, text in enumerate(texts)]
        return posts_frame(posts).with_columns(pl.lit(value).alias(name) for name, value in columns.items())

    return make


@pytest.fixture(scope="session")
def real_rows(shared_data: Path) -> list[dict]:
    with gzip.open(shared_data / "corpus" / "forum_posts.jsonl.gz") as lines:
        return [orjson.loads(line) for line in lines]
