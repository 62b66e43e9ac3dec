"""Whether an answer is language, and an answer to its question: what no shuffled, looped or foreign text passes.

Each answer has a `flaw` or none. The bounds are not chosen: they are what human train answers keep to (all but the
outermost 2.5 % on a side), and human validation answers with their shuffled copies give the error rates. Nothing here
looks at a test row or at a model's answer to set a bound.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from persona_dagster.digest import text_digest
from persona_dagster.evaluation.reading import Read

OUTER = 0.025  # of human answers that may lie beyond a bound
SHORT = 8  # Han characters: shorter answers have no words to count
LEAST_HAN = 0.3  # of an answer's letters and digits' words: these voices speak Chinese
ECHO = 4  # characters that stand in the question as they are
MOSTLY = 0.6  # of an answer that is taken from its question
ALIKE = 0.5  # of the runs of three characters of two answers that both hold: one was made from the other
READ = 16  # human answers that are read to set the bounds, and as many to check them
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_WORD = re.compile(r"[^\W\d_\u3400-\u9fff\U00020000-\U0003ffff]+")
_ASKER = re.compile(r"(?mi)^\s*(?:問|使用者|user|human|q)\s*[:：]")  # a turn of the asker, spelled out
_CONTROL = re.compile(r"<[/|]?[a-z_]+\d*[|]?>|\[multimodal\]")


@dataclass(frozen=True)
class Bounds:
    """What human answers keep to. `order`: nats a character that shuffling the words costs at least; `typical`: at the
    median. None: too few human answers to say."""

    lexicon: float
    simplified: float
    likely: tuple[float, float] | None
    order: float | None
    shortest: int  # letters of an answer
    typical: float | None
    learnt_from: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def lexicon_share(text: str) -> float:
    """The share of Han characters that stand in words of two or more that the lexicon (jieba's) knows."""
    import rjieba

    total = len(_HAN.findall(text))
    words = rjieba.cut(_to_simplified(text), False)
    return sum(len(word) for word in words if len(word) > 1 and _HAN.fullmatch(word[0])) / total if total else 0.0


def simplified_share(text: str) -> float:
    """The share of Han characters that Traditional Chinese writes otherwise (OpenCC)."""
    han = _HAN.findall(text)
    return sum(map(_is_simplified, han)) / len(han) if han else 0.0


@lru_cache(maxsize=20_000)
def _is_simplified(char: str) -> bool:
    return _converter("s2t").convert(char) != char and _converter("t2s").convert(char) == char


def _to_simplified(text: str) -> str:
    return str(_converter("t2s").convert(text))


@lru_cache(maxsize=4)
def _converter(name: str) -> Any:
    from opencc import OpenCC

    return OpenCC(name)


def chinese(text: str) -> bool:
    """Whether Han characters make up enough of it; a Latin, kana or other word counts as one letter."""
    han = len(_HAN.findall(text))
    return han >= 4 and han / (han + len(_WORD.findall(text))) >= LEAST_HAN


def damaged(text: str) -> bool:
    """Replacement, private, unassigned or control characters, or a template's token spelled out."""
    return bool(_CONTROL.search(text)) or any(
        char == "\N{REPLACEMENT CHARACTER}" or unicodedata.category(char) in ("Co", "Cn", "Cs")
        or (unicodedata.category(char) == "Cc" and char not in "\n\t\r")
        for char in text
    )  # fmt: skip


def own_words(text: str, question: str, run: int = ECHO) -> str:
    """`text` without the runs of `run` characters or more that stand in the question."""
    taken = [False] * len(text)
    runs = {question[place : place + run] for place in range(len(question) - run + 1)}
    for place in range(len(text) - run + 1):
        if text[place : place + run] in runs:
            taken[place : place + run] = [True] * run
    return "".join(char for char, hide in zip(text, taken, strict=True) if not hide)


def shuffled_words(text: str) -> str:
    """The same words in another order, the same for the same text."""
    import rjieba

    words = rjieba.cut(text, False)
    random.Random(text_digest(text)).shuffle(words)
    return "".join(words)


def flaws(
    answers: Sequence[str], questions: Sequence[str], broken: Sequence[str | None], bounds: Bounds
) -> list[str | None]:
    """The first thing wrong with each answer, by characters and words alone."""
    own = [re.sub(r"\W", "", own_words(answer, question)) for answer, question in zip(answers, questions, strict=True)]
    again = said_before(answers, questions)
    found: list[str | None] = []
    for answer, text, trouble, repeated in zip(answers, own, broken, again, strict=True):
        letters = len(re.sub(r"\W", "", answer))
        found.append(
            trouble
            or ("broken characters" if damaged(answer) else None)
            or ("both sides" if _ASKER.search(answer) else None)
            or ("not Chinese" if not chinese(answer) else None)
            or ("Simplified" if simplified_share(answer) > bounds.simplified else None)
            or ("echo" if len(text) < (1 - MOSTLY) * letters else None)
            or ("said before" if repeated else None)
            or ("too short" if letters < bounds.shortest else None)
            or ("no words" if len(_HAN.findall(answer)) >= SHORT and lexicon_share(answer) < bounds.lexicon else None)
        )
    return found


def said_before(answers: Sequence[str], questions: Sequence[str]) -> list[bool]:
    """Whether each answer is what is said to another question too, but for a few words or for words of its question: a
    template with its nouns exchanged is one answer."""
    own = [re.sub(r"\W", "", own_words(*pair, run=2)) for pair in zip(answers, questions, strict=True)]
    runs = [{text[place : place + 3] for place in range(max(1, len(text) - 2))} for text in own]
    found = [False] * len(own)
    for place, (one, question) in enumerate(zip(runs, questions, strict=True)):
        for other in range(place):
            if questions[other] != question and len(one & runs[other]) > ALIKE * len(one | runs[other]):
                found[place] = found[other] = True
    return found


@dataclass(frozen=True)
class Reading:
    """What a language model makes of texts: nats a character, and how many more their words cost in another order."""

    nats: list[float]
    order: list[float]


def read(texts: Sequence[str], reader: Read) -> Reading:
    nats = reader(texts)
    other = reader([shuffled_words(text) for text in texts])
    return Reading(nats, [mixed - plain for plain, mixed in zip(nats, other, strict=True)])


def read_flaw(nats: float, order: float, bounds: Bounds) -> str | None:
    """What is wrong with one answer by its likelihood; two-sided, since what is too likely is a loop or a formula."""
    if bounds.likely is None or bounds.order is None:
        return None
    if nats > bounds.likely[1]:
        return "salad"
    if nats < bounds.likely[0]:
        return "too likely"
    return "out of order" if order < bounds.order else None


def calibrate(human: Sequence[str], reader: Read | None) -> Bounds:
    """The bounds that `human` answers (of train) keep to; the reader sees `READ` of them."""
    texts = sorted({text for text in human if text.strip()}, key=text_digest)
    long = [text for text in texts if len(_HAN.findall(text)) >= SHORT]
    lexicon = _quantile([lexicon_share(text) for text in long], OUTER, 0.0)
    letters = [len(re.sub(r"\W", "", text)) for text in texts]
    shortest = min(SHORT, int(_quantile(letters, OUTER, 0)))
    simplified = max(0.05, _quantile([simplified_share(text) for text in texts], 1 - OUTER, 1.0))
    if reader is None or len(long) < 8:
        return Bounds(lexicon, simplified, None, None, shortest, None, len(texts))
    seen = read(long[:READ], reader)
    # A few answers give no 2.5 % quantile: the bound is two and a half robust deviations from the median.
    low, high = _robust(seen.nats)
    least, _ = _robust(seen.order)
    typical = float(np.median(seen.order))
    return Bounds(lexicon, simplified, (low, high), max(least, 0.0), shortest, typical, len(texts))


def _robust(values: Sequence[float]) -> tuple[float, float]:
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(values) - middle)))
    return middle - 2.5 * spread, middle + 2.5 * spread


