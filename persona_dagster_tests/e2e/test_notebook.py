"""The notebook for a free card, run as far as a machine without one goes: each cell as a shell or Python has it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest

from persona_dagster.settings import PROJECT_ROOT

NOTEBOOK = PROJECT_ROOT / "notebooks" / "starter.ipynb"


def cells(of_gpu: bool) -> list[str]:
    read = nbformat.read(NOTEBOOK, as_version=4)
    chosen = [cell for cell in read.cells if cell.cell_type == "code"]
    return [cell.source for cell in chosen if ("gpu" in cell.metadata.get("tags", [])) == of_gpu]


def test_what_it_installs_is_what_the_project_offers() -> None:
    (line,) = [source for source in cells(of_gpu=False) if source.startswith("%pip")]
    offered = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"persona_dagster\[([\w,]+)\]", line)
    assert set(extras.split(",")) <= set(offered["optional-dependencies"])


@pytest.mark.soak
def test_it_runs_up_to_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("PERSONA_HOME", str(tmp_path / "home")), ("PERSONA_PROFILE", "tiny")):
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    printed = []
    for source in cells(of_gpu=False):
        if source.startswith("!"):
            words = [sys.executable, "-m", "persona_dagster.cli", *shlex.split(source)[1:]]
            done = subprocess.run(words, capture_output=True, text=True, env=os.environ.copy(), check=False)
            assert done.returncode == 0, (source, done.stdout[-2000:], done.stderr[-2000:])
            printed.append(done.stdout)
        elif not source.startswith("%"):
            exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert "16" in printed[0], "eight posts and eight replies were taken in"
    assert "steps" in printed[-1]
    assert all(source.startswith("!persona ") for source in cells(of_gpu=True))
