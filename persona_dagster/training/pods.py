"""A program of ours as a pod of Kubernetes: like the run's own pod, but for the cards that it asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from persona_dagster.config.cluster import KubernetesSpec

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ALIKE = ("serviceAccountName", "securityContext", "imagePullSecrets", "volumes")
_CONTAINER_ALIKE = ("image", "imagePullPolicy", "env", "envFrom", "volumeMounts", "securityContext")
_TOKEN = "kube-api-access"  # the volume of an account's token, which every pod is given anew


def namespace() -> str:
    return _NAMESPACE.read_text(encoding="utf-8").strip() if _NAMESPACE.is_file() else "default"


def our_pod() -> dict[str, Any]:
    """The spec of the pod that this process runs in, in the API's own words."""
    from kubernetes import client, config

    config.load_config()
    pod = client.CoreV1Api().read_namespaced_pod(os.environ["HOSTNAME"], namespace())
    spec: dict[str, Any] = client.ApiClient().sanitize_for_serialization(pod)["spec"]
    return spec


def pod_spec(ours: dict[str, Any], spec: KubernetesSpec, *, gpus: int, grace_s: int) -> dict[str, Any]:
    """The spec of a pod with image, account, secrets and volumes of `ours`, and `gpus` cards of one node.

    Its program has `grace_s` seconds to save when the pod is deleted.
    """
    container = {key: value for key, value in ours["containers"][0].items() if key in _CONTAINER_ALIKE}
    container["volumeMounts"] = [one for one in container.get("volumeMounts", []) if not one["name"].startswith(_TOKEN)]
    container["resources"] = {"requests": {"cpu": str(spec.cpus), "memory": spec.memory}}
    pod = {key: value for key, value in ours.items() if key in _ALIKE}
    pod["volumes"] = [one for one in pod.get("volumes", []) if not one["name"].startswith(_TOKEN)]
    pod |= {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": grace_s}
    if gpus:
        container["resources"]["limits"] = {spec.gpu: str(gpus)}
        # A node that offers cards is often kept for who asks for them.
        pod["nodeSelector"] = dict(spec.node_selector)
        pod["tolerations"] = [{"key": spec.gpu, "operator": "Exists", "effect": "NoSchedule"}]
    return pod
