"""`persona trace`, `forget` and `personas` as an operator types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from persona_dagster import cli
from persona_dagster.artifacts import MixManifest
from persona_dagster.config.loading import ConfigError
from persona_dagster.config.recipes import load_recipe
from persona_dagster.lineage import byte_search
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import ADAPTER, SECRET

Typed = Callable[..., Result]
URL = "https://www.dcard.tw/f/mood/p/7"


@pytest.fixture
def typed(home: tuple[Settings, MixManifest], monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setenv("PERSONA_HOME", str(home[0].home))

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.app, list(words))

    return run


def test_row_and_model_are_traced(home: tuple[Settings, MixManifest], typed: Typed) -> None:
    _, mix = home
    row = pl.read_parquet(mix.folder / "provenance.parquet").filter(split="train").row(0, named=True)
    by_row, by_model = typed("trace", row["row_id"]), typed("trace", ADAPTER)
    assert by_row.exit_code == by_model.exit_code == 0
    assert row["doc_ids"][0] in by_row.output and ADAPTER in by_row.output
    assert "| dcard | mood | mentor |" in by_model.output and mix.digest in by_model.output


def test_forgetting_asks_first_and_exits_with_what_is_left(
    home: tuple[Settings, MixManifest], typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _ = home
    monkeypatch.setenv("PERSONA_FORGET_LIMIT", "1")
    planned = typed("forget", URL, "--plan")
    assert planned.exit_code == 0 and "1 of its own, 2 of other people" in planned.output
    needles = byte_search.spellings(SECRET)
    assert typed("forget", URL).exit_code == 1 and byte_search.find(settings.home, needles)
    done = typed("forget", URL, "--yes")
    assert done.exit_code == 0 and "found nowhere" in done.output
    assert byte_search.find(settings.home, needles) == []
    (settings.home / "backups.json").write_text('["/nowhere/backup"]', encoding="utf-8")
    left = typed("forget", "dcard:mood:12", "--yes")
    assert left.exit_code == 1 and "/nowhere/backup" in left.output


def test_what_each_persona_would_get_is_printed(typed: Typed) -> None:
    told = typed("personas")
    assert told.exit_code == 0 and "mentor" in told.output and "enough" in told.output


def test_a_recipe_with_a_cap_below_one_names_file_and_key(tmp_path: Path) -> None:
    own = tmp_path / "recipes" / "persona_v2.yaml"
    own.parent.mkdir()
    own.write_text("title: x\nbase: {model: 'tiny:llama'}\nmix: {cap: 0.5}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"persona_v2\.yaml, line 3: mix\.cap: .*greater than or equal to 1"):
        load_recipe("persona_v2", tmp_path, "live", "cpu")
