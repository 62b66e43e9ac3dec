"""The whole graph on the tiny profile: everything real, the model too small to learn anything."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from persona_dagster.defs.demo import run
from persona_dagster.defs.materialize_in_process import Walk
from persona_dagster.sample.clock import Clock
from persona_dagster.settings import Settings
from persona_dagster_tests.config.editing import boards

pytestmark = [pytest.mark.browser, pytest.mark.train]
TRAINED = ("lora_adapter · persona_v2", "generations · persona_v2", "eval_report · persona_v2")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("home"), profile="tiny", hardware="cpu")
    if os.environ.get("PERSONA_SOAK") != "1":  # a board a site: the others take the same way; test_wheel.py has all
        boards(settings.config_dir, ptt=["Hate"], dcard=["mood"], threads=["失戀"])
    return settings


@pytest.fixture(scope="module")
def instance(settings: Settings) -> dg.DagsterInstance:
    folder = settings.home / "dagster"
    folder.mkdir()
    return dg.DagsterInstance.local_temp(str(folder))


@pytest.fixture(scope="module")
def first(settings: Settings, instance: dg.DagsterInstance) -> Walk:
    return run(settings, ("persona_v2",), instance)


def test_everything_is_made(first: Walk, settings: Settings) -> None:
    assert set(TRAINED) <= set(first.changed)
    report = Path(str(first.numbers("eval_report", "persona_v2")["report"]))
    assert report.is_file() and report.stat().st_size > 10_000


def test_every_row_says_where_it_came_from(first: Walk, settings: Settings) -> None:
    folder = settings.mix_dir / "persona_v2"
    mix = folder / (folder / "latest").read_text(encoding="utf-8").strip()
    provenance = pl.read_parquet(mix / "provenance.parquet")
    posts = pl.read_parquet(settings.tables_dir / "posts" / "all.parquet")
    notes = pl.read_parquet(settings.tables_dir / "notes" / "all.parquet")
    known = {f"{s}:{b}:{p}" for s, b, p in pl.concat([posts, notes]).select("source", "board", "post_id").iter_rows()}
    forum = provenance.filter(pl.col("source") != "capybara")
    assert forum.height > 0
    assert set(forum["doc_ids"].explode()) <= known


def test_no_forum_text_in_dagsters_log(first: Walk, settings: Settings) -> None:
    posts = pl.read_parquet(settings.tables_dir / "posts" / "all.parquet")
    texts = [text for text in posts["text"] if text and len(text) >= 20][:50]
    stored = b"".join(path.read_bytes() for path in (settings.home / "dagster").rglob("*") if path.is_file())
    for text in texts:
        assert text[:20].encode() not in stored
        assert text[:20].encode("unicode_escape") not in stored


def test_nothing_new_means_nothing_done(first: Walk, settings: Settings, instance: dg.DagsterInstance) -> None:
    again = run(settings, ("persona_v2",), instance)
    assert again.changed == []
    assert not set(TRAINED) & set(again.ran)


def test_new_days_flow_through_to_the_mix(first: Walk, settings: Settings, instance: dg.DagsterInstance) -> None:
    Clock(settings.replica_dir).advance(9)
    later = run(settings, ("persona_v2",), instance)
    assert any(name == "ptt_raw · Hate" or name.startswith("dcard_raw") for name in later.changed)
    assert "posts" in later.changed
