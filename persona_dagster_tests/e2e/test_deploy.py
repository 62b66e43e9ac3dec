"""The files under deploy/: what can be checked without a cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from persona_dagster.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
CHECKER = Path(sys.executable).with_name("check-jsonschema")  # brings the Compose specification's schema


def test_the_local_instance_loads_and_queues(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "local" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.global_op_concurrency_default_limit == 1  # one writer of the warehouse
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_retries_enabled and not instance.run_retries_retry_on_asset_or_op_failure


@pytest.mark.skipif(not CHECKER.is_file(), reason="check-jsonschema is not installed: scripts/make_cluster_env.sh")
def test_compose_holds_to_the_compose_specification(tmp_path: Path) -> None:
    good = DEPLOY / "compose" / "compose.yaml"
    bad = tmp_path / "compose.yaml"
    bad.write_text(good.read_text(encoding="utf-8").replace("command:", "comand:", 1), encoding="utf-8")
    assert _check(good) == 0
    assert _check(bad) != 0  # the checker does look


def test_compose_and_its_parts_agree() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    instance = yaml.safe_load((DEPLOY / "compose" / "dagster.yaml").read_text(encoding="utf-8"))
    (server,) = yaml.safe_load((DEPLOY / "compose" / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    code = compose["services"][server["grpc_server"]["host"]]
    assert f"-p {server['grpc_server']['port']}" in code["command"]
    postgres = instance["storage"]["postgres"]["postgres_db"]
    assert compose["services"]["postgres"]["environment"]["POSTGRES_DB"] == postgres["db_name"]
    assert compose["services"]["code"]["environment"]["DAGSTER_PG_HOST"] in compose["services"]
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080"]  # the proxy that asks for a password, and nothing else


def _check(path: Path) -> int:
    return subprocess.run(
        [str(CHECKER), "--builtin-schema", "vendor.compose-spec", str(path)], capture_output=True, check=False
    ).returncode
