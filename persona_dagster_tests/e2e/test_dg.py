"""Dagster's own `dg` works on the checkout: it finds the project, loads its definitions and lists them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson

from persona_dagster.settings import PROJECT_ROOT

DG = Path(sys.executable).with_name("dg")


def dg(home: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "DAGSTER_"))}
    env = kept | {"PERSONA_HOME": str(home), "DAGSTER_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
    command = [str(DG), *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dg_checks_and_lists_the_definitions_of_the_checkout(tmp_path: Path) -> None:
    assert "loaded successfully" in dg(tmp_path, "check", "defs")
    listed = orjson.loads(dg(tmp_path, "list", "defs", "--json"))
    assert {"ptt_raw", "posts", "mix", "lora_adapter", "eval_report"} <= {
        asset["asset_key"] for asset in listed["assets"]
    }
    assert listed["jobs"] and listed["schedules"] and listed["sensors"]
