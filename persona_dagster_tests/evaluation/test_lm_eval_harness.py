"""lm-eval over our own probes, on a tiny random model: the harness chooses what our own scorer chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.config.recipes import Base
from persona_dagster.evaluation.lm_eval_harness import OWN, HarnessError, own_task, run_tasks
from persona_dagster.evaluation.loss import IGNORED, batch_nats
from persona_dagster.evaluation.prompts import knowledge
from persona_dagster.models.base_model import load_base

PROBES = knowledge(12)


def test_the_harness_chooses_what_our_scorer_chooses(models_dir: Path) -> None:
    pytest.importorskip("lm_eval")
    model, tokenizer = load_base(Base(model="tiny:llama", dtype="float32"), models_dir)
    model.eval()
    found = run_tasks(model, tokenizer, [own_task(PROBES)], batch_size=4)[OWN]
    right = []
    for probe in PROBES:
        asked = tokenizer(f"{probe.prompt}\n", add_special_tokens=False)["input_ids"]
        said = [
            tokenizer(probe.say.format(text), add_special_tokens=False)["input_ids"]
            for text in (probe.answer, *probe.wrong)
        ]
        ids = [asked + row for row in said]
        labels = [[IGNORED] * len(asked) + row for row in said]
        nats = [value for value, _ in batch_nats(model, ids, labels, tokenizer.pad_token_id)]
        right.append(nats.index(min(nats)) == 0)
    accuracy = sum(right) / len(right)
    assert 0 < accuracy < 1, "a model that is always right, or never, would show nothing"
    assert found["acc"] == pytest.approx(accuracy, abs=1e-4)
    assert found["acc_stderr"] == pytest.approx((accuracy * (1 - accuracy) / (len(right) - 1)) ** 0.5, abs=1e-4)


def test_a_task_that_cannot_be_had_says_so(models_dir: Path) -> None:
    pytest.importorskip("lm_eval")
    model, tokenizer = load_base(Base(model="tiny:llama", dtype="float32"), models_dir)
    with pytest.raises(HarnessError, match="no_such_task"):
        run_tasks(model, tokenizer, ["no_such_task"])
