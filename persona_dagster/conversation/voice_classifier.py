"""Voices learned from examples: how likely an answer to a question is one that a persona would want to learn from.

A voice is dense weights over vectors of answer and question: the encoder reads the answer, and of the question the mean
of its token embeddings has to do. (An encoder that reads the question before the answer adds .02 of average precision
on ../shared/labels, within their noise, at four times the work.) The weights are fitted on the persona's example lines
and near misses and on labels (`persona review`); those of the packaged personas were fitted on labelled rows of real
forums beforehand (voices.npz holds weights, row numbers and no text; `benchmarks/voices.py --package` makes it), and
labels of one's own move them from there. A first stage over static vectors, which cost nearly nothing, leaves the
encoder the few pairs that could be chosen at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from persona_dagster import artifacts
from persona_dagster.config.personas import Persona, Personas
from persona_dagster.digest import json_digest
from persona_dagster.models.embedding_cache import Floats, Vectors

VOICES_VERSION = "2"
PACKAGED_WEIGHTS = Path(__file__).parent / "voices.npz"

QUESTION_CHARS = 250  # what a question is about stands at its start
QUESTION_WEIGHT, STATIC_WEIGHT = 0.7, 0.7  # of the blocks beside the answer's; by cross-validation on the labels
STRENGTH = 2.0  # inverse regularisation (sklearn's C) of a voice learned from scratch
PULL = 1.0  # the same for labels that move packaged weights
WANTED_PRECISION = 0.85  # where a voice learned from examples alone puts its threshold
KEEP = 0.05  # share of pairs that the first stage passes on, by persona: of labelled rows chosen, none is lost at 0.02
FEW = 4000  # pairs; up to here the encoder reads them all: a first stage over so few saves minutes, and loses voices

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """A voice: probability = sigmoid(weights · features + bias); chosen from `threshold` on."""

    weights: Floats
    bias: float
    threshold: float

    def logits(self, features: Floats) -> Scores:
        return (features @ self.weights).astype(np.float64) + self.bias

    def probability(self, features: Floats) -> Scores:
        return 1 / (1 + np.exp(-self.logits(features)))


@dataclass(frozen=True)
class Labelled:
    """Rows with a known voice: persona, or None for no voice; `weight` of each in fitting. `unsafe`: not to be used,
    whatever their voice."""

    questions: list[str]
    answers: list[str]
    personas: list[str | None]
    weight: float = 1.0
    unsafe: list[bool] = field(default_factory=list)

    def known(self) -> dict[tuple[str, str], str | None]:
        """What people said of an exchange: nobody's where it is unsafe."""
        unsafe = self.unsafe or [False] * len(self.answers)
        rows = zip(self.questions, self.answers, self.personas, unsafe, strict=True)
        return {(question, answer): None if bad else persona for question, answer, persona, bad in rows}


