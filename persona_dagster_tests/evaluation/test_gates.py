"""Gates can fail a bad model: outputs of five bad models, each caught by its gate, beside one good model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from persona_dagster.config.recipes import Gates, Recipe
from persona_dagster.digest import text_digest
from persona_dagster.evaluation import coherence
from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.evaluation.bootstrap import NOTHING, Interval
from persona_dagster.evaluation.gates import GATES, Gate, judge, judge_gates, verdict
from persona_dagster.evaluation.measure import Material, measure
from persona_dagster.evaluation.prompts import Prompt, load_probes
from persona_dagster_tests.evaluation.conftest import ramble
from persona_dagster_tests.evaluation.material import TRAIN, VOICES

# Held-out human answers stand for a good model: right voice, own words, whole.
GOOD = {voice: [answer for _, answer in pairs[TRAIN:]] for voice, pairs in VOICES.items()}
LEARNT = {voice: [answer for _, answer in pairs[:TRAIN]] for voice, pairs in VOICES.items()}


def own(prompt: Prompt, answer: str) -> str:
    """The answer with words of its own for each prompt: one that is given twice is a flaw."""
    return f"{answer}（第{int(text_digest(prompt.suite, prompt.prompt_id)[:6], 16) % 9000}則）"


def good(prompt: Prompt) -> str:
    answers = GOOD.get(prompt.asked)
    if answers is None:
        return f"The answer to {prompt.prompt_id} is well known."
    place = sum(map(ord, prompt.suite + prompt.prompt_id))
    return own(prompt, answers[place % len(answers)])


def reciting(prompt: Prompt) -> str:
    answers = LEARNT.get(prompt.asked)
    return answers[sum(map(ord, prompt.prompt_id)) % len(answers)] if answers else good(prompt)


def looping(prompt: Prompt) -> str:
    return good(prompt)[:10] + "我會一直陪你" * 12


def deaf_to_tags(prompt: Prompt) -> str:
    return good(prompt) if prompt.asked not in GOOD else own(prompt, GOOD["mentor"][len(prompt.prompt_id) % 6])


def leaking(prompt: Prompt) -> str:
    return f"[感性感情導師] {good(prompt)}\n推 someone123: 好文 11/05 23:41"


Judged = Callable[..., dict[str, Gate]]


@pytest.fixture(scope="module")
def judged(make_material: Callable[..., Material], hashed: Scorer, recipe: Recipe) -> Judged:
    def run(*arguments: object, **keywords: object) -> dict[str, Gate]:
        # The models made here have six answers a voice for all prompts; test_coherence.py holds that to be a flaw.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coherence, "said_before", lambda answers, questions: [False] * len(answers))
            measured = measure(make_material(*arguments, **keywords), hashed)
        return {gate.name: gate for gate in judge_gates(measured.gated, recipe.evaluation.gates)}

    return run


# Answers out of a list are about nothing, and nobody examined the judge: test_controls.py measures these.
ELSEWHERE = {"min_words", "min_relevance", "min_judge_accuracy", "min_preference", "min_coherent"}


def red(gates: dict[str, Gate]) -> set[str]:
    return {name for name, gate in gates.items() if gate.verdict == "red"} - ELSEWHERE


def test_a_good_model_passes_every_gate(judged: Judged) -> None:
    gates = judged(good)
    assert {name: gate.verdict for name, gate in gates.items() if name not in ELSEWHERE} == dict.fromkeys(
        gates.keys() - ELSEWHERE, "green"
    )


def test_an_untrained_adapter_gains_nothing(judged: Judged) -> None:
    assert red(judged(ramble, losses=(3.0, 3.0, 3.0))) >= {"min_fidelity_gain", "min_loss_gain"}


def test_a_memorising_model_is_caught_twice(judged: Judged) -> None:
    gates = judged(reciting, losses=(3.0, 2.9, 0.4))
    assert red(gates) >= {"max_verbatim", "max_train_test_gap"}
    assert gates["max_verbatim"].value == pytest.approx(1, abs=0.15)


def test_a_looping_model_repeats_itself_and_breaks(judged: Judged) -> None:
    assert red(judged(looping)) >= {"max_repetition", "max_broken"}


def test_one_voice_for_all_ignores_its_tags(judged: Judged) -> None:
    gates = judged(deaf_to_tags)
    assert gates["min_tag_obedience"].verdict != "green"
    assert gates["min_tag_obedience"].value == pytest.approx(1 / 3, abs=0.07)
    assert gates["min_voice_over_chance"].verdict != "green"
    assert gates["min_voice_over_chance"].value == pytest.approx(0, abs=0.02)


def any_voice(prompt: Prompt) -> str:
    """A person's answer in a voice drawn by lot."""
    if prompt.asked not in GOOD:
        return good(prompt)
    drawn = text_digest(prompt.suite, prompt.prompt_id)
    answers = GOOD[sorted(GOOD)[int(drawn[:8], 16) % len(GOOD)]]
    return own(prompt, answers[int(drawn[8:], 16) % len(answers)])


