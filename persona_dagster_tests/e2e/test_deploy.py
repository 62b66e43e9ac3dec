"""The files under deploy/: what can be checked without a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from persona_dagster.config.cluster import KubernetesSpec
from persona_dagster.settings import INSTANCE, PROJECT_ROOT
from persona_dagster.training.pods import pod_spec

DEPLOY = PROJECT_ROOT / "deploy"
# What the chart reads (helm/dagster/schema/schema/charts/dagster/values.py); any other key it passes over in silence.
CHART_KEYS = {
    "global", "dagster-user-deployments", "dagsterWebserver", "dagsterDaemon", "runLauncher", "computeLogManager",
    "concurrency", "ingress", "postgresql", "retention", "serviceAccount", "imagePullSecrets", "telemetry",
}  # fmt: skip
CHECKER = Path(sys.executable).with_name("check-jsonschema")  # brings the Compose specification's schema


def test_the_local_instance_loads_and_queues(tmp_path: Path) -> None:
    shutil.copy(INSTANCE, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.global_op_concurrency_default_limit == 1  # one training, one pass a site
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.run_retries_enabled and not instance.run_retries_retry_on_asset_or_op_failure


@pytest.mark.skipif(not CHECKER.is_file(), reason="check-jsonschema is not installed: scripts/make_cluster_env.sh")
def test_compose_holds_to_the_compose_specification(tmp_path: Path) -> None:
    for good in (DEPLOY / "compose").glob("compose*.yaml"):
        assert _check(good) == 0
    bad = tmp_path / "compose.yaml"
    bad.write_text(good.read_text(encoding="utf-8").replace("command:", "comand:", 1), encoding="utf-8")
    assert _check(bad) != 0  # the checker does look


def test_compose_and_its_parts_agree() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.gpu.yaml").read_text(encoding="utf-8"))
    instance = yaml.safe_load((DEPLOY / "compose" / "dagster.yaml").read_text(encoding="utf-8"))
    (server,) = yaml.safe_load((DEPLOY / "compose" / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    code = compose["services"][server["grpc_server"]["host"]]
    assert f"-p {server['grpc_server']['port']}" in code["command"]
    postgres = instance["storage"]["postgres"]["postgres_db"]
    assert compose["services"]["postgres"]["environment"]["POSTGRES_DB"] == postgres["db_name"]
    assert compose["services"]["code"]["environment"]["DAGSTER_PG_HOST"] in compose["services"]
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080"]  # the proxy that asks for a password, and nothing else


def test_a_laptop_needs_no_card_no_secret_and_no_file_that_is_not_here() -> None:
    (service,) = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert service["build"]["args"] == {"TORCH": "cpu"} and service["ports"] == ["127.0.0.1:3000:3000"]
    assert not {"secrets", "env_file", "deploy"} & set(service)


def test_the_image_finds_what_it_copies() -> None:
    """Every source of a COPY is in the checkout and let through by .dockerignore, which refuses all else."""
    ignored = (PROJECT_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    lines = (DEPLOY / "compose" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
        if not word.startswith("--")
    ]
    assert copied
    for source in copied:
        assert (PROJECT_ROOT / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in let_through), source
    assert "USER persona" in lines and sum(line.startswith("FROM") for line in lines) == 2


@pytest.mark.skipif(
    "PERSONA_HELM_SCHEMA" not in os.environ or not CHECKER.is_file(),
    reason="no package carries the chart's values.schema.json: `helm pull dagster/dagster --untar`, name the file in "
    "PERSONA_HELM_SCHEMA, and run this in the environment of scripts/make_cluster_env.sh",
)
def test_kubernetes_values_hold_to_the_charts_schema() -> None:
    assert _check(DEPLOY / "k8s" / "values.yaml", "--schemafile", os.environ["PERSONA_HELM_SCHEMA"]) == 0


def test_kubernetes_takes_what_the_values_give_the_pods() -> None:
    """Read by dagster-k8s itself, which refuses a field that Kubernetes does not know."""
    models = pytest.importorskip("dagster_k8s.models", reason="no dagster-k8s: scripts/make_cluster_env.sh")
    from dagster._config import process_config
    from dagster_k8s import K8sRunLauncher
    from kubernetes import client

    values = yaml.safe_load((DEPLOY / "k8s" / "values.yaml").read_text(encoding="utf-8"))
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    kinds = {"env": client.V1EnvVar, "volumes": client.V1Volume, "volumeMounts": client.V1VolumeMount}
    for field, kind in kinds.items():
        for given in deployment[field]:
            models.k8s_model_from_dict(kind, models.k8s_snake_case_dict(kind, given))
    with pytest.raises(Exception, match="nam"):  # it does look
        models.k8s_model_from_dict(kinds["env"], {"nam": "PERSONA_HOME", "value": "/data"})
    launcher = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster",
        "dagster_home": values["global"]["dagsterHome"],
        "env_secrets": [one["name"] for one in values["runLauncher"]["config"]["k8sRunLauncher"]["envSecrets"]],
        "resources": values["runLauncher"]["config"]["k8sRunLauncher"]["resources"],
    }
    assert process_config(K8sRunLauncher.config_type(), launcher).success


def test_the_pods_of_the_values_hold_to_kubernetes_own_schema() -> None:
    """The deployment of the code server, the job of a run, and the pod of a training that it starts, put together as
    the chart, dagster-k8s and the engine do, against the API's JSON schema, in which an unknown key is an error."""
    schema = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate: scripts/make_cluster_env.sh")
    values = yaml.safe_load((DEPLOY / "k8s" / "values.yaml").read_text(encoding="utf-8"))
    (given,) = values["dagster-user-deployments"]["deployments"]
    run = values["runLauncher"]["config"]["k8sRunLauncher"]
    container = {
        "name": given["name"],
        "image": f"{given['image']['repository']}:{given['image']['tag']}",
        "imagePullPolicy": given["image"]["pullPolicy"],
        "args": ["dagster", "code-server", "start", "-p", str(given["port"]), *given["codeServerArgs"]],
        "ports": [{"containerPort": given["port"]}],
        "env": given["env"],
        "envFrom": [{"secretRef": one} for one in given["envSecrets"]],
        "volumeMounts": given["volumeMounts"],
    }
    deployment = _workload("apps/v1", "Deployment", container, given["volumes"])
    deployment["spec"] |= {"replicas": 1, "selector": {"matchLabels": {"app": "persona"}}}
    job = _workload("batch/v1", "Job", container | {"resources": run["resources"]}, given["volumes"])
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    job["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"secretRef": one} for one in run["envSecrets"]]
    training = pod_spec(job["spec"]["template"]["spec"], KubernetesSpec(), gpus=2, grace_s=60)
    training["containers"][0]["name"] = "dagster-pipes-execution"  # by dagster-k8s
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "training"}, "spec": training}
    claim = yaml.safe_load((DEPLOY / "k8s" / "volume.yaml").read_text(encoding="utf-8"))
    named = {one["persistentVolumeClaim"]["claimName"] for one in given["volumes"] if "persistentVolumeClaim" in one}
    assert named == {claim["metadata"]["name"]}
    for manifest in (pod, claim):
        schema.validate(manifest, schema.latest_version(), strict=True)
    for manifest in (deployment, job):
        schema.validate(manifest, schema.latest_version(), strict=True)
        with pytest.raises(schema.ValidationError, match="mountpath"):  # it does look
            mount = {"name": "data", "mountpath": "/data"}
            wrong = _workload(
                manifest["apiVersion"], manifest["kind"], container | {"volumeMounts": [mount]}, given["volumes"]
            )
            wrong["spec"] = manifest["spec"] | {"template": wrong["spec"]["template"]}
            schema.validate(wrong, schema.latest_version(), strict=True)