class Voices:
    """The voices of all personas over one encoder.

    Packaged weights are used where they were fitted over this encoder and the persona is the packaged one.
    """

    def __init__(
        self,
        personas: Personas,
        vectors: Vectors,
        labels: Labelled | None = None,
        weights: Path | None = PACKAGED_WEIGHTS,
    ) -> None:
        self.personas, self.vectors, self.labels = personas.personas, vectors, labels
        packaged = read_packaged(weights) if weights else None
        self.packaged = packaged if packaged and packaged.encoder == vectors.name else None

    @cached_property
    def digest(self) -> str:
        """Of all that a score depends on."""
        packaged = self.packaged.digest if self.packaged else ""
        labels = [*self.labels.known().items()] if self.labels else []
        lines = {name: _lines(persona) for name, persona in self.personas.items()}
        return json_digest([VOICES_VERSION, self.vectors.name, packaged, labels, lines])

    def scores(
        self, questions: Sequence[str], answers: Sequence[str], hints: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        """A column a persona: probabilities 0 to 1, null where the first stage ruled the pair out.

        `hints`: nats a persona that speak for a pair from elsewhere; they help it through the first stage only.
        """
        if not questions:
            return pl.DataFrame(schema=dict.fromkeys(self.personas, pl.Float64))
        passed = self._first_stage(questions, answers, hints)
        found = np.full((len(questions), len(self.fitted)), np.nan)
        if passed.any():
            rows = [int(row) for row in np.flatnonzero(passed)]
            features = self.features([questions[row] for row in rows], [answers[row] for row in rows])
            for column, voice in enumerate(self.fitted.values()):
                found[rows, column] = voice.probability(features)
        known = self.labels.known() if self.labels else {}
        for row, exchange in enumerate(zip(questions, answers, strict=True)):
            if exchange in known:  # what was read is not guessed
                found[row] = [float(name == known[exchange]) for name in self.fitted]
        return pl.DataFrame(dict(zip(self.fitted, found.T, strict=True)), nan_to_null=True)

    def threshold(self, name: str) -> float:
        """From which probability on a pair has the voice."""
        return self.fitted[name].threshold

    def features(self, questions: Sequence[str], answers: Sequence[str]) -> Floats:
        """(n, 3 widths): what voices weigh."""
        static = self.static_features(questions, answers)
        return np.hstack([_block(self.centre, "answer", self.vectors.contextual(answers)), static])

    def static_features(self, questions: Sequence[str], answers: Sequence[str]) -> Floats:
        """(n, 2 widths): what the first stage weighs."""
        asked = self.vectors.static([text[:QUESTION_CHARS] for text in questions])
        static = STATIC_WEIGHT * _block(self.centre, "static", self.vectors.static(answers))
        return np.hstack([static, QUESTION_WEIGHT * _block(self.centre, "question", asked)])

    def lines(self, name: str) -> tuple[list[str], list[str], npt.NDArray[np.bool_]]:
        """Questions, answers, and which are right: the persona's lines, not its near misses, nor any line of others."""
        own = [(line, True) for line in self.personas[name].examples]
        own += [(line, False) for line in self.personas[name].near_misses]
        for other, persona in self.personas.items():
            if other != name:
                own += [(line, False) for line in (*persona.examples, *persona.near_misses)]
        return [q for (q, _), _ in own], [a for (_, a), _ in own], np.array([right for _, right in own])

    def nearest(self, name: str, answers: Sequence[str], most: int = 2) -> list[list[str]]:
        """Of each answer the example answers of the persona that are most like it."""
        examples = [answer for _, answer in self.personas[name].examples]
        own, others = (_block(self.centre, "answer", self.vectors.contextual(texts)) for texts in (examples, answers))
        return [[examples[place] for place in np.argsort(-row)[:most]] for row in others @ own.T]

    @cached_property
    def fitted(self) -> dict[str, Weights]:
        return {name: self._fit(name) for name in self.personas}

    def _fit(self, name: str) -> Weights:
        packaged = self.packaged
        if packaged and packaged.examples.get(name) == json_digest(_lines(self.personas[name])):
            known = packaged.voices[name]
            return known if self.labels is None else moved(known, *self._labelled(name, self.labels))
        questions, answers, positive = self.lines(name)
        features = self.features(questions, answers)
        weight, met = np.ones(len(positive)), self._met(name, len(positive))
        if self.labels is not None:
            more, right, heavy = self._labelled(name, self.labels)
            features, positive = np.vstack([features, more]), np.r_[positive, right]
            weight, met = np.r_[weight, heavy], np.r_[met, np.ones(len(right))]
        return fit(features, positive, weight, met)

    def _met(self, name: str, lines: int) -> Scores:
        """How often a line is met for each example line, of `lines` in the order of `lines`: near misses taken together
        as often, where a persona has but a dozen of them; in a forum they are the common thing."""
        persona = self.personas[name]
        right, near = len(persona.examples), len(persona.near_misses)
        return np.r_[np.ones(right), np.full(near, max(1.0, right / max(1, near))), np.ones(lines - right - near)]

    def _labelled(self, name: str, labels: Labelled) -> tuple[Floats, npt.NDArray[np.bool_], Scores]:
        positive = np.array([one == name for one in labels.personas])
        return self._label_features, positive, np.full(len(positive), labels.weight)

    @cached_property
    def _label_features(self) -> Floats:
        assert self.labels is not None
        return self.features(self.labels.questions, self.labels.answers)

    @cached_property
    def centre(self) -> Mapping[str, Floats]:
        """Mean and spread of each block: the packaged ones, else of all example lines."""
        if self.packaged:
            return self.packaged.centre
        lines = [line for persona in self.personas.values() for line in (*persona.examples, *persona.near_misses)]
        return self.centre_of([question for question, _ in lines], [answer for _, answer in lines])

    def centre_of(self, questions: Sequence[str], answers: Sequence[str]) -> Mapping[str, Floats]:
        asked = [text[:QUESTION_CHARS] for text in questions]
        vectors = self.vectors
        blocks = {
            "answer": vectors.contextual(answers),
            "static": vectors.static(answers),
            "question": vectors.static(asked),
        }
        return {
            name: np.stack([unit(block).mean(0), unit(block).std(0) + 1e-6]).astype(np.float32)
            for name, block in blocks.items()
        }

    def _first_stage(
        self, questions: Sequence[str], answers: Sequence[str], hints: pl.DataFrame | None
    ) -> npt.NDArray[np.bool_]:
        if len(questions) <= FEW:
            return np.ones(len(questions), dtype=bool)
        features = self.static_features(questions, answers)
        passed = np.zeros(len(questions), dtype=bool)
        for name in self.personas:
            logits = self.first(name).logits(features)
            hint = hints[name].to_numpy() if hints is not None else 0.0
            passed |= logits + hint >= np.quantile(logits, 1 - KEEP)
        return passed

    def first(self, name: str) -> Weights:
        """The first stage of a persona: packaged, else learned from its lines too."""
        if self.packaged and name in self.packaged.first:
            return self.packaged.first[name]
        questions, answers, positive = self.lines(name)
        return learn(self.static_features(questions, answers), positive, np.ones(len(positive)))


@dataclass(frozen=True)
class Packaged:
    """voices.npz: what was fitted beforehand, over which encoder, from which lines and rows."""

    encoder: str
    examples: dict[str, str]  # digest of the example lines by persona
    centre: dict[str, Floats]
    voices: dict[str, Weights]
    first: dict[str, Weights]
    digest: str


def write_packaged(
    path: Path,
    voices: Voices,
    weights: Mapping[str, Weights],
    first: Mapping[str, Weights],
    rows: Mapping[str, list[int]],
) -> None:
    """What `read_packaged` reads; `rows`: numbers of the labelled rows by label file, and nothing else of them."""
    stages = {"voices": weights, "first": first}
    told = {
        stage: {name: {"bias": one.bias, "threshold": one.threshold} for name, one in found.items()}
        for stage, found in stages.items()
    }
    examples = {name: json_digest(_lines(persona)) for name, persona in voices.personas.items()}
    meta = orjson.dumps({"encoder": voices.vectors.name, "examples": examples, "rows": rows, **told})
    arrays = {f"{stage}_{name}": one.weights for stage, found in stages.items() for name, one in found.items()}
    arrays |= {f"centre_{name}": values for name, values in voices.centre.items()}
    halves: dict[str, Any] = {name: values.astype(np.float16) for name, values in arrays.items()}
    with artifacts.writing(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(file, **halves, meta=np.frombuffer(meta, np.uint8))


def read_packaged(path: Path) -> Packaged | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        meta: dict[str, Any] = orjson.loads(stored["meta"].tobytes())
        centre = {name[7:]: stored[name].astype(np.float32) for name in stored.files if name.startswith("centre_")}

        def weights(stage: str, name: str) -> Weights:
            told = meta[stage][name]
            return Weights(stored[f"{stage}_{name}"].astype(np.float32), told["bias"], told["threshold"])

        voices, first = ({name: weights(stage, name) for name in meta[stage]} for stage in ("voices", "first"))
        return Packaged(meta["encoder"], meta["examples"], centre, voices, first, json_digest(meta))


def unit(values: Floats) -> Floats:
    return values / (np.linalg.norm(values, axis=-1, keepdims=True) + 1e-9)


def _block(centre: Mapping[str, Floats], name: str, values: Floats) -> Floats:
    """Centred, and of unit length, so that no block drowns the others."""
    mean, spread = centre[name]
    return unit((unit(values) - mean) / spread)


def learn(features: Floats, positive: npt.NDArray[np.bool_], weight: Scores) -> Weights:
    """Weights from scratch, their threshold at evens."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=2000, class_weight="balanced")
    model.fit(features, positive, sample_weight=weight)
    return Weights(model.coef_[0].astype(np.float32), float(model.intercept_[0]), 0.5)


def fit(features: Floats, positive: npt.NDArray[np.bool_], weight: Scores, met: Scores) -> Weights:
    """A voice from scratch; its threshold is the lowest with the wanted precision, by five-fold cross-validation, over
    rows that are met `met` times each."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(min(5, int(positive.sum())), shuffle=True, random_state=0)
    unseen = np.zeros(len(positive))
    for known, held in folds.split(features, positive):
        unseen[held] = learn(features[known], positive[known], weight[known]).probability(features[held])
    return replace(learn(features, positive, weight), threshold=threshold_for(unseen, positive, WANTED_PRECISION, met))


def threshold_for(
    probability: Scores, positive: npt.NDArray[np.bool_], precision: float, met: Scores | None = None
) -> float:
    """The lowest probability from which on `precision` of the rows are right; where none has it, the highest."""
    order = np.argsort(-probability)
    count = np.ones(len(order)) if met is None else met[order]
    right = np.cumsum(positive[order] * count) / np.cumsum(count)
    reached = np.flatnonzero(right >= precision)
    return float(probability[order[reached[-1] if len(reached) else 0]])


def moved(known: Weights, features: Floats, positive: npt.NDArray[np.bool_], weight: Scores) -> Weights:
    """Packaged weights as the starting point and the prior: labels move them, few labels a little."""
    from scipy.optimize import minimize

    sign = np.where(positive, 1.0, -1.0)
    start = known.logits(features)
    inputs = np.hstack([features, np.ones((len(features), 1), np.float32)]).astype(np.float64)

    def loss(delta: Scores) -> tuple[float, Scores]:
        margin = sign * (start + inputs @ delta)
        gradient = inputs.T @ (-sign * weight / (1 + np.exp(margin))) + delta / PULL
        return float((weight * np.logaddexp(0, -margin)).sum() + (delta @ delta) / (2 * PULL)), gradient

    delta = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    return Weights((known.weights + delta[:-1]).astype(np.float32), known.bias + float(delta[-1]), known.threshold)


def _lines(persona: Persona) -> list[list[list[str]]]:
    return [[list(line) for line in persona.examples], [list(line) for line in persona.near_misses]]
