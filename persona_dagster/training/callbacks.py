"""What happens between the steps of one training: figures, evaluation, samples, the watch, checkpoints, stops."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_dagster.artifacts import replacing, sync, write_json
from persona_dagster.models.adapter import save_weights
from persona_dagster.pipes_reporting import Reporter, progress
from persona_dagster.training.job_spec import TrainJob
from persona_dagster.training.rows import EncodedRow, batches
from persona_dagster.training.telemetry import Gauges
from persona_dagster.training.trainer import answer_loss
from persona_dagster.training.training_health import Trouble, Watch

if TYPE_CHECKING:
    from transformers import TrainerCallback

_WHOLE = "WHOLE.json"  # written last: a checkpoint without it was cut short
_PROGRESS_LINES = 12  # a training, in the event log


class TrainingLog:
    """training_log.jsonl: a line a logged step, evaluation, sample or trouble; it survives a resume."""

    def __init__(self, path: Path, writes: bool = True) -> None:
        """`writes`: false on all ranks but one, which keep the lines to themselves."""
        self.path, self.writes = path, writes
        self.lines: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Keeps the lines up to `step`: a resumed run writes the later ones again."""
        known = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        lines = (_parsed(line) for line in known)
        self.lines = [line for line in lines if line is not None and line["step"] <= step]
        if not self.writes:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")

    def write(self, kind: str, step: int, **values: Any) -> None:
        line = {"kind": kind, "step": step, **values}
        self.lines.append(line)
        if not self.writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((line for line in reversed(self.lines) if line["kind"] == kind), None)


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of the log; None for the last one of a run that was killed while writing it."""
    try:
        value: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return value


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose every file is there in full; a kill while saving leaves a lesser one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / _WHOLE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _mark_whole(checkpoint: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.is_file()}
    sync(checkpoint)
    write_json(checkpoint / _WHOLE, sizes)
    sync(checkpoint)


def evaluation_loss(model: Any, rows: Sequence[EncodedRow], pad_token_id: int, batch_size: int) -> float:
    """Mean negative log likelihood over the assistant's tokens of `rows`, nats a token. Draws no random number."""
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        with torch.no_grad():
            for batch in batches(rows, batch_size):
                width = max(len(row.input_ids) for row in batch)
                ids = torch.full((len(batch), width), pad_token_id)
                labels = torch.full((len(batch), width), -100)
                mask = torch.zeros((len(batch), width), dtype=torch.long)
                for position, row in enumerate(batch):
                    size = len(row.input_ids)
                    ids[position, :size] = torch.tensor(row.input_ids)
                    labels[position, :size] = torch.tensor(row.labels)
                    mask[position, :size] = 1
                count = int((labels[:, 1:] != -100).sum())
                inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
                inputs = {name: value.to(device) for name, value in inputs.items()}
                if device.type == "cpu" and hasattr(model, "get_base_model"):
                    loss = answer_loss(model, inputs)  # logits of the answers alone
                else:
                    loss = model(**inputs, use_cache=False).loss
                total += float(loss) * count
                tokens += count
    finally:
        model.train(was_training)
    return total / tokens


