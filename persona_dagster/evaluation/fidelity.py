"""Persona fidelity: does an answer carry the voice that was asked for?

A judge (character 1-3-grams, logistic regression) learns the voices from train answers that all recipes share,
and is trusted only as far as its accuracy on human test answers, which is reported first. It hears form, not
topic: Latin words and digits are masked, and so is what the answer repeats of its question. It learns from as much
of a human answer as the models may write, or it would wait for the list at the end of an answer that is cut before
it. Beside it stand markers that anyone can count.

Two numbers, both 0 to 1: the share of answers in which the asked voice is the likeliest, and the clarity, the mean
probability that the judge gives to the asked voice. The share counts a faint voice and a plain one
alike; the clarity weighs them, and so tells two models apart over fewer prompts (after Mir et al. 2019, who measure
the intensity of a style by a classifier's distribution instead of its first choice). Answers with hardly any Chinese
count 0 in both, so a model gains on an English one by its language alone: `voice_metrics` gives what is over
chance as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona_dagster.digest import json_digest, text_digest
from persona_dagster.evaluation.collapse import units

UNCLEAR = "unclear"
LEAST_ANSWERS, MOST_ANSWERS = 5, 45  # a voice, to learn from
LEAST_HAN = 0.3  # of an answer's letters: these voices speak Chinese, so English prose is none of them

Embed = Callable[[Sequence[str]], np.ndarray]  # texts to sentence vectors (n, width)

_MARK = re.compile(r"[，。！？：；\n、,.!?:;]")
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

    It reads the first `hears` characters of an answer, in two ways whose probabilities are averaged: the sentence
    vector of `embed`, and character n-grams without the topic.
    """

    voices: tuple[str, ...]
    hears: int
    digest: str
    learnt_from: int
    embed: Embed
    models: tuple[Any, Any]  # over vectors, over masked text
    independent: bool = True  # learnt from rows that were written or labelled for a voice, not from selected ones

    def probabilities(self, answers: Sequence[str], questions: Sequence[str]) -> np.ndarray:
        """(n, voices), each row summing to 1."""
        if not len(answers):
            return np.zeros((0, len(self.voices)))
        vectors, texts = _features(answers, questions, self.embed, self.hears)
        by_vector, by_text = self.models
        return np.asarray((by_vector.predict_proba(vectors) + by_text.predict_proba(texts)) / 2)

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


def train_judge(
    rows: Sequence[tuple[str, str, str]],
    voices: Sequence[str],
    embed: Embed,
    hears: int = 1000,
    *,
    independent: bool = True,
) -> Judge | None:
    """A judge from (voice, question, answer) rows; None when fewer than two voices have LEAST_ANSWERS answers.

    Each answer is learnt twice, the second time behind the opening words of another voice: a marker is no voice.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kept = sorted({(voice, asked, said[:hears]) for voice, asked, said in rows if voice in voices and said.strip()})
    counts = {voice: sum(row[0] == voice for row in kept) for voice in voices}
    learnt = [voice for voice in voices if counts[voice] >= LEAST_ANSWERS]
    if len(learnt) < 2:
        return None
    kept = [row for voice in learnt for row in _some([row for row in kept if row[0] == voice])]
    whole = kept + disguised(kept)
    vectors, texts = _features([row[2] for row in whole], [row[1] for row in whole], embed, hears)
    by_vector = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, class_weight="balanced", max_iter=1000))
    by_text = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2 if len(kept) > 60 else 1),
        LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
    )
    names = [row[0] for row in whole]
    by_vector.fit(vectors, names)
    by_text.fit(texts, names)
    known = tuple(str(voice) for voice in by_text.classes_)
    return Judge(known, hears, json_digest(["2", kept]), len(kept), embed, (by_vector, by_text), independent)


def _some(rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """At most MOST_ANSWERS of one voice, by hash: more teach little, and cost the encoder a second for fifteen."""
    return sorted(rows, key=lambda row: text_digest(*row))[:MOST_ANSWERS]


def _features(
    answers: Sequence[str], questions: Sequence[str], embed: Embed, hears: int
) -> tuple[np.ndarray, list[str]]:
    begun = [answer[:hears] for answer in answers]
    return embed(begun), [mask_topic(answer, question) for answer, question in zip(begun, questions, strict=True)]


def openings(rows: Sequence[tuple[str, str, str]]) -> dict[str, list[str]]:
    """The first words of each voice's answers, up to a mark."""
    found: dict[str, list[str]] = {}
    for voice, _, answer in rows:
        if first := _MARK.split(answer.strip())[0][:12].strip():
            found.setdefault(voice, []).append(first)
    return found


def disguised(rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Every row once more, its answer behind the opening of an answer in another voice."""
    begun = openings(rows)
    made = []
    for voice, question, answer in rows:
        others = [opening for other in sorted(begun) if other != voice for opening in begun[other]]
        if others:
            made.append((voice, question, f"{others[int(text_digest(answer)[:8], 16) % len(others)]}，{answer}"))
    return made


def confusion(asked: Sequence[str], judged: Sequence[str], voices: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by asked voice (rows), then judged voice and `unclear` (columns)."""
    table = {voice: dict.fromkeys([*voices, UNCLEAR], 0) for voice in voices}
    for wanted, got in zip(asked, judged, strict=True):
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
