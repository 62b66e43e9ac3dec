"""Memorisation: what an answer copies word for word from the training text, and from which rows.

13-grams of units (characters for Han, words for Latin), as GPT-3's decontamination counts words (Brown et al.
2020) and Carlini et al. 2023 count verbatim copies. The same count for human test answers is taken off, so that
common phrases cancel out. `Pieces` are the shortest copies: what a chain of the train answers' characters or words
(Markov 1913) puts together is theirs wherever one looks closely, and nobody's as a whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from persona_dagster.evaluation.collapse import ngrams, units

N = 13
PIECES = (2, 3)  # letters
MAX_ROWS = 3  # rows named for one answer


@dataclass(frozen=True)
class Copied:
    """`share` of the answer's 13-grams that stand in train (0-1), its `longest` copied run in units, the rows
    that hold most of it."""

    share: float
    longest: int
    rows: tuple[str, ...]
    text: str  # the longest run


class TrainIndex:
    """All n-grams of the training answers, with the rows they come from."""

    def __init__(self, rows: Iterable[tuple[str, str]], n: int = N) -> None:
        self.n = n
        self._rows: dict[tuple[str, ...], set[str]] = defaultdict(set)
        self._short: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for row_id, text in rows:
            tokens = units(text)
            for gram in ngrams(tokens, n):
                self._rows[gram].add(row_id)
            if len(tokens) < n:
                self._short[tuple(tokens)].add(row_id)

    def look_up(self, text: str) -> Copied:
        """What `text` copies. An answer under n units counts as copied only when it is a whole training answer."""
        tokens = units(text)
        if len(tokens) < self.n:
            rows = self._short.get(tuple(tokens), set()) if tokens else set()
            found = sorted(rows)[:MAX_ROWS]
            return Copied(float(bool(rows)), len(tokens) if rows else 0, tuple(found), text if rows else "")
        grams = ngrams(tokens, self.n)
        hits = [self._rows.get(gram) for gram in grams]
        votes = Counter(row for hit in hits if hit for row in hit)
        longest, start = self._longest_run(hits)
        rows_named = tuple(row for row, _ in sorted(votes.items(), key=lambda item: (-item[1], item[0]))[:MAX_ROWS])
        run = _surface(text, tokens, start, longest)
        return Copied(sum(hit is not None for hit in hits) / len(hits), longest, rows_named, run)

    def _longest_run(self, hits: list[set[str] | None]) -> tuple[int, int]:
        """The longest run of units that stands in one row, and where it begins."""
        best, best_start = 0, 0
        begun: dict[str, int] = {}  # by row: where its run that reaches this place began
        for place, hit in enumerate(hits):
            begun = {row: begun.get(row, place) for row in hit or ()}
            first = min(begun.values(), default=place)
            if hit and (length := place - first + self.n) > best:
                best, best_start = length, first
        return best, best_start


def _surface(text: str, tokens: list[str], start: int, length: int) -> str:
    """The span of `text` that the units from `start` cover."""
    if not length:
        return ""
    at, first = 0, 0
    for place, token in enumerate(tokens[: start + length]):
        at = text.index(token, at)
        if place == start:
            first = at
        at += len(token)
    return text[first:at]


class Pieces:
    """Every run of 2 and of 3 letters in the train answers."""

    def __init__(self, answers: Iterable[str]) -> None:
        self._texts = frozenset(answers)
        self._held = Counter(run for text in self._texts for n in PIECES for run in _runs(text, n))

    def shares(self, text: str) -> tuple[float, ...]:
        """For each length of `PIECES`, the share of `text`'s runs that a train answer holds, itself left out; 0-1."""
        least = 2 if text in self._texts else 1
        runs = [_runs(text, n) for n in PIECES]
        return tuple(sum(self._held[run] >= least for run in some) / len(some) if some else 0.0 for some in runs)


def _runs(text: str, n: int) -> set[str]:
    letters = "".join(char for char in text if char.isalnum())
    return {letters[place : place + n] for place in range(len(letters) - n + 1)}
