"""The summary of a run: one screen, from what was published."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
from rich.console import Console

from persona_dagster.artifacts import Metrics, MixManifest, Versions
from persona_dagster.commands.run_summary import tell_outcome
from persona_dagster.settings import Settings

SCREEN = 24  # lines of a small terminal
CORPUS = {"posts": 488, "dagster/row_count": 1959, "usable_rows": 1941, "duplicates": 1, "rows_by_source": {"ptt": 561}}


def told(settings: Settings, recipes: tuple[str, ...] = ("persona_v2",), links: dict[str, str] | None = None) -> str:
    out = io.StringIO()
    tell_outcome(Console(file=out, width=118), settings, recipes, CORPUS, links or {})
    return out.getvalue()


def publish(settings: Settings, verdict: str) -> None:
    with Versions(settings.mix_dir / "persona_v2", MixManifest.FILE).publishing("m1") as folder:
        MixManifest(
            digest="m1", train_rows=40, test_rows=38, learned={"assistant": 0.54, "mentor": 0.28, "mouthpiece": 0.18}
        ).write(folder)
    key = {"loss_base": 4.62, "loss_adapter": 4.32, "fidelity_base": 0.37, "fidelity_adapter": 0.56}
    with Versions(settings.reports_dir / "persona_v2", Metrics.FILE).publishing("r1") as folder:
        Metrics(digest="r1", verdict=verdict, reason="“Its answers are language” is too low.", key=key).write(folder)
        rows = [
            {"prompt_id": f"{voice}{n}", "suite": "test", "model": model, "asked": voice, "flaw": None,
             "question": f"問題 [{n}]\n第二行", "answer": f"{model} 說 [bold] " + "很長的回答" * 40}
            for voice in ("assistant", "mentor", "mouthpiece") for n in range(4) for model in ("base", "adapter")
        ]  # fmt: skip
        pl.DataFrame(rows).write_parquet(folder / "answers.parquet")


def test_a_finished_run_fits_a_screen_and_shows_three_answers_beside_the_base_s(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    publish(settings, "red")
    text = told(settings, links={"persona_v2": "http://127.0.0.1:3001/r.html"})
    lines = text.splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 160
    assert "488 posts" in text and "red for persona_v2: “Its answers are language” is too low." in text
    assert (
        "40 rows (assistant 54%, mentor 28%, mouthpiece 18%)" in text and "4.62 → 4.32" in text and "37% → 56%" in text
    )
    assert text.count("base 說 [bold]") == text.count("adapter 說 [bold]") == 3  # as written: no markup
    assert all(tag in text for tag in ("[NLP 技術助教]", "[感性感情導師]", "[極品感情嘴替]"))
    assert "r.html" in text and "chat" in text


def test_before_a_report_there_is_a_mix_or_nothing_and_both_say_what_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    text = told(settings)
    assert "Came in" in text and "Verdict" not in text and "persona build persona_v2" in text
    assert "persona funnel" in told(settings, ())  # as far as the posts
    with Versions(settings.mix_dir / "persona_v2", MixManifest.FILE).publishing("m1") as folder:
        MixManifest(digest="m1", train_rows=3, shortfall=["mentor: 2 of 24 rows; Dcard's mood has some"]).write(folder)
    assert "mentor: 2 of 24 rows" in told(settings) and "To learn" in told(settings)
