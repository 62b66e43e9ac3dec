"""The trainer program: one job in, one published adapter out, in its own process.

    python -m persona_dagster.training.train JOB.json

Under Dagster it speaks Pipes; alone it prints. SIGINT and SIGTERM save a checkpoint and end with status 130;
the next start of the same job goes on from there.
"""

from __future__ import annotations

import base64
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from filelock import FileLock

from persona_dagster.artifacts import RunCard, write_json
from persona_dagster.digest import keyed_hash
from persona_dagster.models.adapter import save_weights
from persona_dagster.models.base_model import BaseModelError, base_revision
from persona_dagster.models.hardware import VISIBLE, cards, rank_device
from persona_dagster.pipes_reporting import Reporter, open_reporter
from persona_dagster.settings import PROJECT_ROOT
from persona_dagster.training.callbacks import (
    Session,
    TrainingLog,
    evaluation_loss,
    is_main,
    last_whole_checkpoint,
    make_callback,
)
from persona_dagster.training.curves import draw_curves
from persona_dagster.training.isolation import lend_cards
from persona_dagster.training.job_spec import (
    JobError,
    TrainJob,
    adapter_digest,
    adapters,
    find_adapter,
    mix_digest,
    recipe_digest,
)
from persona_dagster.training.plan import TrainingPlan, make_plan
from persona_dagster.training.preflight import check_machine, check_memory, check_rows
from persona_dagster.training.rows import EncodedRow, Rows, read_rows
from persona_dagster.training.telemetry import Gauges
from persona_dagster.training.trainer import check_quantised, make_trainer
from persona_dagster.training.training_health import Watch

_FIGURES = (
    "eval_loss_before",
    "eval_loss_after",
    "eval_loss_drop",
    "train_loss",
    "gap",
    "seconds",
    "seconds_per_step",
    "tokens_per_s",
    "peak_memory_gib",
    "energy_wh",
)
_SAMPLES = 3
_FULL_BYTES = 1 << 20  # a disk with less has no room for a checkpoint
_SAMPLE_TOKENS = 40
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "unsloth", "datasets")


class TrainingFailedError(RuntimeError):
    """The weights are lost: nothing is published; the message says why and what to change."""


class InterruptedTrainingError(RuntimeError):
    """A signal ended the training; its checkpoint is saved."""


def train(job: TrainJob, reporter: Reporter) -> Path:
    """The published adapter of `job`: found, or trained now.

    Raises:
        JobError, BaseModelError: before the first step, for what cannot be trained.
        TrainingFailedError: loss or gradients became NaN or infinite.
        InterruptedTrainingError: SIGINT or SIGTERM; start the same job again to go on.
    """
    if not _is_rank_zero():
        return find_adapter(job) or _train(job, reporter)
    job.work_dir.parent.mkdir(parents=True, exist_ok=True)
    # Two processes with one job would share its checkpoints; the second finds the adapter when its turn comes.
    with FileLock(f"{job.work_dir}.lock"):
        folder = find_adapter(job)
        if folder is not None:
            reporter.line(f"{job.recipe.name}: nothing changed since {folder.name} was trained")
        else:
            check_machine(job)
            with _own_cards(job, reporter):
                folder = _train(job, reporter)
        adapters(job).point(folder.name)
    return folder


