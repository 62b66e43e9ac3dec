"""A program of ours as a Slurm job: submitted, watched, cancelled, and back into the queue when its time is up.

Asks nothing but sbatch, squeue, scancel and scontrol, where Dagster runs on a login node and the home lies on storage
that the nodes see. `dagster-slurm` does more by SSH and pixi, which many clusters allow nobody.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_dagster.config.cluster import SlurmSpec

_POLL_SECONDS = 2.0
_SETTLE_SECONDS = 30.0  # between the end of a job and its status file: a network file system takes its time
_TAIL_LINES = 15
_ENDED = {"CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
_CURES = {
    "TIMEOUT": "it was still saving at the limit: raise slurm.save_before in cluster.yaml",
    "OUT_OF_MEMORY": "raise slurm.memory in cluster.yaml",
    "CANCELLED": "somebody cancelled it; materialise again to go on from its checkpoint",
}

# Reasons to wait that seldom end by themselves: Slurm keeps such a job in its queue for ever.
_WAITS = {
    "PartitionConfig": "no node of the partition has what slurm.cpus, memory and gpus in cluster.yaml ask for",
    "BadConstraints": "no node is what slurm.options in cluster.yaml ask for",
    "PartitionTimeLimit": "slurm.time in cluster.yaml is over the partition's limit",
    "PartitionDown": "the partition is down: see sinfo",
}

# Slurm sends USR1 to this shell alone, some time before the limit; TERM, on a cancel, to the program too. The program
# answers TERM with a checkpoint and a status other than 0.
_SCRIPT = """#!/bin/bash
trap 'again=1; kill -TERM "$program"' USR1
trap : TERM INT
rm -f {status}
{command} &
program=$!
while :; do
    wait "$program"
    code=$?
    kill -0 "$program" 2>/dev/null || break
done
if [ -n "$again" ] && [ "$code" -ne 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    echo "out of time: back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
echo "$code" >{status}.new && mv {status}.new {status}
exit "$code"
"""


class SlurmError(RuntimeError):
    """A job that could not be submitted, or ended without success; the message names the cure."""


@dataclass(frozen=True, slots=True)
class SlurmJob:
    number: str
    folder: Path  # job.sh, output.txt, status

    def tail(self) -> str:
        """The last lines of its output."""
        path = self.folder / "output.txt"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])


def submit(
    spec: SlurmSpec, argv: Sequence[str], folder: Path, *, name: str, gpus: int, env: Mapping[str, str] | None = None
) -> SlurmJob:
    """Hands `python argv…` to sbatch. `folder` must be seen by the nodes; `env` goes along, as sbatch's own.

    Raises:
        SlurmError: no sbatch here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise SlurmError("PERSONA_ENGINE=slurm, and there is no sbatch here: start Dagster on a login node")
    folder.mkdir(parents=True, exist_ok=True)
    command = [*shlex.split(spec.container or ""), spec.python or sys.executable, *argv]
    script = folder / "job.sh"
    status = shlex.quote(str(folder / "status"))
    script.write_text(
        _SCRIPT.format(command=shlex.join(command), status=status, restarts=spec.most_restarts), encoding="utf-8"
    )
    asked = [
        "--parsable",
        "--requeue",
        "--open-mode=append",  # a job that comes back goes on in the same file
        f"--job-name={name}",
        f"--output={folder / 'output.txt'}",
        f"--time={spec.time}",
        f"--signal=B:USR1@{spec.save_before}",
        f"--cpus-per-task={spec.cpus}",
        *([f"--partition={spec.partition}"] if spec.partition else []),
        *([f"--account={spec.account}"] if spec.account else []),
        *([f"--mem={spec.memory}"] if spec.memory else []),
        *([spec.gpus.format(count=gpus)] if gpus else []),
        *spec.options,
    ]
    done = _call(["sbatch", *asked, str(script)], env)
    if done.returncode != 0:
        raise SlurmError(_refused(spec, done.stderr.strip()))
    return SlurmJob(done.stdout.strip().partition(";")[0], folder)


def wait(
    job: SlurmJob, say: Callable[[str], None], *, poll_s: float = _POLL_SECONDS, settle_s: float = _SETTLE_SECONDS
) -> None:
    """Until the program has ended well, however often its job came back; `say` is told of each change of state.

    While slurmctld does not answer the job is taken to go on: it runs without it.

    Raises:
        SlurmError: it did not end well; with the last lines of its output.
    """
    known: tuple[str, str] | None = None
    ended_at: float | None = None
    while True:
        code = _code(job)
        if code == 0:
            return
        if code is not None:
            raise SlurmError(f"Slurm job {job.number} ended with status {code}:\n{job.tail()}")
        seen = _state(job.number)
        state, reason = seen or (None, "")
        if seen and seen != known:
            say(", ".join(filter(None, (f"Slurm job {job.number}: {state}", reason, _WAITS.get(reason)))))
            known = seen
        if state in _ENDED:
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at > settle_s:
                cure = _CURES.get(state, f"see {job.folder / 'output.txt'}")
                raise SlurmError(f"Slurm job {job.number}: {state}; {cure}\n{job.tail()}")
        else:
            ended_at = None
        time.sleep(poll_s)


def cancel(job: SlurmJob, grace_s: float) -> None:
    """Ends the job, queued or running: the program has Slurm's KillWait to save. Waits until it is gone."""
    _call(["scancel", job.number])
    ends = time.monotonic() + grace_s
    while time.monotonic() < ends and (_state(job.number) or ("",))[0] not in _ENDED:
        time.sleep(min(_POLL_SECONDS, grace_s / 10))


def _code(job: SlurmJob) -> int | None:
    try:
        return int((job.folder / "status").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _state(number: str) -> tuple[str, str] | None:
    """State and, of a job that waits, the reason, in Slurm's words; `COMPLETED` for one that is forgotten, None where
    nobody answers."""
    done = _call(["squeue", "--noheader", "--states=all", "--format=%T %r", f"--jobs={number}"])
    if done.returncode == 0:
        state, _, reason = (done.stdout.strip() or "COMPLETED").partition(" ")
        return state, reason if state == "PENDING" else ""
    return ("COMPLETED", "") if "Invalid job id" in done.stderr else None


def _refused(spec: SlurmSpec, words: str) -> str:
    cure = "see slurm in cluster.yaml"
    if "partition" in words:
        known = _call(["sinfo", "--noheader", "--format=%R"]).stdout.split()
        cure = f"slurm.partition in cluster.yaml is {spec.partition!r}; there are {', '.join(sorted(set(known)))}"
    return f"sbatch refused the job: {words} ({cure})"


def _call(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    whole = None if env is None else {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=whole)
