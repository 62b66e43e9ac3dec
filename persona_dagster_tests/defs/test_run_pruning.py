"""Old runs go, and nothing that the automation or a page of the UI asks for goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.run_pruning import newest_materialisations, prune, weekly_pruning
from persona_dagster.settings import Settings
from persona_dagster_tests.defs.test_automation import MIXES, World

LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def world(storage: Path) -> Iterator[World]:
    """A graph on SQLite storage after a scrape without news and one with, and a step that failed twice."""
    with dg.DagsterInstance.local_temp(str(storage), overrides={"telemetry": {"enabled": False}}) as instance:
        world = World(instance=instance)
        for asset, partition in (("raw", "a"), ("prompts", None), ("recipe", "v1")):
            world.make(asset, partition)
        world.settle()
        world.make("raw", "a")
        for name in ("raw", "cleaned", "posts", "dialogues"):
            world.content[name] = "news"
        world.dies["split"] = 2
        world.make("raw", "a")
        assert "!split" in world.settle()
        yield world


def versions(instance: dg.DagsterInstance) -> dict[tuple[str, str | None], tuple[int, object]]:
    return {
        (asset.to_user_string(), partition): (record.storage_id, record.asset_materialization)
        for (asset, partition), record in newest_materialisations(instance).items()
    }


def shards(storage: Path) -> set[str]:
    return {path.stem for path in storage.rglob("history/runs/*.db")}


def test_what_the_present_hangs_on_stays(world: World, storage: Path) -> None:
    instance = world.instance
    queued = instance.create_run_for_job(world.job)  # has not ended
    before, there = versions(instance), shards(storage)
    runs = {run.run_id: run for run in instance.get_runs()}
    failed = {run.run_id for run in runs.values() if run.status == dg.DagsterRunStatus.FAILURE}
    assert len(failed) == 2 and there >= set(runs) - {queued.run_id}
    assert prune(instance, datetime.now(UTC) - timedelta(days=1)) == []  # none is that old
    told = prune(instance, LATER, dry_run=True)
    assert len(instance.get_runs()) == len(runs)
    gone = set(prune(instance, LATER))
    assert gone == set(told) and len(gone) >= 5
    assert {run.run_id for run in instance.get_runs()} == set(runs) - gone
    assert not gone & failed  # since the last split: what holds its third try back
    assert queued.run_id not in gone
    assert shards(storage) == there - gone
    assert versions(instance) == before
    assert world.settle() == []
    assert prune(instance, LATER) == []


def test_news_flows_as_before(world: World) -> None:
    for name in ("raw", "cleaned", "posts", "dialogues", "split"):
        world.content[name] = "more news"
    world.make("raw", "a")
    assert world.settle() == ["cleaned/a", "posts", "dialogues", "split", MIXES[0]]


def test_the_job_prunes_and_is_off_in_live(world: World, tmp_path: Path) -> None:
    live, sample = (
        weekly_pruning(ProjectResource.open(Settings(home=tmp_path / profile, profile=profile)))  # type: ignore[arg-type]
        for profile in ("live", "sample")
    )
    assert live.default_status == dg.DefaultScheduleStatus.STOPPED
    assert sample.default_status == dg.DefaultScheduleStatus.RUNNING
    job = dg.Definitions(schedules=[sample]).resolve_job_def("prune_runs")
    counted = len(world.instance.get_runs())
    assert job.execute_in_process(instance=world.instance).success  # 90 days by default: nothing is so old
    assert len(world.instance.get_runs()) == counted + 1
    config = {"ops": {"prune": {"config": {"older_than_days": 0}}}}
    refused = job.execute_in_process(instance=world.instance, run_config=config, raise_on_error=False)
    assert not refused.success and len(world.instance.get_runs()) == counted + 2
