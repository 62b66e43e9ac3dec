"""The main job and Dagster's UI, on this home's own instance."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

import typer

from persona_dagster.commands.console import console
from persona_dagster.settings import WORKSPACE, Settings, own_project

app = typer.Typer()
LOOPBACK = ("127.0.0.1", "localhost")
DG = "from dagster_dg_cli.cli import main; main()"  # its script may lie elsewhere than this Python


def _run_on_instance(*command: str) -> None:
    """Becomes a program of Dagster's, on this home's own instance."""
    settings = Settings()
    home, instance = str(settings.home.resolve()), settings.prepare_instance().resolve()
    os.environ |= {"PERSONA_HOME": home, "DAGSTER_HOME": str(instance), "OMP_WAIT_POLICY": "PASSIVE"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every process compiles its sources again
    os.execv(sys.executable, [sys.executable, *command])


@app.command()
def demo(recipes: Annotated[list[str] | None, typer.Argument(help="default: PERSONA_RECIPE")] = None) -> None:
    """The main job: scrape, clean, mix, train, evaluate. Run it again, and only what changed is made again."""
    _run_on_instance("-m", "persona_dagster.defs.demo", *(recipes or []))


def serve_reports(settings: Settings) -> subprocess.Popen[bytes] | None:
    """Serves reports/ where the links of the UI lead, as long as this process and what it becomes lives; None where a
    proxy does, or where another UI does already."""
    at = urlsplit(settings.reports_url)
    if at.hostname not in LOOPBACK or at.port is None:
        return None
    with socket.socket() as probe:
        if probe.connect_ex((at.hostname, at.port)) == 0:
            return None
    settings.reports_dir.mkdir(parents=True, exist_ok=True)
    server = ["-m", "http.server", str(at.port), "--bind", at.hostname, "--directory", str(settings.reports_dir)]
    return subprocess.Popen([sys.executable, *server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@app.command()
def ui(port: int = 3000, host: str = "127.0.0.1") -> None:
    """Dagster's UI and daemon on this home. There is no login: keep it on loopback."""
    console.print(f"Start at http://{host}:{port}/asset-groups: the whole flow. docs/operations.md says what to click.")
    serve_reports(Settings())
    where = ["--host", host, "--port", str(port)]
    if project := own_project():  # with what was added beside the packaged graph; its pyproject.toml names the module
        os.chdir(project)
    else:
        where += ["-w", str(WORKSPACE)]
    program = ["-c", DG] if find_spec("dagster_dg_cli") else ["-m", "dagster"]
    _run_on_instance(*program, "dev", *where)
