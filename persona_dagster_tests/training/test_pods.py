"""Programs as pods: dagster-k8s and the kubernetes client as they are, against an API server that starts what it is
given as processes of this machine. What a kubelet does beside that (images, volumes, nodes) is not shown.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
import yaml

from persona_dagster.config.cluster import KubernetesSpec, load_cluster
from persona_dagster.defs.engines import K8sEngine
from persona_dagster.settings import PROJECT_ROOT
from persona_dagster.training.pods import pod_spec
from persona_dagster_tests.training.test_slurm import PROGRAM, wait_until

OURS = {
    "serviceAccountName": "dagster",
    "nodeName": "a node of the run's own",
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "persona-data"}},
        {"name": "kube-api-access-1"},
    ],
    "containers": [
        {
            "name": "dagster",
            "image": "persona-dagster:0.2.0",
            "args": ["dagster", "api", "execute_run"],
            "env": [{"name": "PERSONA_HOME", "value": "/data"}],
            "envFrom": [{"secretRef": {"name": "persona-dagster"}}],
            "resources": {"limits": {"memory": "12Gi"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "kube-api-access-1", "mountPath": "/x"}],
        }
    ],
}


def test_a_pod_is_like_ours_but_for_its_cards() -> None:
    pod = pod_spec(OURS, KubernetesSpec(memory="48Gi"), gpus=4, grace_s=60)
    (container,) = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "48Gi"},
        "limits": {"nvidia.com/gpu": "4"},
    }
    assert (
        pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"} and pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    )
    assert (container["image"], container["envFrom"]) == ("persona-dagster:0.2.0", OURS["containers"][0]["envFrom"])
    assert [one["name"] for one in pod["volumes"]] == [one["name"] for one in container["volumeMounts"]] == ["data"]
    assert "nodeName" not in pod and "args" not in container and pod["serviceAccountName"] == "dagster"
    plain = pod_spec(OURS, KubernetesSpec(), gpus=0, grace_s=60)
    assert "nodeSelector" not in plain and "limits" not in plain["containers"][0]["resources"]


def test_the_packaged_file_says_what_the_code_says(tmp_path: Path) -> None:
    assert load_cluster(tmp_path).k8s == KubernetesSpec()


class Api(ThreadingHTTPServer):
    """Pods of one namespace, each with its process."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pods: dict[str, dict[str, Any]] = {"the-run": {"metadata": {"name": "the-run"}, "spec": OURS}}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.made: list[dict[str, Any]] = []

    def start(self, pod: dict[str, Any]) -> None:
        (container,) = pod["spec"]["containers"]
        given = {one["name"]: one["value"] for one in container["env"] if one["name"] != "PERSONA_HOME"}
        process = subprocess.Popen(
            container["command"],
            env={**os.environ, **given},
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        name = pod["metadata"]["name"]
        self.pods[name], self.processes[name] = pod, process
        self.made.append(pod)

    def seen(self, name: str) -> dict[str, Any]:
        pod, code = self.pods[name], self.processes[name].poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code, "reason": "Error"}}
        status = {"name": pod["spec"]["containers"][0]["name"], "state": state, "ready": code is None, "image": "x"}
        status |= {"imageID": "x", "restartCount": 0}
        return pod | {"status": {"phase": "Running" if code is None else "Failed", "containerStatuses": [status]}}


class Handler(BaseHTTPRequestHandler):
    server: Api

    def answer(self, value: Any, code: int = 200) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        last, chosen = asked.path.split("/")[-1], parse_qs(asked.query).get("fieldSelector", [""])[0]
        if last == "log":
            stdout = self.server.processes[asked.path.split("/")[-2]].stdout
            assert stdout is not None
            self.answer(stdout.read())
        elif last == "pods":
            name = chosen.removeprefix("metadata.name=")
            self.answer({"items": [self.server.seen(name)] if name in self.server.processes else []})
        elif last == "events":
            self.answer({"items": []})
        elif last in self.server.pods:
            self.answer(self.server.pods[last])
        else:
            self.answer({"message": asked.path}, 404)

    def do_POST(self) -> None:
        pod = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.start(pod)
        self.answer(pod, 201)

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.split("/")[-1]
        self.server.processes[name].send_signal(signal.SIGTERM)  # as a kubelet does; SIGKILL after the grace
        self.answer(self.server.pods.pop(name))

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    pytest.importorskip("dagster_k8s", reason="no dagster-k8s: scripts/make_cluster_env.sh")
    server = Api()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": where}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOSTNAME", "the-run")
    # Read when the library is imported, which another test may have done.
    for module in ("kubernetes.config", "kubernetes.config.kube_config"):
        monkeypatch.setattr(f"{module}.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield server
    for process in server.processes.values():
        process.kill()
        process.wait()
    server.shutdown()


def job_file(folder: Path, **values: Any) -> Path:
    path = folder / "train-one.json"
    recipe = {"requires_cuda": True, "training": {"processes": 2}}
    path.write_text(json.dumps({"recipe": recipe, **values}), encoding="utf-8")
    return path


def materialize(job: Path, home: Path) -> dg.ExecuteInProcessResult:
    @dg.asset
    def adapter(context) -> dg.MaterializeResult:  # Dagster reads the annotation, which here is a string
        return K8sEngine(KubernetesSpec(), home / "pods", poll_s=0.2).run(context, PROGRAM, job)

    return dg.materialize([adapter], instance=dg.DagsterInstance.local_temp(str(home)), raise_on_error=False)


def test_a_training_is_a_pod_with_the_cards_of_its_recipe(api: Api, tmp_path: Path) -> None:
    result = materialize(job_file(tmp_path, seconds=0), tmp_path)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["steps"].value == 3
    (pod,) = api.made
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"} and container["image"] == "persona-dagster:0.2.0"
    assert list(api.pods) == ["the-run"], "and is gone"

    failed = materialize(job_file(tmp_path, seconds=0, fails=True), tmp_path)
    (failure,) = failed.get_step_failure_events()
    assert "the disk is full" in str(failure.event_specific_data) and list(api.pods) == ["the-run"]


def test_a_cancelled_run_deletes_its_pod(api: Api, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    job = job_file(tmp_path, seconds=600)
    body = "import sys; from pathlib import Path; from persona_dagster_tests.training.test_pods import materialize\n"
    body += "materialize(Path(sys.argv[1]), Path(sys.argv[2]))"
    step = subprocess.Popen([sys.executable, "-c", body, str(job), str(tmp_path)], cwd=PROJECT_ROOT)
    request.addfinalizer(step.kill)
    wait_until(job.with_suffix(".began").exists, 400)
    step.send_signal(signal.SIGINT)
    step.wait(120)
    wait_until(job.with_suffix(".saved").exists, 20)
    assert list(api.pods) == ["the-run"]
