"""Whether an answer is about its question: nearer to it than to other questions that were put to the same voice.

Two likenesses count alike: of sentence vectors, which know other words for the same thing, and of characters and pairs
of characters weighed by how rare they are (tf-idf), which know the very thing. What people reach is the measure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from persona_dagster.evaluation.bootstrap import NOTHING, Interval

CHANCE = 0.5
LEAST = 4  # questions of a voice: with fewer, nearest says little

Embed = Callable[[Sequence[str]], np.ndarray]


class Relevance:
    """How rare each character is, from `texts`; sentence vectors (n, width) by `embed`."""

    def __init__(self, texts: Sequence[str], embed: Embed) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._embed = embed
        rare = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, preprocessor=_letters)
        self._rare: Any = rare.fit(texts) if any(map(_letters, texts)) else None

    def __call__(self, answers: Sequence[str], questions: Sequence[str], groups: Sequence[str]) -> list[float | None]:
        """How often each answer is nearer to its own question than to another of its group: 0.5 by chance.

        None where a group has fewer than `LEAST` questions. One answer for all, or answers dealt out anew, have 0.5 on
        the mean by construction.
        """
        near = self._likeness(answers, questions) if answers else np.zeros((0, 0))
        found: list[float | None] = [None] * len(questions)
        for group in dict.fromkeys(groups):
            members = [place for place, name in enumerate(groups) if name == group]
            first: dict[str, int] = {}
            for place in members:
                first.setdefault(questions[place], place)
            if len(first) < LEAST:
                continue
            for place in members:
                own = near[place, first[questions[place]]]
                others = near[place, [at for question, at in first.items() if question != questions[place]]]
                found[place] = float(np.mean(others < own) + 0.5 * np.mean(others == own))
        return found

    def _likeness(self, answers: Sequence[str], questions: Sequence[str]) -> np.ndarray:
        """(answers, questions): the sum of both likenesses, each in units of its own spread."""
        left, right = (_unit(vectors - vectors.mean(axis=0)) for vectors in map(self._embed, (answers, questions)))
        whole = _scaled(left @ right.T)
        if self._rare is not None:
            whole = whole + _scaled((self._rare.transform(answers) @ self._rare.transform(questions).T).toarray())
        return whole


def beside_people(found: Interval, people: Interval, chance: float = CHANCE) -> Interval:
    """A number on the scale from chance (0) to people (1). Not judged where people's own is not over chance: there the
    measure sees nothing."""
    if people.value is None or people.low is None or found.value is None or people.value <= chance:
        return NOTHING
    value, low, high = (
        None if end is None else (end - chance) / (people.value - chance)
        for end in (found.value, found.low, found.high)
    )
    return replace(found, value=value, low=low, high=high, enough=found.enough and people.low > chance)


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text)


def _scaled(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return values / spread if spread > 0 else values


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