def _train(job: TrainJob, reporter: Reporter) -> Path:
    recipe = job.recipe
    started = time.monotonic()
    backend = importlib.import_module(f"persona_dagster.training.{recipe.backend}_backend")
    backend.prepare()
    _quiet_libraries()
    _take_device()
    _seed(recipe.training.seed)
    model, tokenizer = backend.load(recipe, job.models_dir)
    train_rows = read_rows(job.mix_dir, "train", tokenizer, recipe.training.max_length)
    held_rows = read_rows(job.mix_dir, "validation", tokenizer, recipe.training.max_length)
    check_rows(recipe, train_rows, "train")
    check_rows(recipe, held_rows, "validation")
    plan = make_plan(recipe, train_rows.lengths, [row.pair_id for row in train_rows.rows])
    reporter.line(_planned(job, plan, train_rows, time.monotonic() - started))

    check_quantised(recipe, model)
    here = cards() if _on_cuda(model) else []
    log = TrainingLog(job.work_dir / "training_log.jsonl")
    checkpoint = last_whole_checkpoint(job.work_dir)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    with Gauges([card.index for card in here]) as gauges, backend.shortcut(recipe, model, tokenizer):
        session = Session(
            job=job,
            reporter=reporter,
            log=log,
            watch=Watch(recipe.healthy_loss.get(recipe.base.model)),
            gauges=gauges,
            eval_rows=choose(held_rows.rows, recipe.training.eval_rows),
            pad_token_id=tokenizer.pad_token_id,
            sample=sampler(choose(held_rows.rows, _SAMPLES), tokenizer, partial(backend.resume, recipe))
            if recipe.training.sample_every
            else None,
        )
        # Beside the checkpoints, which go once the adapter is there.
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.checkpoints_dir / "tensorboard" / job.work_dir.name)
        trainer = make_trainer(
            recipe,
            model,
            tokenizer,
            train_rows.rows,
            folder=job.work_dir,
            callbacks=[make_callback(session)],
            extra=backend.arguments(recipe),
        )
        log.writes = is_main()
        log.rewind(step if checkpoint else -1)
        if checkpoint:
            session.restore()
            reporter.line(f"going on from step {step}")
        with _signals_stop(session):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _raise_unless_whole(session, trainer.state)
        stops = recipe.training.on_trouble == "stop"
        use_best = stops and session.best_step < trainer.state.global_step and session.best_is_saved()
        if use_best:
            _load_best(trainer.model, session.best_dir)
        learnt = choose(train_rows.rows, recipe.training.eval_rows)
        train_loss = evaluation_loss(trainer.model, learnt, tokenizer.pad_token_id, recipe.training.batch_size)
        results = _results(session, trainer.state, train_loss, use_best, time.monotonic() - started)
    if is_main():
        rows = {
            "train": [row.row_id for row in train_rows.rows],
            "eval": [row.row_id for row in session.eval_rows],
            "dropped": [*train_rows.dropped, *held_rows.dropped],
            "cut": [*train_rows.cut, *held_rows.cut],
        }
        _publish(session, trainer.model, tokenizer, rows, {"plan": plan.as_dict(), **results})
    return job.out_dir / adapter_digest(job)


def sampler(rows: Sequence[EncodedRow], tokenizer: Any, resume: Callable[[Any], None]) -> Callable[[Any], list[str]]:
    """What answers these rows' first prompts, greedily and briefly, with the model as it stands.

    `resume` is the backend's own way back to training: Unsloth's `generate` switches gradient checkpointing off, and
    after a plain `eval()` it stays off.
    """
    import torch

    prompts = [row.input_ids[: next(place for place, label in enumerate(row.labels) if label != -100)] for row in rows]

    def sample(model: Any) -> list[str]:
        model.eval()
        answers = []
        for prompt in prompts:
            # One at a time, whole rows each step: the remembered prefix knows rows, no caches of keys and values.
            ids = torch.tensor([prompt], device=model.device)
            with torch.no_grad():
                whole = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=_SAMPLE_TOKENS,
                    do_sample=False,
                    use_cache=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            answers.append(tokenizer.decode(whole[0, len(prompt) :], skip_special_tokens=True))
        resume(model)
        return answers

    return sample


def _is_rank_zero() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _launch_processes(job: TrainJob, path: str, reporter: Reporter) -> None:
    """This very process becomes torchrun, which starts one trainer a device: gloo on CPUs, NCCL on cards.

    The locks on the cards outlive the exec.
    """
    check_machine(job)
    count = str(job.recipe.training.processes)
    module = ["-m", "persona_dagster.training.train", path]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    with _own_cards(job, reporter):
        os.execv(sys.executable, [sys.executable, *launcher, *module])


