"""Identifiers that are hidden: a tagger over characters, for what no pattern foresees.

Whoever evades a filter invents: remarks between the pieces, digits by sound, an order told in words. Patterns know what
their author thought of; this reads each character among its neighbours, up to 64 to either side. A small convolutional
network (embeddings, then dilated residual layers, as WaveNet's and ByteNet's) gives every character its kind or none.
It was learned by benchmarks/tagger.py from lines written for it by many hands and from real rows that hold nothing.

A bag of bigrams rules most text out first, at a fiftieth of the cost. numpy alone: cleaning imports no torch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from persona_dagster.corpus.personal_data.normalise import FOLD, HAN_DIGITS

# What a character can be part of, 0 nothing; as the placeholders name it.
KINDS = (
    "", "PHONE", "EMAIL", "LINE_ID", "CHAT_ID", "ADDRESS", "ID", "BANK", "PASSPORT", "PLATE", "STUDENT_ID",
)  # fmt: skip
WEIGHTS = Path(__file__).with_name("tagger.npz")
DILATIONS = (1, 2, 4, 8, 16, 32)
REACH = 1 + sum(DILATIONS)  # characters to either side that a decision rests on
PAD, UNKNOWN = 0, 1
BIGRAMS, AROUND = 1 << 14, 24  # hashed bigrams of the first stage, and how many to either side it adds up
MARGIN = 40  # characters read to either side of what the first stage passes
LONGEST = 320  # characters read at once
CERTAIN, LIKELY = 0.8, 0.4  # an identifier is one from the first on; its other pieces go from the second on
PLAIN = 0.98  # the first for what is hidden in no way, and patterns left: mostly numbers of goods
TABLE = 0.9  # the same for several pieces that are words or digits alone
NEAR = 2  # characters that may part one piece
LEAST = 4  # letters and digits of an identifier

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Tagged = tuple[int, int, str]  # start, end, kind

_LINE, _DIGIT, _OTHER_DIGIT, _LOWER, _UPPER, _OTHER_LETTER, _HAN_DIGIT, _RADIO, _BOPOMOFO = range(1, 10)
_HAN, _SPACE, _SIGN, _MARK = range(10, 14)
CLASSES = 14


def folded(character: str) -> str:
    """One spelling of a character; every digit is 0."""
    plain = unicodedata.normalize("NFKC", character).translate(FOLD)[:1].lower() or character
    return "0" if plain.isdigit() else plain


# Of what is no ASCII letter or digit, however it is spelt: the first that holds.
_CLASSES: tuple[tuple[int, Callable[[str], bool]], ...] = (
    (_LINE, "\n".__eq__),
    (_HAN_DIGIT, lambda character: ord(character) in HAN_DIGITS),
    (_RADIO, lambda character: character in "洞么幺兩拐勾"),
    (_BOPOMOFO, lambda character: "\u3105" <= character <= "\u312f" or character in "ˊˇˋ˙"),
    (_HAN, lambda character: "\u3400" <= character <= "\u9fff"),
    (_SPACE, str.isspace),
    (_SIGN, lambda character: unicodedata.category(character) in ("So", "Sk")),
    (_MARK, bool),
)


def class_of(character: str) -> int:
    plain = unicodedata.normalize("NFKC", character).translate(FOLD)[:1]
    if plain.isascii() and plain.isdigit():
        return _DIGIT if character == plain else _OTHER_DIGIT
    if plain.isascii() and plain.isalpha():
        return _OTHER_LETTER if character != plain else _LOWER if plain.islower() else _UPPER
    return next(number for number, holds in _CLASSES if holds(character))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


class Alphabet:
    """Characters as numbers: which it is, of those that are known, and its class. Filled as characters are met."""

    def __init__(self, known: str) -> None:
        self._number = {character: number for number, character in enumerate(known, start=UNKNOWN + 1)}
        self._ids = np.full(0x110000, -1, np.int16)
        self._classes = np.zeros(0x110000, np.int8)

    def read(self, text: str) -> tuple[Ints, Ints]:
        """(n,), (n,): ids and classes of the characters of `text`."""
        codes = code_points(text)
        ids = self._ids[codes]
        for code in np.unique(codes[ids < 0]):
            self._ids[code] = self._number.get(folded(chr(code)), UNKNOWN)
            self._classes[code] = class_of(chr(code))
        return self._ids[codes].astype(np.int64), self._classes[codes].astype(np.int64)


def bigrams(ids: Ints) -> Ints:
    """(n - 1,): numbers of neighbours, below `BIGRAMS`."""
    return ((ids[..., :-1] * 4099 + ids[..., 1:]) * 40503 >> 4) & (BIGRAMS - 1)


@dataclass(frozen=True)
class Tagger:
    """The weights of both stages."""

    arrays: dict[str, Floats]
    known: str
    threshold: float  # of the first stage

    @cached_property
    def alphabet(self) -> Alphabet:
        return Alphabet(self.known)

    def tag(self, texts: Sequence[str]) -> list[list[Tagged]]:
        """Of each text the pieces of hidden identifiers, in order."""
        found: list[list[Tagged]] = [[] for _ in texts]
        whole = "".join(f"{text}\n" for text in texts)
        codes, (ids, classes) = code_points(whole), self.alphabet.read(whole)
        edges = np.cumsum([0, *(len(text) + 1 for text in texts)])
        counted = np.concatenate([[0], np.cumsum(counted_in(classes))])
        stretches = [one for one in self._stretches(ids, edges) if counted[one[2]] - counted[one[1]] >= LEAST]
        # One core: the matrices are small, and whoever cleans much has a process a core.
        with _blas().limit(limits=1):
            for row, start, end, chances in self._read(ids, classes, stretches):
                first = int(edges[row])
                some = pieces(chances, codes[start:end], classes[start:end])
                found[row] += [(start - first + a, start - first + b, kind) for a, b, kind in some]
        return found

    def _stretches(self, ids: Ints, edges: Ints) -> Iterator[tuple[int, int, int]]:
        """(row, start, end): what the first stage passes on, with some text around."""
        if len(ids) < 2:
            return
        row_of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        sums = np.concatenate([[0.0], np.cumsum(self.arrays["first"][bigrams(ids)], dtype=np.float64)])
        places = np.arange(len(ids))
        left = np.maximum(places - AROUND, edges[row_of])
        right = np.minimum(places + AROUND + 1, edges[row_of + 1] - 1)
        passed = np.flatnonzero(sums[right] - sums[left] > self.threshold)
        if not len(passed):
            return
        rows = row_of[passed]
        starts = np.maximum(passed - MARGIN, edges[rows])
        ends = np.minimum(passed + MARGIN, edges[rows + 1] - 1)
        fresh = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]) | (starts[1:] > ends[:-1])])
        for at, to in zip(fresh, [*fresh[1:], len(passed)], strict=True):
            start, last = int(starts[at]), int(ends[to - 1])
            for left_end in range(start, last, LONGEST):
                yield int(rows[at]), left_end, min(left_end + LONGEST, last)

    def _read(
        self, ids: Ints, classes: Ints, stretches: list[tuple[int, int, int]]
    ) -> Iterator[tuple[int, int, int, Floats]]:
        """(row, start, end, (characters, kinds) chances) of each stretch; those of like length are read together."""
        order = sorted(range(len(stretches)), key=lambda n: stretches[n][2] - stretches[n][1])
        read: dict[int, Floats] = {}
        for at in range(0, len(order), 32):
            some = order[at : at + 32]
            longest = stretches[some[-1]][2] - stretches[some[-1]][1]
            batch = np.full((2, len(some), longest), PAD)
            for n, stretch in enumerate(some):
                _, start, end = stretches[stretch]
                batch[0, n, : end - start], batch[1, n, : end - start] = ids[start:end], classes[start:end]
            chances = self.chances(*batch)
            read |= {stretch: chances[n] for n, stretch in enumerate(some)}
        for n, (row, start, end) in enumerate(stretches):
            yield row, start, end, read[n][: end - start]

    def chances(self, ids: Ints, classes: Ints) -> Floats:
        """(rows, characters, kinds): how likely each is."""
        own, here = self.arrays, (classes != PAD)[..., None]  # what fills a row up says nothing
        hidden = np.concatenate([own["classes"][classes], own["characters"][ids]], -1) * here
        hidden = np.maximum(_convolved(hidden, own["weight_0"], own["bias_0"], 1), 0) * here
        for layer, dilation in enumerate(DILATIONS, start=1):
            more = _convolved(hidden, own[f"weight_{layer}"], own[f"bias_{layer}"], dilation)
            hidden += np.maximum(more, 0, out=more) * here
        logits = hidden @ own["weight_out"] + own["bias_out"]
        raised = np.exp(logits - logits.max(-1, keepdims=True))
        # So that the sums of another machine, in another order, decide alike.
        return np.round(raised / raised.sum(-1, keepdims=True), 4)


def _convolved(values: Floats, weight: Floats, bias: Floats, dilation: int) -> Floats:
    """A convolution of three taps along the characters, zeros beyond both ends; `weight`: (3, in, out)."""
    out: Floats = values @ weight[1] + bias
    if values.shape[1] > dilation:
        out[:, dilation:] += values[:, :-dilation] @ weight[0]
        out[:, :-dilation] += values[:, dilation:] @ weight[2]
    return out


_NUMBERS = re.compile(r"[0-9\s,.]+")
_NUMBER = re.compile(r"[0-9]+(?:[-. /][0-9]+){0,4}")
_WORD = re.compile(r"\w+(?:[-.@/]\w+){0,3}", re.ASCII)


def counted_in(classes: Ints) -> Bools:
    """Which characters are letters or digits, in any script that spells either."""
    return (classes >= _DIGIT) & (classes <= _BOPOMOFO)


def pieces(chances: Floats, codes: npt.NDArray[np.uint32], classes: Ints) -> list[Tagged]:
    """Runs of characters that are likely part of an identifier, where one not far away is certain and all of them
    together have the letters and digits of an identifier; whole words of Latin letters and digits. `codes`: the
    characters, (characters,)."""
    hidden = 1 - chances[:, 0]
    certain, likely = np.flatnonzero(hidden >= CERTAIN), np.flatnonzero(hidden >= LIKELY)
    if not len(certain):
        return []
    runs = np.split(likely, np.flatnonzero(np.diff(likely) > NEAR + 1) + 1)
    runs = [run for run in runs if len(run) > 1 or hidden[run[0]] >= CERTAIN]
    spans = [_whole(classes, run) for run in runs if np.abs(certain - run[:, None]).min() <= REACH]
    spans = [span for span in spans if not _is_address_sign(codes, *span)]
    flags = (codes >= 0x1F1E6) & (codes <= 0x1F1FF)  # letters by their names
    counted = counted_in(classes) & ~flags
    if sum(int(counted[start:end].sum()) for start, end in spans) < LEAST:
        return []
    if _plain([codes[start:end] for start, end in spans], hidden.max()):
        return []
    return [(start, end, KINDS[1 + int(chances[start:end, 1:].sum(0).argmax())]) for start, end in spans if start < end]


def _whole(classes: Ints, run: npt.NDArray[Any]) -> tuple[int, int]:
    """A run without the blanks and marks about it, and with the rest of the words that it cuts."""
    start, end = int(run[0]), int(run[-1]) + 1
    said = (classes >= _DIGIT) & (classes <= _HAN)
    while start < end and not said[start]:
        start += 1
    while start < end and not said[end - 1]:
        end -= 1
    letters = (classes >= _DIGIT) & (classes <= _HAN_DIGIT)
    while 0 < start < end and letters[start - 1] and letters[start]:
        start -= 1
    while start < end < len(letters) and letters[end] and letters[end - 1]:
        end += 1
    return start, end


def _is_address_sign(codes: npt.NDArray[np.uint32], start: int, end: int) -> bool:
    """Whether it is one ASCII word about a plain @: patterns know what is an address there, and what a decorator."""
    word, around = codes[start:end], codes[max(0, start - 1) : end + 1]
    return bool(((word < 0x80) & (word != ord(" "))).all() and (around == ord("@")).any())


def _plain(pieces: list[npt.NDArray[np.uint32]], hidden: float) -> bool:
    """Whether all that is tagged is hidden in no way: a number of few groups, a word that is not quite certain, or a
    column of numbers or plain words, such as the prices of shares."""
    first, *more = (codes.astype("<u4").tobytes().decode("utf-32-le", "replace") for codes in pieces)
    if more:
        return hidden < TABLE and all(_NUMBERS.fullmatch(text) or _WORD.fullmatch(text) for text in (first, *more))
    return bool(_NUMBER.fullmatch(first) or (_WORD.fullmatch(first) and hidden < PLAIN))


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@lru_cache(maxsize=1)
def packaged() -> Tagger:
    with np.load(WEIGHTS, allow_pickle=False) as stored:
        arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
    known, threshold = str(arrays.pop("known")), float(arrays.pop("threshold"))
    return Tagger({name: values.astype(np.float32) for name, values in arrays.items()}, known, threshold)


def tag(texts: Sequence[str]) -> list[list[Tagged]]:
    """Of each text the pieces of hidden identifiers `(start, end, kind)`, in order, by the packaged weights."""
    return packaged().tag(texts)
