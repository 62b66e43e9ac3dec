"""The automation rule on a graph of the real one's shape, with real condition evaluation and real runs: a join that
may miss a partition, a diamond (dialogues → split, both → mix), mixes by recipe, a blocking check."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from persona_dagster.defs.automation import only_if_data_changed

BOARDS = dg.StaticPartitionsDefinition(["a", "never"])
RECIPES = dg.StaticPartitionsDefinition(["v1", "v2"])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
MIXES = ["mix/v1", "mix/v2"]


@dataclass
class World:
    """Contents that stand for digests, and the graph over them."""

    content: dict[str, str] = field(default_factory=dict)  # of an asset, by name
    dies: dict[str, int] = field(default_factory=dict)  # how often an asset still fails
    red: bool = False
    now: datetime = datetime(2026, 10, 1, tzinfo=UTC)
    cursor: object = None
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    def __post_init__(self) -> None:
        rule, join = only_if_data_changed(), only_if_data_changed(join=True)
        assets = [
            self.asset("raw", [], None, BOARDS),
            self.asset("cleaned", ["raw"], rule, BOARDS),
            self.asset("posts", ["cleaned"], join),
            self.asset("prompts", [], None),
            self.asset("dialogues", ["posts", "prompts"], rule),
            self.asset("split", ["dialogues"], rule),
            self.asset("recipe", [], None, RECIPES),
            self.asset("mix", ["dialogues", "split", "recipe", "prompts"], rule, RECIPES),
        ]

        @dg.asset_check(asset="posts", blocking=True)
        def clean() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=not self.red)

        self.defs = dg.Definitions(assets=assets, asset_checks=[clean], executor=dg.in_process_executor)
        self.job = self.defs.resolve_implicit_global_asset_job_def()
        self.evaluate()  # as the daemon does before anything is there

    def asset(self, name, deps, condition, partitions=None):  # type: ignore[no-untyped-def]
        @dg.asset(name=name, deps=deps, partitions_def=partitions, automation_condition=condition)
        def made() -> dg.MaterializeResult:
            if self.dies.get(name, 0):
                self.dies[name] -= 1
                raise RuntimeError(f"{name} died, as the test asked")
            return dg.MaterializeResult(data_version=dg.DataVersion(self.content.get(name, "first")))

        return made

    def make(self, name: str, partition: str | None = None) -> bool:
        key = dg.AssetKey(name)
        return self.job.execute_in_process(
            run_config=QUIET,
            instance=self.instance,
            partition_key=partition,
            asset_selection=[key],
            raise_on_error=False,
        ).success

    def evaluate(self) -> list[str]:
        """One tick, and the runs it asks for, upstream first."""
        self.now += timedelta(seconds=30)
        result = dg.evaluate_automation_conditions(
            self.defs,
            self.instance,
            evaluation_time=self.now,
            cursor=self.cursor,  # type: ignore[arg-type]
        )
        self.cursor = result.cursor
        ran = []
        for key in self.defs.resolve_asset_graph().toposorted_asset_keys:
            for partition in sorted(result.get_requested_partitions(key), key=str):
                name = key.to_user_string() + (f"/{partition}" if partition else "")
                ran.append(name if self.make(key.to_user_string(), partition) else f"!{name}")
        return ran

    def settle(self) -> list[str]:
        """Until two ticks in a row ask for nothing: one may hold something back for the next."""
        ran: list[str] = []
        while more := self.evaluate() or self.evaluate():
            ran += more
            assert len(ran) < 40, ran
        return ran


@pytest.fixture(scope="module")
def world() -> World:
    """After the first day: all but the board `never` is there."""
    world = World()
    world.make("raw", "a")
    world.make("prompts")
    for recipe in ("v1", "v2"):
        world.make("recipe", recipe)
    ran = world.settle()
    assert ran == ["cleaned/a", "posts", "dialogues", "split", *MIXES]
    return world


def test_a_scrape_that_brings_nothing_runs_nothing(world: World) -> None:
    world.make("raw", "a")
    assert world.settle() == []


def test_cleaning_that_changes_nothing_stops_there(world: World) -> None:
    world.content["raw"] = "with a longer signature"
    world.make("raw", "a")
    assert world.settle() == ["cleaned/a"]


def test_news_reaches_each_mix_once(world: World) -> None:
    for name in ("raw", "cleaned", "posts", "dialogues", "split"):
        world.content[name] = "news"
    world.make("raw", "a")
    assert world.settle() == ["cleaned/a", "posts", "dialogues", "split", *MIXES]


def test_an_edit_of_one_recipe_makes_one_mix(world: World) -> None:
    world.content["recipe"] = "edited"
    world.make("recipe", "v2")
    assert world.settle() == ["mix/v2"]


def test_a_failure_is_tried_once_more_and_then_waits_for_a_change(world: World) -> None:
    world.dies["split"] = 5
    world.content["prompts"] = world.content["dialogues"] = "other prompts"
    world.make("prompts")
    assert world.settle() == ["dialogues", "!split", "!split", *MIXES]  # of what there is: the split that stood before
    assert world.settle() == []
    world.dies.clear()
    world.content["dialogues"] = world.content["split"] = "mended"
    world.content["prompts"] = "mended"
    world.make("prompts")
    assert world.settle() == ["dialogues", "split", *MIXES]


def test_a_red_check_holds_what_is_behind_it_until_it_is_green(world: World) -> None:
    world.red = True
    world.content["cleaned"] = world.content["posts"] = "with a telephone number"
    world.content["raw"] = "more"
    world.make("raw", "a")
    assert world.settle() == ["cleaned/a", "!posts"]  # the run is red, what it made is stored
    world.content["prompts"] = "prompts beside a red corpus"
    world.make("prompts")
    assert world.settle() == []
