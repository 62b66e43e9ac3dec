"""Whether a text comes to its end or breaks off, by its last characters.

Learned from human answers and from the same answers cut anywhere; nothing is labelled. A voice that ends without a mark
(half of the mouthpiece's answers do) still ends on other words than it breaks off on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from persona_dagster.digest import text_digest

TAIL = 6  # characters that are looked at
CUTS = 2  # of each human answer
LEAST, MOST = 40, 2000  # human answers to learn from


class Endings:
    """Fitted to `human` answers; finds nothing where there are fewer than `LEAST`.

    `bound` is what all but `outer` of them keep to, each judged by a model that did not learn from it (five folds).
    """

    def __init__(self, human: Sequence[str], outer: float) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline

        self._model: Any = None
        self.bound = 0.0
        whole = sorted({text.strip() for text in human if len(text.strip()) > 2 * TAIL}, key=text_digest)[:MOST]
        if len(whole) < LEAST:
            return
        texts = [*whole, *(cut for text in whole for cut in _cut(text))]
        ends = np.array([1] * len(whole) + [0] * (len(texts) - len(whole)))
        model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, lowercase=False),
            LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
        )
        tails = [_tail(text) for text in texts]
        owners = [*range(len(whole)), *(place for place in range(len(whole)) for _ in range(CUTS))]
        unseen = cross_val_predict(model, tails, ends, groups=owners, cv=GroupKFold(5), method="predict_proba")[:, 1]
        self.bound = float(np.quantile(unseen[: len(whole)], outer))
        self._model = model.fit(tails, ends)

    def broken_off(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text ends less likely than human answers do."""
        if self._model is None or not len(texts):
            return [False] * len(texts)
        ends = self._model.predict_proba([_tail(text) for text in texts])[:, 1]
        return [bool(value < self.bound) and len(text.strip()) > TAIL for value, text in zip(ends, texts, strict=True)]


def _cut(text: str) -> list[str]:
    """`text` cut at places drawn by its hash, between a quarter and nine tenths of it."""
    drawn = random.Random(text_digest(text))
    return [text[: int(len(text) * drawn.uniform(0.25, 0.9))] for _ in range(CUTS)]


def _tail(text: str) -> str:
    return f"{text.strip()[-TAIL:]}\0"
