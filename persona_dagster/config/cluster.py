"""How an engine beyond this machine asks for machines (cluster.yaml)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from persona_dagster.config.loading import Config, find, read_yaml, validate


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


class Cluster(Config):
    slurm: SlurmSpec = SlurmSpec()


def load_cluster(config_dir: Path) -> Cluster:
    path = find("cluster.yaml", config_dir)
    return validate(Cluster, read_yaml(path), path)
