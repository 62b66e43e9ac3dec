"""A month of the sample's life: what ran each day is what a person would have chosen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from persona_dagster.config.loading import find, read_yaml
from persona_dagster.defs import corpus, raw
from persona_dagster.defs.jobs import JOBS
from persona_dagster.lineage.forget import forget
from persona_dagster.records import FORUMS
from persona_dagster.sample.clock import FIRST_DAY, Clock
from persona_dagster.sample.content_loader import Content, PttItem, load, tiny
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import serve
from persona_dagster.settings import Settings
from persona_dagster_tests.config.editing import boards, edit
from persona_dagster_tests.e2e.month import Month, below, start

pytestmark = [pytest.mark.browser, pytest.mark.train]
V2 = "persona_v2"
TRAINED = [f"lora_adapter/{V2}", f"generations/{V2}", f"eval_report/{V2}", "iteration_report"]
NEWS = [
    "ptt_posts/Hate",
    "posts",
    "reply_graph",
    "dialogues",
    "split",
    *(f"mix/{name}" for name in ("capybara_qlora", "persona_v1", V2, "starter")),
]
RETRAIN = {"window_days": 3, "min_changed_share": 0.01}
# The pushes of the days to come are of 20 characters, and each is to change the mix.
ALL_LENGTHS = {
    "max_train_rows": 64,
    "max_test_rows": 6,
    "question_chars": None,
    "answer_chars": None,
    "accept_shortfall": "a month of a small board",
}


def few_boards(folder: Path) -> None:
    """Three boards that hold enough for three personas, and one that no site has."""
    boards(folder, ptt=["Hate", "Nowhere"], dcard=["mood"], threads=["失戀"])


def edit_recipe(folder: Path, **changes: object) -> None:
    recipe = read_yaml(find(f"recipes/{V2}.yaml", folder))
    recipe["profiles"]["tiny"] |= changes
    (folder / "recipes").mkdir(exist_ok=True)
    path = folder / "recipes" / f"{V2}.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")


def content() -> Content:
    """Day 20 shows the tiny sample; two more threads of Hate come on day 21, and two on day 24. Of the first two one is
    edited on day 25, and the other taken down on day 26."""
    small, everything = tiny(), load()
    hate = [_still(item, item.day) for item in small.ptt["Hate"] if item.day <= FIRST_DAY]
    known = {item.id for item in hate}
    more = [item for item in everything.ptt["Hate"] if item.id not in known and item.re is None and item.pushes][:4]
    news = [_still(item, FIRST_DAY + day) for item, day in zip(more, (1, 1, 4, 4), strict=True)]
    edit = {
        "edited_day": FIRST_DAY + 5,
        "edited_body": f"{news[0].body}\n後來又發生一次，這次我真的忍不住了。",
    }
    news[:2] = news[0].model_copy(update=edit), news[1].model_copy(update={"deleted_day": FIRST_DAY + 6})
    return Content(
        ptt={"Hate": [*hate, *news]}, dcard={"mood": small.dcard["mood"]}, threads={"失戀": small.threads["失戀"]}
    )


def _still(item: PttItem, day: int) -> PttItem:
    """The item with all its pushes on one day, never edited and never deleted."""
    pushes = tuple(push.model_copy(update={"day": day}) for push in item.pushes)
    return item.model_copy(update={"day": day, "pushes": pushes, "edited_day": None, "deleted_day": None})


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    home = tmp_path_factory.mktemp("home")
    few_boards(home / "config")
    edit_recipe(home / "config", retrain=RETRAIN, mix=ALL_LENGTHS)
    with (
        dg.DagsterInstance.ephemeral(str(home)) as instance,
        serve(content(), Clock(), Scenario()) as replica,
    ):
        month = start(Settings(home=home, profile="tiny", hardware="cpu"), replica, instance)
        yield month
    if path := os.environ.get("PERSONA_TABLE"):  # the table of the month, for docs/operations.md
        Path(path).write_text(month.markdown() + "\n", encoding="utf-8")


def twice(names: list[str]) -> list[str]:
    return sorted(name for name in set(names) if names.count(name) > 1)


def test_the_first_day_makes_everything_once_and_trains_nothing(month: Month) -> None:
    for name in ("notes_raw", "capybara_raw"):
        month.materialize(name)
    ran = month.day("the first scrape; no site has the board Nowhere")
    assert {name for name in ran if name.startswith("!")} == {"!ptt_raw/Nowhere"}  # it fails alone
    assert {*NEWS, "dcard_posts/mood", "threads_posts/失戀", "notes", "capybara_dialogues"} <= set(ran)
    assert not {"ptt_posts/Nowhere", *TRAINED} & set(ran)
    assert twice(ran) == []


def test_a_day_that_brings_nothing_runs_nothing_but_the_scrapes(month: Month) -> None:
    assert below(month.day("nothing")) == []


def test_what_a_person_ran_is_not_run_again(month: Month) -> None:
    config = month.project.settings.config_dir
    another_prompt(config)
    month.ran = []
    month.launch("rescrape_ptt", "Hate")
    month.launch("clean_dcard", "mood")
    month.launch("rebuild_corpus")
    for recipe in ("persona_v1", V2, "capybara_qlora", "starter"):
        month.launch("remix", recipe)
    assert not any(name.startswith("!") for name in month.ran), month.ran
    assert month.day("nothing: what new prompts change was run by hand", scrape=False) == []


def test_a_backfill_by_hand_is_not_run_again(month: Month) -> None:
    """As the UI starts it: a run a partition of one asset, then of the one behind it."""
    for asset in ("ptt_raw", "ptt_posts"):
        for board in month.project.sources.partitions("ptt"):
            if board not in ("Nowhere", "import"):
                month.materialize(asset, board)
    month.materialize("posts")
    assert month.day("nothing: a backfill by hand", scrape=False) == []


@pytest.mark.soak
def test_evaluation_follows_the_first_training_and_a_failure_is_tried_once_more(month: Month) -> None:
    month.engine.failures["generate"] = 1
    ran = month.day("a click on the first training; generating dies once", scrape=False, click=("lora_adapter", V2))
    assert ran == [TRAINED[0], f"!generations/{V2}", *TRAINED[1:]]


@pytest.mark.soak
def test_no_named_job_is_followed_by_a_run_of_what_it_ran(month: Month) -> None:
    """Every job of the timeline, launched by a person, and what the daemon starts after it."""
    month.table.append(("every named job, launched by a person", []))
    boards = {"ptt": "Hate", "dcard": "mood", "threads": "失戀"}
    for job, (_, assets) in JOBS.items():
        if job == "import_files":  # wants paths: test_imported_files.py
            continue
        by_recipe = job in ("remix", "retrain", "evaluate", "release")
        month.ran = []
        month.launch(job, V2 if by_recipe else boards.get(job.rpartition("_")[2]))
        assert len(month.ran) == len(assets) and not any(name.startswith("!") for name in month.ran), (job, month.ran)
        month.ran = []
        assert month.settle() == [], job


def test_news_reaches_the_mixes_once_and_the_window_holds_the_training_back(month: Month) -> None:
    assert below(month.day("two threads on a board", site_days=1)) == NEWS
    if (month.project.settings.adapters_dir / V2).is_dir():  # trained two days ago
        assert "the window opens" in month.reasons


@pytest.mark.soak
def test_an_outage_fails_alone_and_the_window_opens_meanwhile(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    assert month.project.replica
    monkeypatch.setattr(raw, "RETRY_SECONDS", 0)
    month.project.replica.scenario = Scenario([Rule("503", match="^(dcard|threads)", times=None)])
    ran = month.day("an outage of Dcard and Threads (503)")
    month.project.replica.scenario = Scenario()
    assert {"!dcard_raw/mood", "!threads_raw/失戀", "ptt_raw/Hate"} <= set(ran)
    assert below(ran) == []
    ran = month.day("the sites are back; the window of the recipe has passed")
    assert below(ran) == TRAINED, month.reasons  # on the news of two days ago


@pytest.mark.soak
def test_a_block_leaves_the_other_sites_alone(month: Month) -> None:
    assert month.project.replica
    month.project.replica.scenario = Scenario([Rule("challenge", match="^ptt", times=None)])
    ran = month.day("PTT blocks us (a challenge page)")
    month.project.replica.scenario = Scenario()
    assert "!ptt_raw/Hate" in ran and {"dcard_raw/mood", "threads_raw/失戀"} <= set(ran)
    assert below(ran) == []


@pytest.mark.soak
def test_a_recipe_edit_trains_that_recipe_once(month: Month) -> None:
    edit_recipe(month.project.settings.config_dir, retrain=RETRAIN, lora={"last_layers": None, "r": 2, "alpha": 4})
    ran = month.day("an edit of one recipe", scrape=False)
    assert ran == [f"recipe_config/{V2}", f"mix/{V2}", *TRAINED], month.reasons


@pytest.mark.soak
def test_other_gates_evaluate_again_and_train_nothing(month: Month) -> None:
    small = {"max_rows": 3, "max_probes": 2, "max_new_tokens": 8}
    edit_recipe(
        month.project.settings.config_dir,
        retrain=RETRAIN,
        lora={"last_layers": None, "r": 2, "alpha": 4},
        evaluation=small,
    )
    ran = month.day("an edit of how that recipe is judged", scrape=False)
    assert ran == [f"evaluation_config/{V2}", *TRAINED[1:]]


@pytest.mark.soak
def test_a_training_that_fails_is_tried_once_more_and_an_edit_can_be_taken_back(month: Month) -> None:
    config = month.project.settings.config_dir
    edit_recipe(config, retrain=RETRAIN, lora={"last_layers": None, "r": 8, "alpha": 8})
    month.engine.failures["train"] = 5
    ran = month.day("an edit whose training dies", scrape=False)
    assert ran.count(f"!lora_adapter/{V2}") == 2 and TRAINED[0] not in ran, month.reasons
    assert month.day("nothing; the training waits for a person", scrape=False) == []
    month.engine.failures.clear()
    edit_recipe(config, retrain=RETRAIN, lora={"last_layers": None, "r": 2, "alpha": 4})
    ran = month.day("the edit is taken back", scrape=False)
    assert f"recipe_config/{V2}" in ran and TRAINED[0] not in ran


@pytest.mark.soak
def test_a_red_blocking_check_holds_what_is_behind_it(month: Month) -> None:
    config = month.project.settings.config_dir
    report(month, passed=False)
    another_prompt(config)
    edit_recipe(config, retrain=RETRAIN, lora={"last_layers": None, "r": 6, "alpha": 6})
    ran = month.day("new prompts and another recipe, while a blocking check of the corpus is red", scrape=False)
    assert set(ran) == {"personas_config", f"recipe_config/{V2}", f"evaluation_config/{V2}", *TRAINED[1:]} & set(ran)
    assert TRAINED[0] not in ran
    report(month, passed=True)
    ran = month.day("the check is green again", scrape=False)
    assert ran[0] == "dialogues" and ran.count(TRAINED[0]) == 1 and twice(ran) == [], month.reasons


@pytest.mark.soak
def test_new_rules_clean_again_without_the_network(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    assert month.project.replica
    asked = len(month.project.replica.asked)
    monkeypatch.setattr(corpus, "cleaning_version", lambda *_: "another version of the rules")
    month.reload()
    ran = month.day("new cleaning rules that change no row", scrape=False)
    assert set(ran) == {"ptt_posts/Hate", "dcard_posts/mood", "threads_posts/失戀", "chat_posts", "notes"}
    assert len(month.project.replica.asked) == asked


@pytest.mark.soak
def test_a_forgotten_post_is_trained_away_at_once(month: Month) -> None:
    settings = month.project.settings
    mix = settings.mix_dir / V2
    rows = pl.read_parquet(mix / (mix / "latest").read_text(encoding="utf-8").strip() / "provenance.parquet")
    seen = rows.filter((pl.col("split") == "train") & pl.col("source").is_in(FORUMS))["doc_ids"].explode()
    report_of = forget(str(seen[0]), settings)
    assert report_of.adapters and not report_of.left
    ran = month.day("a post that the adapter saw is forgotten")
    assert ran.count(TRAINED[0]) == 1, month.reasons
    assert below(month.day("nothing")) == []


@pytest.mark.soak
def test_edits_and_deletions_are_followed_and_the_rest_of_the_month_is_quiet(month: Month) -> None:
    others = {"dcard_posts/mood", "threads_posts/失戀"}
    ran = below(month.day("two more threads; on the other sites new posts, an edit, a 404", site_days=3))
    assert set(ran) == {*NEWS, *others} and twice(ran) == []
    ran = below(month.day("a post was edited; the window of the recipe has passed", site_days=1))
    assert {*NEWS[:3], *TRAINED} <= set(ran) and twice(ran) == [], month.reasons
    # The replica has no cache time, so the second look at a 404 comes in the same pass; in live a day lies between.
    ran = below(month.day("a post was taken down, and goes from corpus and mixes", site_days=1))
    assert set(ran) == set(NEWS) and twice(ran) == []
    assert below(month.day("nothing")) == []
    assert below(month.day("the window of the recipe has passed")) == TRAINED, month.reasons
    while len(month.table) < 30:
        assert below(month.day("nothing")) == []


@pytest.mark.soak
def test_materialize_all_is_not_run_again(month: Month) -> None:
    """Every asset and every partition that can be made, in the graph's order, as `Materialize all` backfills them."""
    graph = month.defs.resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        name, partitions = key.to_user_string(), graph.get(key).partitions_def
        if name == "hub_release":
            continue
        for partition in partitions.get_partition_keys() if partitions else (None,):
            if partition != "Nowhere":
                month.materialize(name, partition)
    assert month.day("nothing: everything was materialised by hand", scrape=False) == []


def report(month: Month, *, passed: bool) -> None:
    """What a run of the check on `posts` would have said."""
    month.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("posts"), check_name="no_personal_data", passed=passed, metadata={}, blocking=True
        )
    )


def another_prompt(config: Path) -> None:
    prompt = read_yaml(find("personas/mentor.yaml", config))["system_prompt"]
    edit(config, "personas/mentor.yaml", {"system_prompt": f"{prompt}說話慢一點。"})
