"""Each kind of trouble is seen when it is there, once, and not before."""

from __future__ import annotations

import math

import pytest

from persona_dagster.training.training_health import Watch, repetition


def test_a_healthy_training_is_left_alone() -> None:
    watch = Watch((0.6, 2.6))
    for step in range(60):
        assert watch.stepped(step, 2.8 - 0.03 * step, 1.0) is None
        if step % 10 == 0:
            assert watch.evaluated(step, 2.9 - 0.02 * step) is None
    assert watch.troubles == []


@pytest.mark.parametrize("loss, norm", [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_divergence_is_fatal(loss: float, norm: float) -> None:
    trouble = Watch(None).stepped(7, loss, norm)
    assert trouble is not None and trouble.kind == "diverged" and trouble.fatal and "learning_rate" in trouble.why


def test_memorising_is_judged_by_ten_steps_not_by_one() -> None:
    watch = Watch((0.6, 2.6))
    assert [watch.stepped(step, 0.1, 1.0) for step in range(9)] == [None] * 9
    trouble = watch.stepped(9, 0.1, 1.0)
    assert trouble is not None and trouble.kind == "memorising" and not trouble.fatal
    assert watch.stepped(10, 0.1, 1.0) is None, "said once"


def test_without_a_band_nothing_is_too_low() -> None:
    watch = Watch(None)
    assert all(watch.stepped(step, 0.01, 1.0) is None for step in range(30))


def test_evaluation_rising_while_train_falls_is_overfitting() -> None:
    watch = Watch(None)
    kinds = []
    for number, evaluation in enumerate((2.0, 1.7, 1.8, 1.9)):
        for step in range(10):
            watch.stepped(number * 10 + step, 2.0 - 0.4 * number, 1.0)
        trouble = watch.evaluated(number * 10, evaluation)
        kinds.append(trouble.kind if trouble else None)
    assert kinds == [None, None, None, "overfitting"]


def test_both_rising_is_not_called_overfitting() -> None:
    watch = Watch(None)
    for number, loss in enumerate((2.0, 2.2, 2.4, 2.6)):
        for step in range(10):
            watch.stepped(number * 10 + step, loss, 1.0)
        assert watch.evaluated(number * 10, loss) is None


def test_loops_and_identical_openings_are_collapse() -> None:
    healthy = ["先深呼吸，慢慢來，我陪你。", "注意力讓模型決定看哪裡。", "笑死，快封鎖。"]
    assert Watch(None).sampled(5, healthy) is None
    looping = Watch(None).sampled(5, ["抱抱你" * 20] * 2 + ["好的好的好的好的好的好的"])
    alike = Watch(None).sampled(5, [f"親愛的朋友你今天過得好不好{tail}" for tail in ("甲", "乙丙", "丁戊己")])
    assert looping is not None and looping.kind == "collapse"
    assert alike is not None and "open alike" in alike.why


def test_repetition_is_a_share() -> None:
    assert repetition(["一二三四五六七八"]) == 0
    assert repetition(["啊" * 100]) > 0.98
    assert repetition([]) == 0 and repetition(["短"]) == 0
