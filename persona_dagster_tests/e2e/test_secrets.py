"""Planted secrets leave no trace in anything that a run writes, nor in what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from persona_dagster.settings import INSTANCE

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "THREADS_TOKEN": "THAAplantedthreads0001",
    "HF_TOKEN": "hf_plantedhuggingface0002",
    "PERSONA_AUTHOR_KEY": "plantedauthorkey0003",
    "PERSONA_WEBHOOK_URL": "http://127.0.0.1:9/planted/webhook0004",
    "PERSONA_SMTP_URL": "smtp://someone:plantedmail0005@127.0.0.1:9",
}
# One board that is scraped and cleaned, and one run that fails: failures print the most.
RUN = """
import dagster as dg
from persona_dagster.defs.assembly import build_defs
from persona_dagster.settings import Settings
job = build_defs(Settings()).resolve_implicit_global_asset_job_def()
with dg.DagsterInstance.get() as instance:
    for asset, partition, good in (
        ("ptt_raw", "Hate", True), ("ptt_posts", "Hate", True), ("lora_adapter", "persona_v2", False),
    ):
        result = job.execute_in_process(
            instance=instance, partition_key=partition, asset_selection=[dg.AssetKey(asset)], raise_on_error=False
        )
        assert result.success == good, asset
"""


def test_planted_secrets_stand_nowhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    shutil.copy(INSTANCE, home / "dagster")
    env = {**os.environ, **PLANTED, "PERSONA_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    env |= {"PERSONA_PROFILE": "tiny", "PERSONA_HARDWARE": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN], env=env, cwd=tmp_path, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) > 10  # archive, tables, event log
    for name, secret in PLANTED.items():
        assert secret.encode() not in run.stdout + run.stderr, name
        assert not [str(path) for path, data in written.items() if secret.encode() in data], name
