"""Persona fidelity: does an answer carry the voice that was asked for?

A judge (character 1-3-grams, logistic regression) learns the voices from train answers that all recipes share,
and is trusted only as far as its accuracy on human test answers, which is reported first. It hears form, not
topic: Latin words and digits are masked, and so is what the answer repeats of its question. It learns from as much
of a human answer as the models may write, or it would wait for the list at the end of an answer that is cut before
it. Beside it stand markers that anyone can count.

Two numbers, both 0 to 1: the share of answers in which the asked voice is the likeliest, and the clarity, the mean
probability that the judge gives to the asked voice. The share counts a voice hardly heard and one heard at once
alike; the clarity weighs them, and so tells two models apart over fewer prompts (after Mir et al. 2019, who measure
the intensity of a style by a classifier's distribution instead of its first choice). Answers with hardly any Chinese
count 0 in both, so a model gains on an English one by its language alone: `voices` gives what is over chance as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona_dagster.digest import json_digest
from persona_dagster.evaluation.collapse import units

UNCLEAR = "unclear"
LEAST_ANSWERS = 5  # a voice, to learn from
LEAST_HAN = 0.3  # of an answer's letters: these voices speak Chinese, so English prose is none of them

_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]+")


def mask_topic(answer: str, question: str) -> str:
    """`answer` without what names its topic: Latin words become A, digits 0, runs of two or more characters
    that stand in the question ＿."""
    masked = _LATIN.sub("A", re.sub(r"\d+", "0", answer))
    asked = _LATIN.sub("A", re.sub(r"\d+", "0", question))
    pairs = {asked[place : place + 2] for place in range(len(asked) - 1) if _HAN.fullmatch(asked[place])}
    hidden = [False] * len(masked)
    for place in range(len(masked) - 1):
        if masked[place : place + 2] in pairs:
            hidden[place] = hidden[place + 1] = True
    return "".join("＿" if hide else char for char, hide in zip(masked, hidden, strict=True))


@dataclass(frozen=True)
class Judge:
    """A trained voice classifier. `digest` names what it learnt from: two reports compare only under one judge.

    Of an answer it hears the first `hears` characters.
    """

    voices: tuple[str, ...]
    hears: int
    digest: str
    learnt_from: int
    model: Any

    def probabilities(self, answers: Sequence[str], questions: Sequence[str]) -> np.ndarray:
        """(n, voices), each row summing to 1."""
        pairs = zip(answers, questions, strict=True)
        texts = [mask_topic(answer[: self.hears], question) for answer, question in pairs]
        return np.asarray(self.model.predict_proba(texts)) if texts else np.zeros((0, len(self.voices)))

    def weigh(self, answers: Sequence[str], questions: Sequence[str]) -> np.ndarray:
        """`probabilities`, and a row of zeros for each answer that is `unclear`."""
        clear = np.array([speaks(text) for text in answers], dtype=float)
        return self.probabilities(answers, questions) * clear[:, None]

    def hear(self, answers: Sequence[str], questions: Sequence[str]) -> list[str]:
        """The voice of each answer; `unclear` for answers that are empty or hardly Chinese."""
        return self.likeliest(self.weigh(answers, questions))

    def likeliest(self, told: np.ndarray) -> list[str]:
        """The voice of each row of `weigh`."""
        return [self.voices[row.argmax()] if row.any() else UNCLEAR for row in told]


def speaks(text: str) -> bool:
    """Whether there is enough Chinese to hear a voice in."""
    han = len(_HAN.findall(text))
    return han >= 4 and han / (han + len(_LATIN.findall(text))) >= LEAST_HAN


def train_judge(rows: Sequence[tuple[str, str, str]], voices: Sequence[str], hears: int = 1000) -> Judge | None:
    """A judge from (voice, question, answer) rows, of whose answers it reads the first `hears` characters; None when
    fewer than two voices have LEAST_ANSWERS answers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    kept = sorted({(voice, asked, said[:hears]) for voice, asked, said in rows if voice in voices and said.strip()})
    counts = {voice: sum(row[0] == voice for row in kept) for voice in voices}
    learnt = [voice for voice in voices if counts[voice] >= LEAST_ANSWERS]
    if len(learnt) < 2:
        return None
    kept = [row for row in kept if row[0] in learnt]
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2 if len(kept) > 60 else 1),
        LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
    )
    model.fit([mask_topic(answer, question) for _, question, answer in kept], [voice for voice, _, _ in kept])
    return Judge(tuple(str(voice) for voice in model.classes_), hears, json_digest(["1", kept]), len(kept), model)


def confusion(asked: Sequence[str], heard: Sequence[str], voices: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by asked voice (rows), then heard voice and `unclear` (columns)."""
    table = {voice: dict.fromkeys([*voices, UNCLEAR], 0) for voice in voices}
    for wanted, got in zip(asked, heard, strict=True):
        if wanted in table:
            table[wanted][got] += 1
    return table


# Anyone can count these. `pattern` per 100 units, or a share of answers where it is anchored (share=True).
MARKERS: dict[str, tuple[re.Pattern[str], bool]] = {
    "list_items": (re.compile(r"(?m)^\s*(?:[-*•・]|\d+[.、)])\s*\S"), True),
    "terms": (re.compile(r"模型|訓練|向量|資料|注意力|斷詞|分詞|損失|語料|參數|演算法|[A-Za-z]{3,}"), False),
    "second_person": (re.compile(r"[你妳您]"), False),
    "hedging": (re.compile(r"也許|或許|可能|試著|可以先|不妨|慢慢"), False),
    "exclamation": (re.compile(r"[!！]"), False),
    "jeers": (re.compile(r"笑死|傻眼|離譜|有病|憑什麼|拜託|是在|到底|快逃|下一位|呵呵|渣|爛"), False),
}


def markers(answers: Sequence[str]) -> dict[str, float]:
    """Each marker over a set of answers, and the median length in units."""
    if not answers:
        return {}
    lengths = [len(units(answer)) for answer in answers]
    total = max(sum(lengths), 1)
    result: dict[str, float] = {"length": float(np.median(lengths))}
    for name, (pattern, share) in MARKERS.items():
        found = [len(pattern.findall(answer)) for answer in answers]
        result[name] = sum(count > 0 for count in found) / len(answers) if share else 100 * sum(found) / total
    return result


def by_voice(groups: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """`markers` of each voice's answers."""
    return {voice: markers(answers) for voice, answers in groups.items() if answers}