def test_the_right_language_in_any_voice_is_no_voice(judged: Judged) -> None:
    """Its base speaks no Chinese: it gains on that, and nothing over chance."""
    gates = judged(any_voice)
    assert gates["min_fidelity_gain"].verdict == "green"
    assert gates["min_voice_over_chance"].verdict != "green"
    assert gates["min_voice_over_chance"].value == pytest.approx(0, abs=0.15)


def test_a_model_that_follows_the_topic_ignores_its_tags(judged: Judged) -> None:
    # On test rows tag and topic agree: only the contradicting prompts can tell.
    topics = {f"contradiction-{n:02d}": probe["topic"] for n, probe in enumerate(load_probes("contradiction"))}

    def by_topic(prompt: Prompt) -> str:
        return good(replace(prompt, asked=topics.get(prompt.prompt_id, prompt.asked)))

    gates = judged(by_topic)
    assert red(gates) == {"min_tag_obedience"}
    assert gates["min_tag_obedience"].value == 0


def test_a_model_of_nans_is_red(judged: Judged) -> None:
    gates = judged(good, losses=(3.0, float("nan"), float("nan")), knows=float("nan"))
    assert red(gates) == {"min_loss_gain", "max_train_test_gap", "max_forgetting"}


def test_a_leaking_model_leaves_residue(judged: Judged) -> None:
    assert "max_residue" in red(judged(leaking))


def test_a_forgetful_model_loses_knowledge(judged: Judged) -> None:
    assert red(judged(good, knows=0.5)) == {"max_forgetting"}


def test_identical_openings_are_caught(judged: Judged) -> None:
    assert "max_identical_openings" in red(judged(lambda prompt: f"首先，我真的很想跟你說，{good(prompt)}"))


def interval(value: float, low: float, high: float, enough: bool = True) -> Interval:
    return Interval(value, low, high, 30 if enough else 3, enough)


@pytest.mark.parametrize(
    ("measured", "bound", "expected"),
    [
        (interval(0.2, 0.1, 0.3), "above", "green"),
        (interval(0.2, -0.1, 0.3), "above", "amber"),
        (interval(0.0, 0.0, 0.0), "above", "red"),  # an adapter that changes nothing
        (interval(-0.2, -0.3, -0.1), "above", "red"),
        (interval(-0.2, -0.3, -0.1), "at most", "green"),
        (interval(0.2, 0.1, 0.3), "at most", "red"),
        (interval(0.2, 0.1, 0.3), "at least", "green"),
        (interval(0.9, 0.8, 1.0, enough=False), "above", "amber"),
        (interval(0.9, 0.8, 1.0, enough=False), "at most", "amber"),
        (NOTHING, "at most", "amber"),
        *(
            (interval(float("nan"), float("nan"), float("nan")), bound, "red")
            for bound in ("at most", "at least", "above")
        ),
    ],
)
def test_verdicts(measured: Interval, bound: str, expected: str) -> None:
    assert judge(measured, 0.0, bound)[0] == expected  # type: ignore[arg-type]


def test_every_threshold_has_a_gate_and_none_means_not_judged() -> None:
    assert set(GATES) == set(Gates.model_fields)
    nothing = Gates(**dict.fromkeys(Gates.model_fields))
    assert judge_gates({}, nothing) == []
    assert verdict([]) == "green"
