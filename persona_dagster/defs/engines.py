"""Where things run, by PERSONA_ENGINE alone: heavy programs as a process of this machine, a job of a Ray cluster or of
Slurm, or a pod; steps in the run's own process, or as Ray jobs.

All these programs speak Dagster Pipes, so assets see one call.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import dagster as dg

from persona_dagster.config.cluster import KubernetesSpec, SlurmSpec, load_cluster
from persona_dagster.settings import Settings
from persona_dagster.training import pods, slurm
from persona_dagster.training.isolation import run_isolated

GRACE_SECONDS = 60  # how long a program may take to write its checkpoint after SIGINT
CANCELLED = "Cancelled. What was published stands, and a training left its checkpoint: run it again, and it goes on."
RAY = "http://127.0.0.1:8265"  # a head node on this machine


class ProgramRunner(Protocol):
    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        """Runs `python -m module job` to its end; what it reported over Pipes is the result."""
        ...


@contextmanager
def cancelled_in_words() -> Iterator[None]:
    """A cancel says what became of the work, in place of a chain of tracebacks."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        raise dg.DagsterExecutionInterruptedError(CANCELLED) from None


class LocalEngine:
    """A process group of its own: an interrupt lets it write a checkpoint, and nothing of it stays behind."""

    @cancelled_in_words()
    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
        ) as session:
            env = {**os.environ, **session.get_bootstrap_env_vars()}
            run_isolated([sys.executable, "-m", module, str(job)], env=env, grace_s=GRACE_SECONDS)
        return _one_result(session.get_results())


class SlurmEngine:
    """The same program as a job of Slurm (cluster.yaml), whose nodes see `folder`."""

    def __init__(self, spec: SlurmSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder

    @cancelled_in_words()
    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        folder = _run_folder(self.folder, context, job)
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesFileContextInjector(str(folder / "context.json")),
            message_reader=dg.PipesFileMessageReader(str(folder / "messages.jsonl")),
        ) as session:
            try:
                submitted = slurm.submit(
                    self.spec,
                    ["-m", module, str(job)],
                    folder,
                    name=f"persona-{job.stem}",
                    gpus=_gpus(job),
                    env=session.get_bootstrap_env_vars(),
                )
                context.log.info(f"Slurm job {submitted.number}; its output: {folder / 'output.txt'}")
                try:
                    slurm.wait(submitted, context.log.info)
                except slurm.SlurmError:
                    raise
                except BaseException:  # an interrupt, whatever Dagster makes of it
                    slurm.cancel(submitted, GRACE_SECONDS)
                    raise
            except slurm.SlurmError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
        return _one_result(session.get_results())


class RayEngine:
    """The same program as a job of a Ray cluster (PERSONA_RAY_ADDRESS), which finds it its GPUs."""

    def __init__(self, address: str | None) -> None:
        self.address = address or RAY

    @cancelled_in_words()
    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        from dagster_ray import PipesRayJobClient

        client = PipesRayJobClient(address=self.address, forward_termination=True)
        invocation = client.run(
            context=context,
            submit_job_params={
                "entrypoint": f"{sys.executable} -m {module} {job}",
                "entrypoint_num_gpus": _gpus(job),
                "entrypoint_num_cpus": 1,
            },
        )
        return _one_result(invocation.get_results())


class K8sEngine:
    """The same program as a pod beside that of the run (cluster.yaml, deploy/k8s), with the same volume at `folder`."""

    def __init__(self, spec: KubernetesSpec, folder: Path, poll_s: float = 5.0) -> None:
        self.spec, self.folder, self.poll_s = spec, folder, poll_s

    @cancelled_in_words()
    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        from dagster_k8s import PipesK8sClient
        from dagster_k8s.client import DagsterK8sError

        folder = _run_folder(self.folder, context, job)
        # By files: a pod's log may be rotated away in mid-training.
        client = PipesK8sClient(
            context_injector=dg.PipesFileContextInjector(str(folder / "context.json")),
            message_reader=dg.PipesFileMessageReader(str(folder / "messages.jsonl")),
            poll_interval=self.poll_s,
        )
        wanted = pods.pod_spec(pods.our_pod(), self.spec, gpus=_gpus(job), grace_s=GRACE_SECONDS)
        try:
            done = client.run(
                context=context,
                command=[sys.executable, "-m", module, str(job)],
                namespace=pods.namespace(),
                base_pod_spec=wanted,
            )  # deletes the pod, whatever ends it: an interrupt too
        except DagsterK8sError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        return _one_result(done.get_results())


def build_engine(settings: Settings) -> ProgramRunner:
    """The engine of PERSONA_ENGINE."""
    if settings.engine == "ray":
        return RayEngine(settings.ray_address)
    if settings.engine == "slurm":
        return SlurmEngine(load_cluster(settings.config_dir, settings.accepted_dir).slurm, settings.home / "slurm")
    if settings.engine == "k8s":
        return K8sEngine(load_cluster(settings.config_dir, settings.accepted_dir).k8s, settings.home / "pods")
    return LocalEngine()


def build_executor(settings: Settings) -> dg.ExecutorDefinition:
    """How the steps of a run are spread: the corpus fans out over a cluster by configuration alone."""
    if settings.engine == "ray":
        from dagster_ray import ray_executor

        # A Ray job that asks for no CPU stays on the head node.
        wanted = {"address": settings.ray_address or RAY, "num_cpus": 1, "env_vars": _environment(settings)}
        return ray_executor.configured({"ray": wanted})
    return dg.in_process_executor  # four trivial assets: 6 s in process, 18 s a process each


def _environment(settings: Settings) -> list[str]:
    """What this process was told, for a step on another node. Secrets are no settings: a node has its own."""
    told = settings.model_dump(include={*settings.model_fields_set, "home"}, exclude_none=True)
    return [f"PERSONA_{name.upper()}={value}" for name, value in told.items()]


def _run_folder(folder: Path, context: dg.AssetExecutionContext, job: Path) -> Path:
    """Where one program of one run writes what Dagster reads, on storage that both see."""
    own = folder / f"{job.stem}-{context.run_id[:8]}"
    own.mkdir(parents=True, exist_ok=True)
    return own


def _gpus(job: Path) -> int:
    """The cards that a program asks for: a training one a process, whatever else works on a model one."""
    import orjson

    recipe = orjson.loads(job.read_bytes()).get("recipe", {})
    if not recipe.get("requires_cuda"):
        return 0
    return int(recipe["training"]["processes"]) if job.stem.startswith("train-") else 1


def _one_result(results: Sequence[dg.PipesExecutionResult]) -> dg.MaterializeResult:
    materialized = [result for result in results if isinstance(result, dg.MaterializeResult)]
    if not materialized:
        raise dg.Failure(
            "the program ended without reporting a result; its own log above says why", allow_retries=False
        )
    return materialized[0]
