"""A `dagster dev` of a test's own: its home, its processes, and what an operator does with it over GraphQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil

from persona_dagster.settings import INSTANCE, PROJECT_ROOT, Settings

PATIENCE = 180  # seconds, of a loaded machine; alone a click takes effect within 10 s
LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }"""
WHERE = {"repositoryName": "__repository__", "repositoryLocationName": "persona_dagster"}


def wait(what: str, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"{what}: not after {seconds} s"
        time.sleep(0.5)


def partition_of(run: dg.DagsterRun) -> str | None:
    """A backfill's run over one partition carries it as a range of one."""
    return run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")


@dataclass
class Dev:
    """Webserver, daemon and code server of one home, as `make ui` starts them."""

    settings: Settings
    extra: dict[str, str] = field(default_factory=dict)  # of the environment
    process: subprocess.Popen[bytes] | None = None
    url: str = ""
    # One client: each httpx.get() reads all certificates of the machine, 0.3 CPU-s that the servers need to start.
    client: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, trust_env=False, timeout=60))

    @property
    def dagster_home(self) -> Path:
        return self.settings.home / "dagster"

    def prepare(self, changes: Callable[[str], str] = lambda text: text) -> None:
        """The instance's dagster.yaml, as `persona ui` copies it."""
        self.dagster_home.mkdir(parents=True, exist_ok=True)
        text = INSTANCE.read_text(encoding="utf-8")
        (self.dagster_home / "dagster.yaml").write_text(changes(text), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        settings = self.settings
        env = {**os.environ, "PERSONA_HOME": str(settings.home), "DAGSTER_HOME": str(self.dagster_home)}
        env |= {"PERSONA_PROFILE": settings.profile, "PERSONA_HARDWARE": str(settings.hardware)}
        env |= {"PYTHONPATH": str(PROJECT_ROOT), **self.extra}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every process compiles its sources again
        return env

    def start(self) -> float:
        """Starts it, and returns the seconds until the UI answered."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "dagster", "dev", "-w", str(PROJECT_ROOT / "workspace.yaml")]
        started = time.monotonic()
        with (self.settings.home / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=self.settings.home,
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait("the UI answers", self.answers)
        return time.monotonic() - started

    def answers(self) -> bool:
        try:
            return self.client.get(f"{self.url}/server_info", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self, grace_s: float = 30) -> None:
        """Ctrl-C, as an operator ends it."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def processes(self) -> list[psutil.Process]:
        """Every process that works on this home, whoever its parent is by now."""
        mine, found = f"PERSONA_HOME={self.settings.home}\0".encode(), []
        for process in psutil.process_iter():
            try:
                of_home = mine in Path(f"/proc/{process.pid}/environ").read_bytes()
                if of_home and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self.client.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
        return answer.json()["data"]

    def launch(self, asset: str, partition: str | None = None, job: str = "__ASSET_JOB") -> str:
        """A click on Materialize, or on a job's; returns the run's id."""
        where = {**WHERE, "pipelineName": job, "assetSelection": [{"path": [asset]}]}
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {"mode": "default", "selector": where, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["id"]

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.dagster_home))

    def runs(self, asset: str) -> list[dict[str, Any]]:
        """Runs of one asset, newest first."""
        with self.instance() as instance:
            return [
                {"id": run.run_id, "status": run.status.value, "partition": partition_of(run)}
                for run in instance.get_runs()
                if dg.AssetKey(asset) in (run.asset_selection or ())
            ]