@dataclass
class Session:
    """One training's open ends: what the callback reads and writes, and what the program asks it afterwards."""

    job: TrainJob
    reporter: Reporter
    log: TrainingLog
    watch: Watch
    gauges: Gauges
    eval_rows: list[EncodedRow]
    pad_token_id: int
    sample: Callable[[Any], list[str]] | None = None  # short answers to the personas' probes
    interrupted: bool = False  # a signal came: save and stop at the end of this step
    loss_before: float = math.nan
    best_loss: float = math.inf
    best_step: int = 0
    stopped_by: Trouble | None = None
    tokens: int = 0
    seconds: float = 0.0
    unlogged_seconds: float = 0.0  # of steps since the last logged one; evaluation and saving are no part of it

    @property
    def best_dir(self) -> Path:
        return self.job.work_dir / "best"

    def evaluate(self, model: Any, step: int) -> None:
        started = time.monotonic()
        loss = evaluation_loss(model, self.eval_rows, self.pad_token_id, self.job.recipe.training.batch_size)
        self.log.write("eval", step, loss=loss, seconds=round(time.monotonic() - started, 2))
        if step == 0:
            self.loss_before = loss
            self.reporter.line(f"before: evaluation loss {loss:.3f} over {len(self.eval_rows)} rows")
        self._judge(self.watch.evaluated(step, loss))
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
            if step and is_main():
                with replacing(self.best_dir) as folder:
                    save_weights(model, folder, self.job.recipe.base)
                    write_json(folder / "best.json", {"step": step, "loss": loss})

    def best_is_saved(self) -> bool:
        """Whether `best_dir` holds the weights of `best_step`: not at step 0, where they are the base's own."""
        path = self.best_dir / "best.json"
        return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["step"] == self.best_step

    def restore(self) -> None:
        """The state of the watch and the best evaluation at the checkpoint, told again from the log."""
        for line in self.log.lines:
            if line["kind"] == "train":
                self.watch.stepped(line["step"], line["loss"], line["grad_norm"])
                self.tokens, self.seconds = line["tokens"], line["seconds"]
            elif line["kind"] == "eval":
                self.watch.evaluated(line["step"], line["loss"])
                if line["step"] == 0:
                    self.loss_before = line["loss"]
                if line["loss"] < self.best_loss:
                    self.best_loss, self.best_step = line["loss"], line["step"]

    def logged(self, step: int, max_steps: int, values: dict[str, Any], new_tokens: int) -> None:
        """One logged step: to the file, to Dagster a few times a training, to the watch."""
        passed, self.unlogged_seconds = self.unlogged_seconds, 0.0
        self.seconds += passed
        self.tokens += new_tokens
        speed = new_tokens / passed if passed else 0.0
        loss, norm = float(values["loss"]), float(values.get("grad_norm", 0.0))
        gauges = self.gauges.read()
        self.log.write(
            "train",
            step,
            loss=loss,
            grad_norm=norm,
            learning_rate=values["learning_rate"],
            epoch=values["epoch"],
            tokens=self.tokens,
            seconds=round(self.seconds, 3),
            tokens_per_s=round(speed, 1),
            **gauges,
        )
        progress("training steps", step, max_steps)
        if step % max(1, max_steps // _PROGRESS_LINES) == 0 or step == max_steps:
            self.reporter.line(self._progress(step, max_steps, loss, gauges))
        self._judge(self.watch.stepped(step, loss, norm))

    def _progress(self, step: int, max_steps: int, loss: float, gauges: dict[str, float]) -> str:
        """One line: losses, pace, what is left of time and, on a card, of energy."""
        last = self.log.last("eval")
        pace = self.seconds / step
        line = f"step {step}/{max_steps} loss {loss:.3f}" + (f" eval {last['loss']:.3f}" if last else "")
        line += f" ({pace:.1f} s/step, {pace * (max_steps - step):.0f} s left"
        if "power_w" in gauges:
            energy = self.gauges.energy_wh * max_steps / step
            line += f", {gauges['vram_gib']:.1f} GiB, {gauges['power_w']:.0f} W, {energy:.1f} Wh in all"
        return line + ")"

    def sampled(self, model: Any, step: int) -> None:
        if self.sample is None:
            return
        answers = self.sample(model)
        self.log.write("sample", step, answers=answers)
        self._judge(self.watch.sampled(step, answers))

    def _judge(self, trouble: Trouble | None) -> None:
        if trouble is None:
            return
        self.log.write("trouble", trouble.step, trouble=trouble.kind, why=trouble.why)
        self.reporter.warn(f"step {trouble.step}: {trouble.kind}: {trouble.why}")
        if trouble.fatal or self.job.recipe.training.on_trouble == "stop":
            self.stopped_by = self.stopped_by or trouble


def is_main() -> bool:
    """Whether this process writes files: the only one, or rank 0."""
    import torch.distributed as dist

    return not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0


def _agreed(flag: bool) -> bool:
    """True on all processes as soon as it is true on one: ranks that stop at different steps would wait for ever."""
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([int(flag)], device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def make_callback(session: Session) -> TrainerCallback:
    """The trainer's callback for `session`."""
    from transformers import TrainerCallback

    training = session.job.recipe.training

    class SessionCallback(TrainerCallback):
        def __init__(self) -> None:
            self.seen_tokens = 0
            self.step_began = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if math.isnan(session.loss_before):
                session.evaluate(model, state.global_step)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.step_began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs or not is_main():
                return
            tokens = int(logs.get("num_tokens", 0))
            session.logged(state.global_step, state.max_steps, logs, tokens - self.seen_tokens)
            self.seen_tokens = tokens

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            session.unlogged_seconds += time.monotonic() - self.step_began
            step = state.global_step
            if training.sample_every and step % training.sample_every == 0:
                session.sampled(model, step)
            if step % training.eval_every == 0 or step == state.max_steps:
                session.evaluate(model, step)
            # Saved at the end of the step that was under way, so that no work of it is lost.
            if _agreed(session.interrupted):
                session.interrupted = True
                control.should_save = control.should_training_stop = True
            if _agreed(session.stopped_by is not None):
                control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _agreed(False)  # a barrier: every rank has written its random state
            if is_main():
                _mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return SessionCallback()
