"""Programs as jobs of a real Slurm: one node on loopback, started by scripts/slurm_node.sh.

Skipped where slurmd cannot start (apt-get install slurm-wlm munge).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from persona_dagster.artifacts import RunCard
from persona_dagster.config.cluster import SlurmSpec, load_cluster
from persona_dagster.defs.engines import CANCELLED, SlurmEngine
from persona_dagster.digest import file_digest
from persona_dagster.settings import PROJECT_ROOT
from persona_dagster.training import slurm
from persona_dagster.training.job_spec import TrainJob, find_adapter
from persona_dagster_tests.training.test_train import logged_steps

NODE = PROJECT_ROOT / "scripts" / "slurm_node.sh"
PROGRAM = "persona_dagster_tests.training.slurm_program"


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1]) // 2 * 2


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    port = {"PERSONA_SLURM_PORT": str(free_port())}
    started = subprocess.run(
        [NODE, "start", folder], env=os.environ | port, capture_output=True, text=True, check=False
    )
    if started.returncode != 0:
        subprocess.run([NODE, "stop", folder], capture_output=True, check=False)
        pytest.skip(f"no Slurm here: {started.stderr.strip()}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    subprocess.run([NODE, "stop", folder], capture_output=True, check=False)
    os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)


def job_file(folder: Path, **values: object) -> Path:
    path = folder / "train-one.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def materialize(job: Path, home: Path, spec: SlurmSpec) -> dg.ExecuteInProcessResult:
    @dg.asset
    def adapter(context) -> dg.MaterializeResult:  # Dagster reads the annotation, which here is a string
        return SlurmEngine(spec, home / "slurm").run(context, PROGRAM, job)

    return dg.materialize([adapter], instance=dg.DagsterInstance.local_temp(str(home)), raise_on_error=False)


def queued(node: Path) -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.1)


def test_the_packaged_file_says_what_the_code_says(tmp_path: Path) -> None:
    assert load_cluster(tmp_path).slurm == SlurmSpec()


def test_no_sbatch_and_an_unknown_partition_are_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmError, match="login node"):
        slurm.submit(SlurmSpec(), ["-c", "0"], tmp_path, name="one", gpus=0)


def test_a_program_reports_from_its_job(node: Path, tmp_path: Path) -> None:
    result = materialize(job_file(tmp_path, seconds=0), tmp_path, SlurmSpec(cpus=1))
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["steps"].value == 3
    assert event.materialization.tags["dagster/data_version"] == "a digest"
    assert queued(node) == ""
    with pytest.raises(slurm.SlurmError, match=r"'gpus4all'; there are main"):
        slurm.submit(SlurmSpec(partition="gpus4all"), ["-c", "0"], tmp_path, name="one", gpus=0)
    failed = materialize(job_file(tmp_path, seconds=0, fails=True), tmp_path, SlurmSpec(cpus=1))
    (failure,) = failed.get_step_failure_events()
    assert "status 1" in str(failure.event_specific_data) and "the disk is full" in str(failure.event_specific_data)


def test_a_job_that_no_node_can_take_says_so(node: Path, tmp_path: Path) -> None:
    """Slurm queues it as any other, and for ever."""
    job = slurm.submit(SlurmSpec(cpus=1000), ["-c", "0"], tmp_path, name="one", gpus=0)

    def heard(words: str) -> None:
        if "slurm.cpus, memory and gpus in cluster.yaml" in words:
            slurm.cancel(job, 10)

    with pytest.raises(slurm.SlurmError, match="CANCELLED; somebody cancelled it"):
        slurm.wait(job, heard, poll_s=0.2, settle_s=0.5)


def test_a_cancelled_run_leaves_no_job(node: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    job = job_file(tmp_path, seconds=600)
    body = "import sys; from pathlib import Path; from persona_dagster.config.cluster import SlurmSpec\n"
    body += "from persona_dagster_tests.training.test_slurm import materialize\n"
    body += "materialize(Path(sys.argv[1]), Path(sys.argv[2]), SlurmSpec(cpus=1))"
    command = [sys.executable, "-c", body, str(job), str(tmp_path)]
    step = subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True)
    request.addfinalizer(step.kill)
    wait_until(job.with_suffix(".began").exists, 400)
    step.send_signal(signal.SIGINT)
    _, said = step.communicate(timeout=120)
    assert CANCELLED in said and "Traceback" not in said
    assert queued(node) == "" and job.with_suffix(".saved").exists()


def _train(job: TrainJob, folder: Path, spec: SlurmSpec) -> list[str]:
    """Trains as a Slurm job; returns the states it went through."""
    job.save(folder / "job.json")
    said: list[str] = []
    argv = ["-m", "persona_dagster.training.train", str(folder / "job.json")]
    submitted = slurm.submit(spec, argv, folder, name="train", gpus=0, env={"OMP_NUM_THREADS": "1"})
    slurm.wait(submitted, said.append, poll_s=0.2)
    return said


def _adapter(job: TrainJob) -> Path:
    folder = find_adapter(job)
    assert folder is not None
    return folder


def _weights(job: TrainJob) -> str:
    return file_digest(_adapter(job) / "adapter_model.safetensors")


@pytest.mark.soak
def test_out_of_time_and_on_from_the_checkpoint(
    node: Path,
    make_job: Callable[..., TrainJob],
    tmp_path: Path,
) -> None:
    """A minute is the shortest limit: asked to save before it, back into the queue, the same weights at the end."""
    settings: dict[str, object] = {"max_steps": 50, "save_every": 10_000, "eval_every": 10_000}
    probe = make_job(home="probe", **settings)
    _train(probe, tmp_path / "p", SlurmSpec(cpus=1))
    # Longer than the limit, of which loading and Slurm, whose signal comes up to a minute early, take their part.
    settings["max_steps"] = int(50 / RunCard.read(_adapter(probe)).seconds_per_step)
    whole = make_job(home="whole", **settings)
    assert "requeue" not in " ".join(_train(whole, tmp_path / "a", SlurmSpec(cpus=1)))
    parts = make_job(home="parts", **settings)
    states = _train(parts, tmp_path / "b", SlurmSpec(cpus=1, time="1", save_before=10))
    assert sum("PENDING" in state or "RUNNING" in state for state in states) > 2, states
    assert "out of time" in (tmp_path / "b" / "output.txt").read_text(encoding="utf-8")
    assert "going on from step" in (tmp_path / "b" / "output.txt").read_text(encoding="utf-8")
    assert _weights(whole) == _weights(parts)


@pytest.mark.soak
def test_slurmctld_dies_and_comes_back(node: Path, make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = make_job(max_steps=300, save_every=10_000, eval_every=10_000)
    job.save(tmp_path / "job.json")
    argv = ["-m", "persona_dagster.training.train", str(tmp_path / "job.json")]
    submitted = slurm.submit(SlurmSpec(cpus=1), argv, tmp_path, name="train", gpus=0)
    wait_until(lambda: logged_steps(job) > 5, 600)
    os.kill(int((node / "slurmctld.pid").read_text(encoding="utf-8")), signal.SIGKILL)
    time.sleep(3)
    assert slurm._state(submitted.number) is None, "nobody answers"
    subprocess.run(["slurmctld"], check=True, env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"})
    slurm.wait(submitted, print, poll_s=0.5)
    assert find_adapter(job) is not None


@pytest.mark.soak
def test_the_tiny_graph_trains_and_evaluates_through_sbatch(node: Path, tmp_path: Path) -> None:
    env = os.environ | {"PERSONA_HOME": str(tmp_path), "PERSONA_PROFILE": "tiny", "PERSONA_ENGINE": "slurm"}
    env |= {"DAGSTER_HOME": str(tmp_path / "dagster"), "PERSONA_HARDWARE": "cpu"}
    for folder in ("dagster", "config"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config" / "cluster.yaml").write_text("slurm: {cpus: 1}\n", encoding="utf-8")  # the node has two
    command = [sys.executable, "-m", "persona_dagster.defs.demo"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    outputs = sorted(path.parent.name.rpartition("-")[0] for path in tmp_path.glob("slurm/*/output.txt"))
    assert outputs == ["evaluate-persona_v2", "generate-persona_v2", "train-persona_v2"]
