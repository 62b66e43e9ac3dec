"""Adversarial controls through the real measures and gates: nothing but human answers comes through.

What the packaged base makes of seed 0's texts is stored beside this file, under the name that the reader gives its
memory (which names weights and method): a digest of a text and nats a character, a line. Another reader, or a text that
is not there, is read anew; a soak test reads some again. To store anew: copy that file from the reader's folder.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Base, Recipe
from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.evaluation.fidelity import Judge, train_judge
from persona_dagster.evaluation.gates import Gate, judge_gates, verdict
from persona_dagster.evaluation.loss import LIKELIHOOD_SCHEMA
from persona_dagster.evaluation.measure import Material, measure
from persona_dagster.evaluation.reference_model_likelihood import CHARS, Reader
from persona_dagster.records import GENERATION_SCHEMA
from persona_dagster_tests.evaluation import controls

HERE = Path(__file__).parent
BASE = Base(model="gemma3-270m")
READ_ROWS = 12
SENSE = ("min_coherent", "min_words", "min_relevance", "min_fidelity_gain", "min_voice_over_chance")

# Each clause is language, near its question and in its voice: no gate of ours sees that two people speak in turn.
UNSEEN = ("every second clause another's",)

Run = Callable[..., dict[str, Gate]]


@pytest.fixture(scope="module")
def reader(models_dir: Path) -> Reader:
    made = Reader(BASE, models_dir)
    if (stored := HERE / made.path.name).is_file():
        shutil.copy(stored, made.path)
    return made


@pytest.fixture(scope="module")
def run(scorer: Scorer, recipe: Recipe, personas: Personas, reader: Reader) -> Run:
    @lru_cache(maxsize=1)
    def judge_of(learned: tuple[tuple[str, str, str], ...]) -> Judge | None:
        return train_judge(learned, list(personas.personas), scorer.sentences)

    def judged(frame: pl.DataFrame, made: controls.Sample, reader: Reader | None = reader) -> dict[str, Gate]:
        judge = judge_of(tuple((row.persona, row.question, row.answer) for row in made.train))
        material = Material(
            generations=frame,
            likelihoods=pl.DataFrame(schema=LIKELIHOOD_SCHEMA),
            train=made.train,
            test=made.test,
            validation=made.validation,
            human=made.train,
            personas=personas,
            judge=judge,
            max_new_tokens=recipe.evaluation.max_new_tokens,
            reader=reader,
            read_rows=READ_ROWS,
        )
        measured = measure(material, scorer)
        return {gate.name: gate for gate in judge_gates(measured.gated, recipe.evaluation.gates)}

    return judged


def shown(gates: dict[str, Gate]) -> str:
    return ", ".join(
        f"{gate.name} {gate.verdict} {gate.value:.2f} ({gate.low:.2f} to {gate.high:.2f})"
        for gate in gates.values()
        if gate.value is not None and gate.low is not None and gate.high is not None
    )


def check(seed: int, run: Run, personas: Personas) -> None:
    made = controls.sample(personas, seed)
    stored = controls.human(made)
    rng = random.Random(seed)
    for name, control in {"people": None, "other people": controls.said_again(made)}.items():
        gates = run(control(stored, rng) if control else stored, made)
        print(f"seed {seed}, {name}: {shown(gates)}")
        failed = [gate.name for gate in gates.values() if gate.verdict == "red"]
        assert not failed, f"human answers are red: {name}, {failed}"
        unsure = {gate for gate in SENSE if gates[gate].verdict != "green"}
        # Twelve answers are read: with two of them flawed, their number does not allow a green.
        assert unsure <= {"min_coherent"}, f"human answers are not green: {name}, {unsure}"
        assert (gates["min_coherent"].value or 0) > gates["min_coherent"].threshold
    red = {**controls.red(made), **controls.made_up(made)}
    # In one order, since they draw from one stream: what is stored of seed 0 holds.
    tried = {**controls.red(made), **controls.NEVER_GREEN, **controls.made_up(made), **controls.damaged(made)}
    passed = []
    for name, control in tried.items():
        gates = run(control(stored, rng), made)
        found = verdict(list(gates.values()))
        print(f"seed {seed}, {name}: {found}: {shown(gates)}")
        assert found != "green", name
        sensible = name not in UNSEEN and all(gates[gate].verdict == "green" for gate in SENSE)
        if found != "red" if name in red else sensible:
            passed.append(name)
    assert not passed


def test_no_control_comes_through(run: Run, personas: Personas) -> None:
    check(0, run, personas)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # what no seed before it held is read anew
@pytest.mark.parametrize("seed", range(1, 20))
def test_no_control_comes_through_with_any_seed(seed: int, run: Run, personas: Personas) -> None:
    check(seed, run, personas)


@pytest.mark.soak
def test_stored_scores_are_the_readers(personas: Personas, tmp_path: Path) -> None:
    fresh = Reader(BASE, tmp_path)
    stored = dict(json.loads(line) for line in (HERE / fresh.path.name).read_text(encoding="utf-8").splitlines())
    texts = [row.answer.strip()[:CHARS] for row in controls.sample(personas, 0).train]
    known = [text for text in texts if text_digest(text) in stored][:8]
    assert len(known) == 8
    for text, nats in zip(known, fresh(known), strict=True):
        assert nats == pytest.approx(stored[text_digest(text)], abs=1e-3)


def test_what_0_1_called_ready_is_not_language(run: Run, personas: Personas) -> None:
    """42 answers of the demo of tag v0.1.0 (SmolLM2 135M, by its own `python -m persona_dagster.defs.demo`), and its
    base's; the machine's time ended before the other 78."""
    frame = pl.read_ndjson(HERE / "v0.1.0.jsonl", schema=GENERATION_SCHEMA)
    assert set(frame["model"]) == {"base", "fewshot", "adapter"}
    gates = run(frame, controls.sample(personas, 0), None)  # no reader is needed to see it
    print(shown(gates))
    assert gates["min_coherent"].verdict == "red"
