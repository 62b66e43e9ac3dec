"""`persona init`: the folder that it writes is a home and a `dg` project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from persona_dagster.scaffold.project import ProjectError, write_project
from persona_dagster.settings import PROJECT_ROOT, Settings, own_project

DG = Path(sys.executable).with_name("dg")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "DAGSTER_"))}
    home = {"PERSONA_HOME": str(folder), "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.run(command, cwd=folder, env=kept | home, capture_output=True, text=True, timeout=300, check=True)


def test_the_folder_is_a_dg_project_of_the_whole_graph_and_its_own_test_passes(tmp_path: Path) -> None:
    folder = tmp_path / "my-bot"
    write_project(folder)
    Settings(home=folder).prepare_instance()
    assert folder.stat().st_mode & 0o077 == 0
    listed = orjson.loads(run(folder, str(DG), "list", "defs", "--json").stdout)
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert {"ptt_raw", "posts", "mix", "lora_adapter", "eval_report"} <= keys
    run(folder, sys.executable, "-m", "persona_dagster.cli", "new", "recipe", "my_bot")
    assert (folder / "config" / "recipes" / "my_bot.yaml").is_file()
    assert "1 passed" in run(folder, sys.executable, "-m", "pytest", "tests").stdout


def test_whoever_stands_in_it_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "bot")
    monkeypatch.delenv("PERSONA_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "bot" / "notes")
    assert own_project() == tmp_path / "bot"
    assert Settings().home == tmp_path / "bot"
    monkeypatch.chdir(tmp_path)
    assert own_project() is None


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ProjectError, match="holds something already"):
        write_project(tmp_path / "full")
    with pytest.raises(ProjectError, match="begins with a letter"):
        write_project(tmp_path / "1 bot")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
