"""Which persona an untagged question is for: a small classifier, learned from the personas' example questions and from
the questions of the mix. Every route names the example questions that it is most like, and how sure it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.digest import keyed_hash

Means = Literal["tag", "classifier"]

_SENTENCE = re.compile(r"[^。！？!?\n]*[。！？!?]?")
LEAST_ALIKE = 0.1  # cosine; below it two questions share a particle and no topic
ROWS_A_PERSONA = 4000  # more questions than this change the routing of no probe, and cost seconds


@dataclass(frozen=True, slots=True)
class Route:
    """`scores` in 0-1 by persona, summing to 1; `why`: the tag, or the persona's example questions that are most like
    what was asked, the nearest first."""

    persona: str
    means: Means
    why: tuple[str, ...]
    scores: Mapping[str, float]

    @property
    def sure(self) -> float:
        return self.scores[self.persona]


class Router:
    """Routes by the tag in front, else by a classifier: of the personas' example questions where none is given."""

    def __init__(self, personas: Personas, classifier: Classifier | None = None) -> None:
        self.personas = personas
        self.classifier = classifier or train_classifier(example_questions(personas))
        self._examples = example_questions(personas)
        self._tags = {
            tag.strip("[]【】"): name
            for name, persona in personas.personas.items()
            for tag in (persona.tag, *persona.aliases)
        }

    def route(self, text: str) -> Route:
        """The persona for `text`, the user's last words. A persona's tag in front of them decides alone."""
        if (named := self._tagged(text)) is not None:
            return Route(named, "tag", (self.personas.personas[named].tag,), self._certain(named))
        if self.classifier is None:  # one persona alone
            return Route(self._first(), "classifier", (), self._certain(self._first()))
        scores = dict.fromkeys(self.personas.personas, 0.0) | _softmax(self.classifier.logits(text))
        best = max(scores, key=scores.__getitem__)
        near = self.classifier.nearest(text, self._examples[best])
        return Route(best, "classifier", near, scores)

    def _tagged(self, text: str) -> str | None:
        found = re.match(r"\s*[\[【]\s*([^\[\]【】\n]{1,30}?)\s*[\]】]", text)
        return self._tags.get(found[1]) if found else None

    def _certain(self, name: str) -> dict[str, float]:
        return {each: float(each == name) for each in self.personas.personas}

    def _first(self) -> str:
        return next(iter(self.personas.personas))


class Classifier:
    """Character n-grams of the question, TF-IDF, logistic regression: trained in a second."""

    def __init__(self, questions: Sequence[str], labels: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        self._features = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=1)
        self._model = LogisticRegression(C=2.0, max_iter=1000, class_weight="balanced")
        self._model.fit(self._features.fit_transform(map(_plain, questions)), list(labels))
        self.voices: tuple[str, ...] = tuple(map(str, self._model.classes_))
        self.rows = len(questions)
        self._known: dict[tuple[str, ...], Any] = {}

    def logits(self, text: str) -> dict[str, float]:
        scores = self._model.predict_log_proba(self._features.transform([_plain(text)]))[0]
        return dict(zip(self.voices, map(float, scores), strict=True))

    def nearest(self, text: str, questions: Sequence[str], most: int = 2) -> tuple[str, ...]:
        """Those of `questions` that share the most n-grams with `text` (by cosine); none that shares hardly any."""
        key = tuple(questions)
        if key not in self._known:
            self._known[key] = self._features.transform(map(_plain, questions))
        alike = (self._known[key] @ self._features.transform([_plain(text)]).T).toarray()[:, 0]
        return tuple(questions[row] for row in (-alike).argsort()[:most] if alike[row] >= LEAST_ALIKE)


def train_classifier(questions: Mapping[str, Iterable[str]]) -> Classifier | None:
    """Learnt from questions by persona, each once; None where fewer than two personas are asked anything.

    The forums' questions are long, and what people type here is short: the first sentence of each question stands
    beside it as an example of its own.
    """
    kept = {
        name: sorted(dict.fromkeys(found), key=lambda text: keyed_hash("routing", text))[:ROWS_A_PERSONA]
        for name, found in questions.items()
    }
    pairs = [(part, name) for name, found in kept.items() for text in found for part in {text, first_sentence(text)}]
    if len({name for _, name in pairs}) < 2:
        return None
    return Classifier([text for text, _ in pairs], [name for _, name in pairs])


def example_questions(personas: Personas) -> dict[str, list[str]]:
    """What each persona is asked, as its file says."""
    return {
        name: [*persona.questions, *(question for question, _ in persona.examples)]
        for name, persona in personas.personas.items()
    }


def questions_of_mix(mix_dir: Path, personas: Personas) -> dict[str, list[str]]:
    """What was asked of each persona in `mix_dir/train.jsonl`, and its example questions."""
    asked = example_questions(personas)
    with (mix_dir / "train.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["persona"] in asked:
                asked[row["persona"]].append(_question(row["messages"]))
    return asked


def questions_of_pool(dialogues: pl.DataFrame, split: pl.DataFrame, personas: Personas) -> dict[str, list[str]]:
    """What is asked of each persona in the train half of all dialogues, the pool that a mix draws from, and its example
    questions."""
    train = split.filter(pl.col("split") == "train").select("pair_id")
    pool = dialogues.join(train, on="pair_id").filter(pl.col("persona").is_in([*personas.personas]))
    asked = example_questions(personas)
    for persona, messages in pool.select("persona", "messages").iter_rows():
        asked[persona].append(_question(messages))
    return asked


def first_sentence(text: str) -> str:
    found = _SENTENCE.match(text.strip())
    return found[0][:60] if found else ""


def _question(messages: Sequence[Mapping[str, str]]) -> str:
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower())[:600]


def _softmax(scores: Mapping[str, float]) -> dict[str, float]:
    top = max(scores.values())
    weights = {name: math.exp(score - top) for name, score in scores.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
