"""How an engine beyond this machine asks for machines (cluster.yaml)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from persona_dagster.config.loading import Config, ConfigError, read_single, read_yaml, validate


class SlurmSpec(Config):
    """Options of sbatch; cluster.yaml says what each means."""

    partition: str | None = None
    account: str | None = None
    time: str = Field("4:00:00", pattern=r"^[0-9][0-9:-]*$")
    save_before: int = Field(180, ge=1)  # seconds
    most_restarts: int = Field(50, ge=0)
    cpus: int = Field(4, ge=1)
    memory: str | None = None
    gpus: str = "--gpus={count}"
    options: tuple[str, ...] = ()
    container: str | None = None
    python: str | None = None


class KubernetesSpec(Config):
    """What a pod of ours asks for; cluster.yaml says what each means."""

    gpu: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = Field({"nvidia.com/gpu.present": "true"})
    cpus: int = Field(4, ge=1)
    memory: str = "16Gi"


class Cluster(Config):
    slurm: SlurmSpec = SlurmSpec()
    k8s: KubernetesSpec = KubernetesSpec()


def find_cluster(config_dir: Path, accepted: Path | None = None) -> tuple[Cluster, ConfigError | None]:
    return read_single("cluster.yaml", lambda path: validate(Cluster, read_yaml(path), path), config_dir, accepted)


def load_cluster(config_dir: Path, accepted: Path | None = None) -> Cluster:
    """cluster.yaml. With `accepted`, a bad one goes on as it last was; without, raises `ConfigError`."""
    return find_cluster(config_dir, accepted)[0]