def _quantile(values: Sequence[float], at: float, none: float) -> float:
    return float(np.quantile(values, at)) if values else none


def error_rates(human: Sequence[tuple[str, str]], reader: Read | None, bounds: Bounds) -> dict[str, Any]:
    """On (question, answer) pairs of human validation rows: how many are found flawed, and how many of their shuffled
    copies pass, by characters and by words."""
    pairs = sorted(set(human), key=lambda pair: text_digest(*pair))
    pairs = [pair for pair in pairs if len(_HAN.findall(pair[1])) >= SHORT][:READ]
    if not pairs:
        return {"rows": 0}
    questions = [question for question, _ in pairs]
    found = {
        name: check([change(answer) for _, answer in pairs], questions, reader, bounds)
        for name, change in (("whole", str), ("characters", shuffled_chars), ("words", shuffled_words))
    }
    return {
        "rows": len(pairs),
        "false_alarms": sum(flaw is not None for flaw in found["whole"]) / len(pairs),
        "shuffled_characters_pass": sum(flaw is None for flaw in found["characters"]) / len(pairs),
        "shuffled_words_pass": sum(flaw is None for flaw in found["words"]) / len(pairs),
        "alarms": dict(Counter(flaw for flaw in found["whole"] if flaw)),
    }


def check(answers: Sequence[str], questions: Sequence[str], reader: Read | None, bounds: Bounds) -> list[str | None]:
    """The flaw of each answer, by all means: the reader is asked about those that have none by the others."""
    found = [
        flaws([answer], [question], [None], bounds)[0] for answer, question in zip(answers, questions, strict=True)
    ]
    whole = [place for place, flaw in enumerate(found) if flaw is None]
    if reader is not None and whole:
        seen = read([answers[place] for place in whole], reader)
        for place, nats, order in zip(whole, seen.nats, seen.order, strict=True):
            found[place] = read_flaw(nats, order, bounds)
    return found


def shuffled_chars(text: str) -> str:
    chars = list(text)
    random.Random(text_digest(text)).shuffle(chars)
    return "".join(chars)


def relevance(
    answers: np.ndarray, asked: np.ndarray, questions: Sequence[str], groups: Sequence[str]
) -> list[float | None]:
    """How often each answer lies nearer to its own question than to another question of its group: 0.5 by chance.

    `answers`, `asked`: (n, width) sentence vectors of answers and of their questions. None where a group has fewer
    than four questions. A fixed answer, or one to another question of the group, has 0.5 on the mean by construction.
    """
    centred = asked - asked.mean(axis=0, keepdims=True) if len(asked) else asked
    left, right = _unit(answers - answers.mean(axis=0, keepdims=True)) if len(answers) else answers, _unit(centred)
    found: list[float | None] = [None] * len(questions)
    for group in dict.fromkeys(groups):
        members = [place for place, name in enumerate(groups) if name == group]
        first: dict[str, int] = {}
        for place in members:
            first.setdefault(questions[place], place)
        if len(first) < 4:
            continue
        near = left[members] @ right[list(first.values())].T
        names = list(first)
        for row, place in enumerate(members):
            own = names.index(questions[place])
            others = np.delete(near[row], own)
            found[place] = float(np.mean(others < near[row, own]) + 0.5 * np.mean(others == near[row, own]))
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