@contextmanager
def _own_cards(job: TrainJob, reporter: Reporter) -> Iterator[None]:
    """As many cards as the recipe has processes, for this training alone, and no other visible to it; nothing on a
    machine without one, and nothing in a rank, whose launcher has them."""
    here = cards()
    if not here or "RANK" in os.environ:
        yield
        return
    before = {name: os.environ.get(name) for name in (VISIBLE, "CUDA_DEVICE_ORDER")}
    with lend_cards(job.recipe.training.processes, here, say=reporter.line) as lent:
        os.environ |= {VISIBLE: ",".join(card.uuid for card in lent), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        check_memory(job.recipe, cards())  # as it is now: whoever had a card has given it back
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _take_device() -> None:
    """Each rank works on the card of its number: without this all of them load on the first."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank_device())


def choose(rows: Sequence[EncodedRow], most: int) -> list[EncodedRow]:
    """At most `most` rows, in turn from each persona, by keyed hash: the same rows on every machine and run."""
    by_persona: dict[str, list[EncodedRow]] = {}
    for row in sorted(rows, key=lambda row: keyed_hash("eval", row.row_id)):
        by_persona.setdefault(row.persona, []).append(row)
    in_turn = chain.from_iterable(zip_longest(*(by_persona[name] for name in sorted(by_persona))))
    return [row for row in in_turn if row is not None][:most]


def _quiet_libraries() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _seed(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)


def _on_cuda(model: Any) -> bool:
    return bool(next(model.parameters()).device.type == "cuda")


def _planned(job: TrainJob, plan: TrainingPlan, rows: Rows, seconds: float) -> str:
    recipe = job.recipe
    return (
        f"{recipe.name}: {recipe.base.model} by {recipe.backend}, {plan.rows} rows ({len(rows.dropped)} dropped, "
        f"{len(rows.cut)} cut), {plan.steps} steps of {plan.effective_batch} rows, {plan.tokens} tokens, "
        f"{plan.padding_share:.0%} padding; loaded in {seconds:.1f} s"
    )


@contextmanager
def _signals_stop(session: Session) -> Iterator[None]:
    """SIGINT and SIGTERM ask for a checkpoint at the end of the step; a second SIGINT ends at once, as usual.

    SIGTERM may come twice, from Slurm and from torchrun, and means no more than once.
    """

    def stop(number: int, _: Any) -> None:
        session.interrupted = True
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_unless_whole(session: Session, state: Any) -> None:
    trouble = session.stopped_by
    if trouble is not None and trouble.fatal:
        # Its checkpoints hold NaN too: going on from them would fail again.
        if is_main():
            shutil.rmtree(session.job.work_dir, ignore_errors=True)
        raise TrainingFailedError(f"{session.job.recipe.name}, step {trouble.step}: {trouble.why}")
    if session.interrupted and state.global_step < state.max_steps:
        raise InterruptedTrainingError(
            f"stopped at step {state.global_step} of {state.max_steps}; its checkpoint is saved"
        )


def _load_best(model: Any, folder: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))


def _results(session: Session, state: Any, train_loss: float, use_best: bool, seconds: float) -> dict[str, Any]:
    """The figures of a training, losses in nats a token, over fixed rows, of the weights that are published."""
    last = session.log.last("eval")
    after = session.best_loss if use_best or last is None else last["loss"]
    train_seconds = max(session.seconds, 1e-9)
    return {
        "eval_loss_before": session.loss_before,
        "eval_loss_after": after,
        "eval_loss_drop": 1 - after / session.loss_before,
        "eval_loss_best": session.best_loss,
        "best_step": session.best_step,
        "published_step": session.best_step if use_best else state.global_step,
        "train_loss": train_loss,
        "gap": after - train_loss,
        "steps": state.global_step,
        "planned_steps": state.max_steps,
        "seconds": round(seconds, 1),
        "train_seconds": round(train_seconds, 1),
        "seconds_per_step": round(train_seconds / max(state.global_step, 1), 3),
        "tokens": session.tokens,
        "tokens_per_s": round(session.tokens / train_seconds, 1),
        "peak_memory_gib": round(session.gauges.peak_gib, 3),
        "energy_wh": round(session.gauges.energy_wh, 3),
        "troubles": [{"kind": t.kind, "step": t.step, "why": t.why} for t in session.watch.troubles],
        "stopped_by": session.stopped_by.kind if session.stopped_by else None,
    }


def _publish(session: Session, model: Any, tokenizer: Any, rows: dict[str, list[str]], figures: dict[str, Any]) -> None:
    """Weights, tokenizer, card, log and curves, whole or not at all; the checkpoints have then done their work."""
    job, digest = session.job, adapter_digest(session.job)
    with adapters(job).publishing(digest) as folder:
        save_weights(model, folder, job.recipe.base)
        tokenizer.save_pretrained(folder)
        shutil.copy2(session.log.path, folder / "training_log.jsonl")
        (folder / "curves.png").write_bytes(draw_curves(session.log.lines, job.recipe.title))
        write_json(folder / "rows.json", rows)  # which rows it saw: what `forget` and `trace` ask
        card = RunCard(
            digest=digest,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=job.recipe.model_dump(mode="json"),
            recipe_digest=recipe_digest(job.recipe),
            mix_digest=mix_digest(job.mix_dir),
            base_model=job.recipe.base.model,
            base_revision=base_revision(job.recipe.base),
            dtype=str(model.get_input_embeddings().weight.dtype).removeprefix("torch."),
            **figures,
            versions={name: version for name in _LIBRARIES if (version := _version(name))},
            python=platform.python_version(),
            machine={"cards": [card.name for card in cards()], "processor": platform.machine()},
            git_commit=_git_commit(),
            extras=job.extras,
        )
        card.write(folder)
    shutil.rmtree(job.work_dir, ignore_errors=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None when it is installed without one."""
    if not (PROJECT_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def adapter_metadata(folder: Path) -> dict[str, Any]:
    """What Dagster shows of a published adapter: figures and curves, no text."""
    card = RunCard.read(folder)
    picture = base64.b64encode((folder / "curves.png").read_bytes()).decode()
    troubles = "; ".join(f"{t['kind']} at step {t['step']}: {t['why']}" for t in card.troubles) or "none"
    return {
        **{name: {"raw_value": float(f"{getattr(card, name):.6g}"), "type": "float"} for name in _FIGURES},
        "steps": {"raw_value": card.steps, "type": "int"},
        "rows": {"raw_value": card.plan["rows"], "type": "int"},
        "loss_curve": {"raw_value": f"![loss](data:image/png;base64,{picture})", "type": "md"},
        "troubles": {"raw_value": troubles, "type": "text"},
        "adapter": {"raw_value": str(folder), "type": "path"},
        "base_model": {"raw_value": card.base_model, "type": "text"},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) != 1:
        sys.stderr.write("usage: python -m persona_dagster.training.train JOB.json\n")
        return 2
    job = TrainJob.load(Path(words[0]))
    with open_reporter() as reporter:
        try:
            if job.recipe.training.processes > 1 and "RANK" not in os.environ and find_adapter(job) is None:
                _launch_processes(job, words[0], reporter)
            folder = train(job, reporter)
        except (InterruptedTrainingError, KeyboardInterrupt) as stopped:
            reporter.line(f"{job.recipe.name}: {stopped or 'stopped before the first step'}")
            return 130
        except (JobError, BaseModelError, TrainingFailedError) as error:
            reporter.warn(str(error))
            sys.stderr.write(f"error: {error}\n")
            return 1
        except Exception as error:
            # torch, safetensors and the file system each have an error of their own for it.
            if shutil.disk_usage(job.checkpoints_dir).free > _FULL_BYTES and "No space left" not in str(error):
                raise
            where = f"{job.checkpoints_dir}: the disk is full ({error})"
            sys.stderr.write(f"error: {where}; make room and start again: it goes on from its last checkpoint\n")
            return 1
        if not _is_rank_zero():
            return 0  # rank 0 may still be publishing, and speaks for all
        card = RunCard.read(folder)
        reporter.line(
            f"{job.recipe.name}: evaluation loss {card.eval_loss_before:.3f} → {card.eval_loss_after:.3f}, "
            f"train loss {card.train_loss:.3f}, {card.seconds:.0f} s; {folder}"
        )
        reporter.finish(adapter_metadata(folder), folder.name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
