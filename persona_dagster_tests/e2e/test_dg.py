"""Dagster's own `dg` works on the checkout: it finds the project, loads its definitions and lists them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from persona_dagster.settings import PROJECT_ROOT
from persona_dagster_tests.config.editing import edit

DG = Path(sys.executable).with_name("dg")


def dg(home: Path, *arguments: str, fails: bool = False) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "DAGSTER_"))}
    env = kept | {"PERSONA_HOME": str(home), "DAGSTER_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
    command = [str(DG), *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr if fails else done.stdout


def test_dg_checks_and_lists_the_definitions_of_the_checkout(tmp_path: Path) -> None:
    assert "loaded successfully" in dg(tmp_path, "check", "defs")
    listed = orjson.loads(dg(tmp_path, "list", "defs", "--json"))
    assert {"ptt_raw", "posts", "mix", "lora_adapter", "eval_report"} <= {
        asset["asset_key"] for asset in listed["assets"]
    }
    assert listed["jobs"] and listed["schedules"] and listed["sensors"]


@pytest.mark.soak
def test_dg_check_names_file_line_and_cure_of_every_bad_file(tmp_path: Path) -> None:
    recipe = edit(tmp_path / "config", "recipes/persona_v2.yaml")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("epochs:", "epoch:", 1), encoding="utf-8")
    (tmp_path / "config" / "split.yaml").write_text("test_share: half\n", encoding="utf-8")
    told = re.sub(r"\s+", " ", dg(tmp_path, "check", "defs", fails=True))
    assert re.search(r"persona_v2\.yaml, line \d+: training\.epoch: Extra", told), told
    assert re.search(r"split\.yaml, line 1: test_share: \S", told), told
