"""A run whose process was killed is noticed, and gives back what it held."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from persona_dagster.defs.launcher import LocalRunLauncher, worker_of
from persona_dagster.settings import INSTANCE

IN_A_PROCESS = """
import sys, time
import dagster as dg

@dg.asset(pool="duckdb")
def slow():
    print("at work", flush=True)
    time.sleep(60)

job = dg.Definitions(assets=[slow], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    job.execute_in_process(instance=instance)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    shutil.copy(INSTANCE, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_a_run_whose_process_was_killed_is_marked_failed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """The process is a real one that works on a real run, and gets SIGKILL in the middle."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", IN_A_PROCESS, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"at work\n"
    (record,) = instance.get_run_records()
    run = record.dagster_run
    assert run.status == dg.DagsterRunStatus.STARTED
    assert worker_of(instance, run.run_id)[0] == process.pid  # type: ignore[index]
    _monitor(instance, record)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
    process.kill()
    process.wait()
    _monitor(instance, record)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]


def test_another_process_with_the_same_id_is_not_the_worker(instance: dg.DagsterInstance) -> None:
    @dg.job
    def empty() -> None: ...

    launcher = instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    run = instance.create_run_for_job(empty, status=dg.DagsterRunStatus.STARTED)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING  # it has not said its id yet
    with subprocess.Popen(["sleep", "60"]) as process:
        time.sleep(0.1)
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(process.pid))
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        process.kill()
        process.wait()
        assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


def _monitor(instance: dg.DagsterInstance, record: dg.RunRecord) -> None:
    """What the daemon does with each run in progress, at every poll."""
    monitor_started_run(instance, None, record, logging.getLogger("test"))  # type: ignore[arg-type]
