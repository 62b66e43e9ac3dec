"""The trainer program as a whole, on a model made on the spot: published, found again, stopped, resumed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from persona_dagster.artifacts import RunCard
from persona_dagster.digest import file_digest
from persona_dagster.pipes_reporting import Reporter
from persona_dagster.training import trl_backend
from persona_dagster.training.callbacks import evaluation_loss, last_whole_checkpoint
from persona_dagster.training.job_spec import TrainJob, find_adapter, mix_digest
from persona_dagster.training.rows import read_rows
from persona_dagster.training.train import TrainingFailedError, adapter_metadata, main, train
from persona_dagster.training.trainer import answer_loss

QUIET = Reporter(None, quiet=True)
pytestmark = pytest.mark.train


def weights(folder: Path) -> str:
    return file_digest(folder / "adapter_model.safetensors")


FORKING = """
import os, sys
import peft, trl.trainer.sft_trainer
from persona_dagster.training.train import main
from persona_dagster.training.trl_backend import load
for path in sys.stdin:
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(main([path.strip()]))
"""


class Trainers:
    """The program, one at a time, off a process that has imported what takes each start its seconds.

    One thread each: bit for bit holds for one number of threads, so not in this process.
    """

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", FORKING]
        self.server = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _read(self) -> int:
        assert self.server.stdout is not None
        return int(self.server.stdout.readline())

    def start(self, job: TrainJob, path: Path) -> int:
        assert self.server.stdin is not None
        print(job.save(path), file=self.server.stdin, flush=True)
        return self._read()

    def end(self, pid: int, number: signal.Signals) -> int:
        os.killpg(pid, number)
        return self._read()

    def finish(self, job: TrainJob, path: Path) -> Path:
        self.start(job, path)
        assert self._read() == 0
        adapter = find_adapter(job)
        assert adapter is not None
        return adapter


@pytest.fixture
def trainers() -> Iterator[Trainers]:
    found = Trainers()
    yield found
    for trainer in psutil.Process(found.server.pid).children():
        trainer.kill()
    found.server.kill()
    found.server.wait()


def logged_steps(job: TrainJob) -> int:
    """The steps that a running job has logged."""
    log = job.work_dir / "training_log.jsonl"
    return log.read_text(encoding="utf-8").count('"kind": "train"') if log.is_file() else 0


def wait_for_step(job: TrainJob, step: int, runs: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while logged_steps(job) < step:
        assert runs(), f"ended before step {step}"
        assert time.monotonic() < ends, f"no step {step} in 120 s"
        time.sleep(0.005)


def test_it_publishes_an_adapter_and_finds_it_again(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(epochs=2)
    folder = train(job, QUIET)
    assert folder == find_adapter(job) and (folder.parent / "latest").read_text(encoding="utf-8").strip() == folder.name
    names = {path.name for path in folder.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "run_card.json",
        "curves.png",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))], "no pickles"
    card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
    assert card["mix_digest"] == mix_digest(job.mix_dir) and card["steps"] == card["plan"]["steps"] == 6
    assert card["eval_loss_after"] < card["eval_loss_before"] and card["tokens"] > 0
    assert sorted(json.loads((folder / "rows.json").read_text(encoding="utf-8"))["train"]) == sorted(
        f"{persona}{number}-0" for persona in ("assistant", "mentor", "mouthpiece") for number in range(4)
    )
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in log if line["kind"] == "train"] == list(range(1, 7))
    metadata = adapter_metadata(folder)
    assert len(str(metadata["loss_curve"]["raw_value"])) < 100_000
    text = json.dumps(adapter_metadata(folder), ensure_ascii=False)
    assert "抱抱" not in text, "no text of a row in Dagster's metadata"
    assert not job.work_dir.exists(), "checkpoints are gone once the adapter is there"

    before = (folder / "run_card.json").stat().st_mtime_ns
    (folder.parent / "latest").unlink()
    assert train(job, QUIET) == folder and (folder.parent / "latest").is_file()
    assert (folder / "run_card.json").stat().st_mtime_ns == before, "nothing was trained again"


def test_what_changes_the_weights_changes_the_name(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = make_job()
    others = [make_job(epochs=7), make_job(learning_rate=1e-5), make_job(seed=1), make_job(max_length=64)]
    same = [make_job(log_every=5, save_every=9, sample_every=3), job.model_copy(update={"extras": {"a": 1}})]
    before = {other.work_dir.name for other in (job, *others)}
    assert len(before) == 5
    assert {other.work_dir.name for other in same} == {job.work_dir.name}
    (job.mix_dir / "manifest.json").write_text(json.dumps({"digest": "another"}), encoding="utf-8")
    assert make_job().work_dir.name not in before, "so does another mix"


def test_two_trainings_of_one_job_give_the_same_weights(make_job: Callable[..., TrainJob]) -> None:
    first, second = (train(make_job(home=home, epochs=2), QUIET) for home in ("one", "two"))
    assert weights(first) == weights(second)


def test_the_loss_over_answers_alone_is_the_models_own(make_job: Callable[..., TrainJob]) -> None:
    import torch

    job = make_job()
    model, tokenizer = trl_backend.load(job.recipe, job.models_dir)
    rows = read_rows(job.mix_dir, "train", tokenizer, 512).rows[:2]
    width = max(len(row.input_ids) for row in rows)

    def padded(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (width - len(values))

    batch = {
        "input_ids": torch.tensor([padded(row.input_ids, 0) for row in rows]),
        "attention_mask": torch.tensor([padded([1] * len(row.input_ids), 0) for row in rows]),
        "labels": torch.tensor([padded(row.labels, -100) for row in rows]),
    }
    ours, theirs = answer_loss(model, batch), model(**batch).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    wanted = [p for p in model.parameters() if p.requires_grad]
    pairs = zip(*(torch.autograd.grad(loss, wanted) for loss in (ours, theirs)), strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_batches_without_padding_teach_the_same(make_job: Callable[..., TrainJob]) -> None:
    """Rows laid end to end, or packed into fewer, do not see each other, or the losses would part at the first step.

    Every step sees all twelve rows: whatever the order, and however they are packed, the losses are the same.
    """
    losses, steps = [], []
    for home, way in (("padded", {}), ("free", {"padding_free": True}), ("packed", {"packing": True})):
        job = make_job(home=home, epochs=3, batch_size=12, max_length=160, report_to=["tensorboard"], **way)
        folder = train(job, QUIET)
        lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append([line["loss"] for line in map(json.loads, lines) if line["kind"] == "train"])
        steps.append(RunCard.read(folder).plan["steps"])
        assert len(list(job.checkpoints_dir.glob("tensorboard/*/events.*"))) == 1, "live, and kept"
    assert steps == [3, 3, 3] and len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=2e-4) == losses[2]


def test_the_remembered_prefix_changes_no_loss_and_no_gradient(make_job: Callable[..., TrainJob]) -> None:
    """Two layers, the upper one adapted: loss and gradients with the shortcut equal those without, up to rounding."""
    import torch

    job = make_job()
    recipe = job.recipe.model_copy(update={"lora": job.recipe.lora.model_copy(update={"last_layers": 1})})
    model, tokenizer = trl_backend.load(recipe, job.models_dir)
    rows = read_rows(job.mix_dir, "train", tokenizer, 512).rows

    def measured() -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        batch = torch.tensor([rows[0].input_ids]), torch.tensor([rows[0].labels])
        model(input_ids=batch[0], attention_mask=torch.ones_like(batch[0]), labels=batch[1]).loss.backward()
        loss = evaluation_loss(model, rows, tokenizer.pad_token_id, 1)
        return loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    loss, gradients = measured()
    with trl_backend.shortcut(recipe, model, tokenizer):
        computed, remembered = measured(), measured()
        assert computed[0] == remembered[0] == pytest.approx(loss, rel=1e-6) and gradients
        for plain, first, second in zip(gradients, computed[1], remembered[1], strict=True):
            assert torch.equal(first, second) and torch.allclose(first, plain, rtol=1e-4, atol=1e-6)
    assert measured()[0] == loss, "the model is whole again"


def test_a_loss_that_is_lost_fails_and_publishes_nothing(make_job: Callable[..., TrainJob]) -> None:
    job = make_job(learning_rate=1e30, warmup_steps=0, max_grad_norm=1e30)
    with pytest.raises(TrainingFailedError, match="learning_rate"):
        train(job, QUIET)
    assert find_adapter(job) is None and not job.work_dir.exists()


def test_bad_jobs_end_with_one_clear_line(make_job: Callable[..., TrainJob], tmp_path: Path, capsys: Any) -> None:
    job = make_job()
    (job.mix_dir / "train.jsonl").write_text("", encoding="utf-8")
    assert main([str(job.save(tmp_path / "job.json"))]) == 1
    assert "empty" in capsys.readouterr().err


def test_killed_and_resumed_reaches_the_same_weights(
    make_job: Callable[..., TrainJob], trainers: Trainers, tmp_path: Path, soak: bool
) -> None:
    """SIGKILL, its newest checkpoint cut short, SIGINT: one training through all three; 5 of 5 under soak."""
    settings = {"epochs": 40 if soak else 24, "save_every": 5}
    whole = trainers.finish(make_job(home="whole", **settings), tmp_path / "whole.json")
    for round_ in range(5 if soak else 1):
        job = make_job(home=f"cut{round_}", **settings)
        # The second waits for a step that the first has not logged.
        for number, step, status in ((signal.SIGKILL, 11, -signal.SIGKILL), (signal.SIGINT, 30, 130)):
            pid = trainers.start(job, tmp_path / "job.json")
            wait_for_step(job, step + 17 * round_, partial(psutil.pid_exists, pid))
            assert trainers.end(pid, number) == status
            assert find_adapter(job) is None
            newest = last_whole_checkpoint(job.work_dir)
            assert newest is not None
            if number == signal.SIGKILL:
                optimizer = newest / "optimizer.pt"
                optimizer.write_bytes(optimizer.read_bytes()[:-100])
                assert last_whole_checkpoint(job.work_dir) not in (newest, None), "passed over"
        resumed = trainers.finish(job, tmp_path / "job.json")
        assert weights(resumed) == weights(whole), f"round {round_}"
        logs = [(folder / "training_log.jsonl").read_text(encoding="utf-8") for folder in (resumed, whole)]
        steps = [
            [line["step"] for line in map(json.loads, log.splitlines()) if line["kind"] == "train"] for log in logs
        ]
        assert steps[0] == steps[1] == list(range(1, len(steps[1]) + 1)) and len(steps[1]) == settings["epochs"] * 3


@pytest.mark.soak
def test_a_disk_that_fills_in_mid_training_loses_no_checkpoint(
    make_job: Callable[..., TrainJob], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    job = make_job(epochs=100, save_every=5)
    job.checkpoints_dir.mkdir(parents=True)
    disk = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", job.checkpoints_dir]
    if subprocess.run(disk, capture_output=True, check=False).returncode != 0:
        pytest.skip("no disk of its own can be mounted here")
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", job.checkpoints_dir], check=False))
    command = [sys.executable, "-m", "persona_dagster.training.train", str(job.save(tmp_path / "job.json"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_step(job, 12, lambda: process.poll() is None)
    with (job.checkpoints_dir / "others").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "the disk is full" in said.splitlines()[-1] and "Traceback" not in said
    assert find_adapter(job) is None
    kept = last_whole_checkpoint(job.work_dir)
    assert kept is not None
    (job.checkpoints_dir / "others").unlink()
    command[-1] = str(job.save(tmp_path / "job.json"))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and f"going on from step {kept.name.rpartition('-')[2]}" in again.stdout
    assert find_adapter(job) is not None


def test_samples_are_taken_and_judged(make_job: Callable[..., TrainJob]) -> None:
    folder = train(make_job(epochs=2, sample_every=3, on_trouble="warn"), QUIET)
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    samples = [line for line in log if line["kind"] == "sample"]
    assert [line["step"] for line in samples] == [3, 6] and all(len(line["answers"]) == 3 for line in samples)
