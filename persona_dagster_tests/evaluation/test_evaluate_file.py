"""`persona evaluate --generations FILE`: any answers through the gates, without Dagster and without a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from persona_dagster.artifacts import Versions
from persona_dagster.cli import app
from persona_dagster.evaluation import evaluate as program
from persona_dagster.evaluation.measure import Material
from persona_dagster_tests.evaluation.conftest import Hashed
from persona_dagster_tests.evaluation.material import write_mix
from persona_dagster_tests.evaluation.test_gates import good


@pytest.fixture
def home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: Hashed, make_material: Callable[..., Material]
) -> Path:
    """A home with a mix and the recipe's own generations; the tiny profile, in which no reader is loaded."""
    monkeypatch.setenv("PERSONA_HOME", str(tmp_path))
    monkeypatch.setenv("PERSONA_PROFILE", "tiny")
    monkeypatch.setenv("PERSONA_HARDWARE", "cpu")
    monkeypatch.setattr(program, "load_encoder", lambda *_: hashed.encoder)
    monkeypatch.setattr(program, "Scorer", lambda _: hashed)
    mixes = Versions(tmp_path / "mix" / "persona_v2", "manifest.json")
    write_mix(mixes.folder / "a")
    mixes.point("a")
    own = Versions(tmp_path / "generations" / "persona_v2", "generations.parquet")
    (own.folder / "b").mkdir(parents=True)
    make_material(good).generations.write_parquet(own.folder / "b" / "generations.parquet")
    own.point("b")
    return tmp_path


def test_a_file_of_answers_is_judged_beside_the_recipes_own_base(home: Path) -> None:
    stored = pl.read_parquet(home / "generations" / "persona_v2" / "b" / "generations.parquet")
    shuffled = stored.filter(pl.col("model") == "adapter").with_columns(
        answer=pl.lit("難子很抱來定慢一抱這熬好你段就日慢")
    )
    shuffled.write_parquet(home / "control.parquet")
    out = home / "out"
    ran = CliRunner().invoke(
        app, ["evaluate", "persona_v2", "--generations", str(home / "control.parquet"), "--out", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert "red:" in ran.output and "Its answers are language" in ran.output
    report = Versions(out, "metrics.json").newest()
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    gates = {gate["name"]: gate["verdict"] for gate in metrics["gates"]}
    assert gates["min_coherent"] == "red" and gates["min_loss_gain"] == "amber"
    assert metrics["intervals"]["coherent_base"]["n"] > 0, "the base's answers come from the recipe's own"
    assert (report / "report.html").is_file()


def test_a_file_that_is_no_generations_says_what_is_missing(home: Path) -> None:
    pl.DataFrame({"prompt_id": ["a"], "answer": ["b"]}).write_parquet(home / "wrong.parquet")
    ran = CliRunner().invoke(app, ["evaluate", "persona_v2", "--generations", str(home / "wrong.parquet")])
    assert ran.exit_code != 0 and "no column suite" in ran.output.replace("\n", " ")
