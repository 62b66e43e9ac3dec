"""What the QLoRA path really trains: nf4 by bitsandbytes' CPU backend, weights that learn in float32, ranks apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from persona_dagster.artifacts import RunCard
from persona_dagster.config.recipes import Recipe
from persona_dagster.models import base_model
from persona_dagster.models.base_model import load_base
from persona_dagster.models.hardware import Card
from persona_dagster.pipes_reporting import Reporter
from persona_dagster.training import train as program
from persona_dagster.training import trl_backend
from persona_dagster.training.callbacks import evaluation_loss
from persona_dagster.training.job_spec import JobError, TrainJob, find_adapter
from persona_dagster.training.rows import read_rows
from persona_dagster.training.train import sampler, train
from persona_dagster.training.trainer import check_quantised, make_trainer

pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install bitsandbytes")
pytestmark = pytest.mark.train


def nf4(job: TrainJob, compute_dtype: str = "float16") -> TrainJob:
    values = job.recipe.model_dump() | {"quantisation": {"scheme": "nf4", "compute_dtype": compute_dtype}}
    return job.model_copy(update={"recipe": Recipe.model_validate(values)})


def start(job: TrainJob, path: Path) -> subprocess.Popen[bytes]:
    """The program as Dagster starts it, but for its group."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "persona_dagster.training.train", str(job.save(path))]
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)


def test_weights_that_learn_are_float32(make_job: Callable[..., TrainJob]) -> None:
    """TRL makes those of a quantised base bfloat16, whatever was asked: the scaler of float16 refuses them."""
    job = nf4(make_job(gradient_checkpointing=True, max_steps=1), "float16")
    model, tokenizer = trl_backend.load(job.recipe, job.models_dir)
    check_quantised(job.recipe, model)
    rows = read_rows(job.mix_dir, "train", tokenizer, 512).rows
    extra = trl_backend.arguments(job.recipe)
    trainer = make_trainer(job.recipe, model, tokenizer, rows, folder=job.work_dir, callbacks=[], extra=extra)
    learning = {name: weight.dtype for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert learning and set(learning.values()) == {torch.float32}
    # And a sample taken in mid-training leaves every flag as it was.
    trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer.model.train()
    flags = _flags(trainer.model)
    assert any(checkpointing for _, _, checkpointing in flags)
    sampler(rows[:1], tokenizer, lambda asked: trl_backend.resume(job.recipe, asked))(trainer.model)
    evaluation_loss(trainer.model, rows[:1], tokenizer.pad_token_id, 1)
    assert _flags(trainer.model) == flags


def _flags(model: Any) -> list[tuple[str, bool, bool]]:
    return [
        (name, one.training, bool(getattr(one, "gradient_checkpointing", False))) for name, one in model.named_modules()
    ]


def test_a_base_that_is_not_in_4_bit_is_refused(make_job: Callable[..., TrainJob]) -> None:
    job = make_job()
    model, _ = trl_backend.load(job.recipe, job.models_dir)
    check_quantised(job.recipe, model)  # nothing was asked for
    with pytest.raises(JobError, match=r"14 of 14 adapted maps of tiny:llama .* pip install bitsandbytes"):
        check_quantised(nf4(job).recipe, model)


def test_it_trains_in_nf4(make_job: Callable[..., TrainJob]) -> None:
    """`capybara_qlora`'s path but for the card: TRL, nf4, float16 asked, checkpointing, chunked loss."""
    job = nf4(make_job("capybara_qlora", epochs=2, gradient_checkpointing=True, chunked_loss=True))
    folder = train(job, Reporter(None, quiet=True))
    card = json.loads((folder / "run_card.json").read_text(encoding="utf-8"))
    assert card["eval_loss_after"] < card["eval_loss_before"] and card["recipe"]["quantisation"]["scheme"] == "nf4"


def test_two_ranks_learn_what_one_learns(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    """torchrun by the recipe, gloo, nf4: two ranks of two rows make the step that one makes of four."""
    fixed = {"epochs": 2, "accumulation": 1, "eval_every": 100, "learning_rate": 5e-3, "warmup_steps": 0}
    one = nf4(make_job(home="one", batch_size=4, **fixed), "bfloat16")
    two = nf4(make_job(home="two", batch_size=2, processes=2, **fixed), "bfloat16")
    processes = [start(job, tmp_path / f"{job.recipe.training.processes}.json") for job in (one, two)]
    assert [process.wait(300) for process in processes] == [0, 0]
    losses = []
    for job in (one, two):
        folder = find_adapter(job)
        assert folder is not None
        card = RunCard.read(folder)
        assert card.steps == card.plan["steps"] == 6 and card.plan["effective_batch"] == 4
        lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append([value["loss"] for value in map(json.loads, lines) if value["kind"] in ("eval", "train")])
    assert len(losses[0]) == len(losses[1]) == 8
    print("most apart:", max(abs(one - two) for one, two in zip(*losses, strict=True)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] < losses[0][0] - 0.01, "the evaluation after, against the one before"


def test_each_rank_loads_on_its_own_card(monkeypatch: pytest.MonkeyPatch, make_job: Callable[..., TrainJob]) -> None:
    """The device that is asked for, of a driver that is not there."""
    asked: dict[str, Any] = {}

    def remember(_: str, **arguments: Any) -> Any:
        asked.update(arguments)
        raise OSError("no weights are needed")

    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", remember)
    monkeypatch.setattr(base_model, "cards", lambda: [Card(0, "Tesla T4", 14.6, 14.0, "GPU-a", (7, 5))])
    job = nf4(make_job(), "bfloat16")
    for rank in (0, 1, 3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        program._take_device()
        with pytest.raises(base_model.BaseModelError):
            load_base(job.recipe.base, job.models_dir, job.recipe.quantisation)
        assert asked["device_map"] == {"": rank}
    assert asked["dtype"] == asked["quantization_config"].bnb_4bit_compute_dtype == torch.float16, (
        "a T4 has no bfloat16"
    )