def _workload(version: str, kind: str, container: dict[str, Any], volumes: list[Any]) -> dict[str, Any]:
    pod = {"metadata": {"labels": {"app": "persona"}}, "spec": {"containers": [container], "volumes": volumes}}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "persona"}, "spec": {"template": pod}}


def test_the_charts_queue_is_the_one_that_runs_here() -> None:
    """One training and one pass a site, wherever it runs."""
    values = yaml.safe_load((DEPLOY / "k8s" / "values.yaml").read_text(encoding="utf-8"))
    local = yaml.safe_load(INSTANCE.read_text(encoding="utf-8"))
    pools = values["concurrency"]["pools"]
    assert (pools["defaultLimit"], pools["granularity"]) == (1, "run")
    assert local["concurrency"]["pools"] == {"default_limit": 1, "granularity": "run"}
    resumes = values["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"]
    assert resumes == local["run_monitoring"]["max_resume_run_attempts"] == 0
    retries = values["dagsterDaemon"]["runRetries"]
    assert retries["retryOnAssetOrOpFailure"] == local["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert set(values) <= CHART_KEYS


def _check(path: Path, *schema: str) -> int:
    wanted = schema or ("--builtin-schema", "vendor.compose-spec")
    return subprocess.run([str(CHECKER), *wanted, str(path)], capture_output=True, check=False).returncode
