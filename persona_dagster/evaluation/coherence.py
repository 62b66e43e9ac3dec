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
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from persona_dagster.digest import text_digest
from persona_dagster.evaluation.memorisation import PIECES, Pieces
from persona_dagster.evaluation.reference_model_likelihood import Read
from persona_dagster.evaluation.truncation_detection import Endings

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
    median. `pieces`: for each length, the share of runs that train answers hold. None: too few human answers to say."""

    lexicon: float
    simplified: float
    likely: tuple[float, float] | None
    order: float | None
    shortest: int  # letters of an answer
    typical: float | None
    learnt_from: int
    pieces: tuple[float, ...] = (1.0,) * len(PIECES)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def lexicon_share(text: str) -> float:
    """The share of Han characters that stand in words of two or more that the lexicon (jieba's) knows."""
    import rjieba

    total = len(_HAN.findall(text))
    words = rjieba.cut(_to_simplified(text), False)
    return sum(len(word) for word in words if len(word) > 1 and _HAN.fullmatch(word[0])) / total if total else 0.0


def long_enough(text: str) -> bool:
    """Whether it has Han characters enough for its words to be counted."""
    return len(_HAN.findall(text)) >= SHORT


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


@dataclass(frozen=True)
class Calibration:
    """What finds flaws, set by human answers."""

    bounds: Bounds
    reader: Read | None = None
    pieces: Pieces | None = None  # of the train answers
    endings: Endings | None = None

    def broken_off(self, answers: Sequence[str]) -> list[bool]:
        return self.endings.broken_off(answers) if self.endings else [False] * len(answers)

    def flaws(self, answers: Sequence[str], questions: Sequence[str], broken: Sequence[str | None]) -> list[str | None]:
        """The first thing wrong with each answer, by characters and words alone."""
        pairs = list(zip(answers, questions, strict=True))
        again = said_before(answers, questions)
        return [
            trouble or self._flaw(*pair, repeated=repeated)
            for trouble, pair, repeated in zip(broken, pairs, again, strict=True)
        ]

    def _flaw(self, answer: str, question: str, *, repeated: bool) -> str | None:
        bounds = self.bounds
        letters = len(_letters(answer))
        long = long_enough(answer)
        found = (
            ("broken characters", damaged(answer)),
            ("both sides", bool(_ASKER.search(answer))),
            ("not Chinese", not chinese(answer)),
            ("Simplified", simplified_share(answer) > bounds.simplified),
            ("echo", len(_letters(own_words(answer, question))) < (1 - MOSTLY) * letters),
            ("said before", repeated),
            ("too short", letters < bounds.shortest),
            ("no words", long and lexicon_share(answer) < bounds.lexicon),
            ("patchwork", long and self._is_patchwork(answer)),
        )
        return next((name for name, holds in found if holds), None)

    def _is_patchwork(self, answer: str) -> bool:
        shares = self.pieces.shares(answer) if self.pieces else ()
        return any(share > bound for share, bound in zip(shares, self.bounds.pieces, strict=False))

    def check(self, answers: Sequence[str], questions: Sequence[str]) -> list[str | None]:
        """The flaw of each answer, by all means, each for itself: the reader is asked about those without another."""
        off = self.broken_off(answers)
        found = [
            self.flaws([answer], [question], ["cut" if cut else None])[0]
            for answer, question, cut in zip(answers, questions, off, strict=True)
        ]
        whole = [place for place, flaw in enumerate(found) if flaw is None]
        if self.reader is not None and whole:
            seen = read([answers[place] for place in whole], self.reader)
            for place, nats, order in zip(whole, seen.nats, seen.order, strict=True):
                found[place] = read_flaw(nats, order, self.bounds)
        return found


def said_before(answers: Sequence[str], questions: Sequence[str]) -> list[bool]:
    """Whether each answer is what is said to another question too, but for a few words or for words of its question: a
    template with its nouns exchanged is one answer."""
    own = [_letters(own_words(*pair, run=2)) for pair in zip(answers, questions, strict=True)]
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


def calibrate(human: Sequence[str], reader: Read | None, train: Iterable[str] = ()) -> Calibration:
    """What `human` answers (of train) keep to; the reader sees `READ` of them. `train`: what the model learned."""
    texts = sorted({text for text in human if text.strip()}, key=text_digest)
    long = [text for text in texts if long_enough(text)]
    pieces = Pieces(train)
    shares = list(zip(*map(pieces.shares, long), strict=True)) or [(1.0,)] * len(PIECES)
    letters = [len(_letters(text)) for text in texts]
    bounds = Bounds(
        lexicon=_quantile([lexicon_share(text) for text in long], OUTER, 0.0),
        simplified=max(0.05, _quantile([simplified_share(text) for text in texts], 1 - OUTER, 1.0)),
        likely=None,
        order=None,
        shortest=min(SHORT, int(_quantile(letters, OUTER, 0))),
        typical=None,
        learnt_from=len(texts),
        # Half of the way from what people share with train to all: a model that learned may share more than they do.
        pieces=tuple((_quantile(some, 1 - OUTER, 1.0) + 1) / 2 for some in shares),
    )
    if reader is not None and len(long) >= 8:
        seen = read(long[:READ], reader)
        # A few answers give no 2.5 % quantile: the bound is two and a half robust deviations from the median.
        least, _ = _robust(seen.order)
        typical = float(np.median(seen.order))
        bounds = replace(bounds, likely=_robust(seen.nats), order=max(least, 0.0), typical=typical)
    return Calibration(bounds, reader, pieces, Endings(texts, OUTER))


def _robust(values: Sequence[float]) -> tuple[float, float]:
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(np.asarray(values) - middle)))
    return middle - 2.5 * spread, middle + 2.5 * spread


def _quantile(values: Sequence[float], at: float, none: float) -> float:
    return float(np.quantile(values, at)) if values else none


def error_rates(human: Sequence[tuple[str, str]], by: Calibration) -> dict[str, Any]:
    """On (question, answer) pairs of human validation rows: how many are found flawed, and how many of their copies
    pass that are shuffled by characters, by words, or cut in the middle."""
    pairs = sorted(set(human), key=lambda pair: text_digest(*pair))
    pairs = [pair for pair in pairs if long_enough(pair[1])][:READ]
    if not pairs:
        return {"rows": 0}
    questions = [question for question, _ in pairs]
    found = {
        name: by.check([change(answer) for _, answer in pairs], questions)
        for name, change in (("whole", str), ("characters", shuffled_chars), ("words", shuffled_words))
    }
    return {
        "rows": len(pairs),
        "false_alarms": sum(flaw is not None for flaw in found["whole"]) / len(pairs),
        "shuffled_characters_pass": sum(flaw is None for flaw in found["characters"]) / len(pairs),
        "shuffled_words_pass": sum(flaw is None for flaw in found["words"]) / len(pairs),
        "halves_pass": 1 - sum(by.broken_off([answer[: len(answer) // 2] for _, answer in pairs])) / len(pairs),
        "alarms": dict(Counter(flaw for flaw in found["whole"] if flaw)),
    }


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text)


def shuffled_chars(text: str) -> str:
    chars = list(text)
    random.Random(text_digest(text)).shuffle(chars)
    return "".join(chars)
