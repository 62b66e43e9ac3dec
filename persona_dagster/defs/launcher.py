"""Runs as processes of this machine, and whether a run's process is still there.

Dagster's own launcher does not answer that: a run whose process, code server and all were killed (a power cut, the
out-of-memory killer) stays STARTED for good and holds its pool, the card's for one. With the answer,
run monitoring marks it failed. Named in defs/dagster.yaml; only for workers and daemon on one machine.
"""

import dagster as dg
import psutil
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

CLOCKS_DIFFER = 1.0  # seconds between the kernel's start time of a process and the event that it wrote


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, which can also tell that a run's process is gone."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        found = worker_of(self._instance, run.run_id)
        if found is None or _alive(*found):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {found[0]} is gone: killed, or a restart")


def worker_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """The process id that a run wrote into its log, and when; None before it did."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        data = entry.dagster_event.engine_event_data if entry.dagster_event else None
        if data and (pid := data.metadata.get("pid")):
            return int(str(pid.value)), entry.timestamp
    return None


def _alive(pid: int, at: float) -> bool:
    """Whether the process that had this id at that time runs; a later one that got the same id is another."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= at + CLOCKS_DIFFER
    except psutil.NoSuchProcess:
        return False
