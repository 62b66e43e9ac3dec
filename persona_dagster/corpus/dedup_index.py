"""What the comparison of texts remembers between runs, so that a new row costs its own comparison and no more.

No text: hashes of the texts seen, the node of each (a distinct normalised text), the postings under which a node can
be found, the pairs found. A cache: where it is absent, torn or of another version, it is made anew from the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from persona_dagster.corpus import setjoin
from persona_dagster.corpus.array_store import Arrays, ArrayStore
from persona_dagster.corpus.grams import I64, U32, U64, bucket_ranks
from persona_dagster.corpus.inverted_index import BITMAPS, Prefixes
from persona_dagster.digest import sha256, text_digest

THRESHOLD = 0.7
SHORTEST = 5  # letters; below, peers call 推, 噓 and 笑死 copies of each other
# With more new texts, or more dead nodes, than this share everything is compared anew: it costs about the same, and
# orders the grams by today's frequencies.
ANEW = 0.2
SEGMENTS = 8  # each increment adds one; so many are searched one by one before they become one
ROWS_AT_ONCE = 1 << 17


def normalised(column: pl.Expr) -> pl.Expr:
    """What is compared: letters and digits, compatibility forms and case folded, within the BMP."""
    return (
        column.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{N}]+", "")
        .str.replace_all(r"[\U00010000-\U0010FFFF]", "\ue000")
    )


@dataclass(frozen=True)
class CorpusRows:
    """The rows of a corpus, which may lie in Parquet: so many in memory at a time as one step needs."""

    frame: pl.LazyFrame

    @cached_property
    def height(self) -> int:
        return int(self.frame.select(pl.len()).collect().item())

    def parts(self, *columns: str) -> Iterator[tuple[int, pl.DataFrame]]:
        """Of all rows, in their order; each part with the number of its first row. There is one at least."""
        for start in range(0, max(self.height, 1), ROWS_AT_ONCE):
            yield start, self._part(start, columns)

    def texts(self, rows: I64) -> pl.Series:
        """The texts of these rows."""
        order = np.argsort(rows, kind="stable")
        found, wanted = [pl.Series("text", dtype=pl.String)], rows[order]
        for start in np.unique(wanted // ROWS_AT_ONCE) * ROWS_AT_ONCE:
            here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + ROWS_AT_ONCE)]
            found.append(self._part(int(start), ("text",))["text"].gather(here - start))
        return pl.concat(found).fill_null("").gather(np.argsort(order, kind="stable"))

    def _part(self, start: int, columns: tuple[str, ...]) -> pl.DataFrame:
        return self.frame.select(columns).slice(start, ROWS_AT_ONCE).collect()


def _normalised(texts: pl.Series) -> pl.Series:
    """The same of a column, a part at a time: each step of it is a copy."""
    parts = (texts[start : start + ROWS_AT_ONCE] for start in range(0, max(len(texts), 1), ROWS_AT_ONCE))
    return pl.concat([part.to_frame("text").select(normalised(pl.col("text")))["text"] for part in parts])


@dataclass
class Hashes:
    """128 bits of each of many texts, in two halves."""

    one: U64
    two: U64

    @classmethod
    def of_texts(cls, rows: CorpusRows) -> Hashes:
        """By Polars, from two seeds: they tell texts apart within one of its versions, 18 times faster than xxh3."""
        found = cls(np.empty(rows.height, np.uint64), np.empty(rows.height, np.uint64))
        for start, part in rows.parts("text"):
            some = slice(start, start + len(part))
            text = part.select(pl.col("text").fill_null(""))
            found.one[some] = text.select(pl.col("text").hash(1))["text"].to_numpy()
            found.two[some] = text.select(pl.col("text").hash(2) ^ pl.col("text").str.len_bytes())["text"].to_numpy()
        return found

    @classmethod
    def of_norms(cls, norms: pl.Series) -> Hashes:
        """The stable hash (xxh3) of normalised texts."""
        digests = b"".join(xxhash.xxh3_128_digest(norm.encode()) for norm in norms)
        halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        return cls(halves[:, 0].copy(), halves[:, 1].copy())

    def __getitem__(self, rows: I64) -> Hashes:
        return Hashes(self.one[rows], self.two[rows])

    def firsts(self) -> I64:
        """The places at which something stands for the first time, ascending."""
        order = np.lexsort((self.two, self.one))
        same = (self.one[order][1:] == self.one[order][:-1]) & (self.two[order][1:] == self.two[order][:-1])
        return np.sort(order[np.concatenate(([True], ~same))] if len(order) else order)


@dataclass
class Names:
    """The node of each hash, ascending by its first half."""

    one: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    two: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    node: U32 = field(default_factory=lambda: np.empty(0, np.uint32))

    def find(self, hashes: Hashes) -> I64:
        """The nodes of hashes, -1 for the unknown."""
        found = np.full(len(hashes.one), -1, np.int64)
        # Nearly in order, the search stays in the cache: three times faster. 16 bits sort in a fifth of the time of 64.
        sought = np.argsort((hashes.one >> np.uint64(48)).astype(np.uint16), kind="stable")
        at = np.searchsorted(self.one, hashes.one[sought])
        while len(sought):  # once, but for texts that share their first half
            inside = at < len(self.one)
            sought, at = sought[inside], at[inside]
            near = self.one[at] == hashes.one[sought]
            same = near & (self.two[at] == hashes.two[sought])
            found[sought[same]] = self.node[at[same]]
            others = near & ~same
            sought, at = sought[others], at[others] + 1
        return found

    def add(self, hashes: Hashes, nodes: I64) -> None:
        order = np.argsort(hashes.one)
        at = np.searchsorted(self.one, hashes.one[order])
        self.one = np.insert(self.one, at, hashes.one[order])
        self.two = np.insert(self.two, at, hashes.two[order])
        self.node = np.insert(self.node, at, nodes[order].astype(np.uint32))

    def keep(self, alive: NDArray[np.bool_]) -> None:
        stays = alive[self.node]
        if not stays.all():
            self.one, self.two, self.node = self.one[stays], self.two[stays], self.node[stays]


def version() -> str:
    """Hash of all that decides what an index means."""
    here = Path(__file__).parent
    names = ("grams.py", "inverted_index.py", "setjoin.py", "dedup_index.py", "array_store.py")
    return text_digest(pl.__version__, *(sha256((here / name).read_bytes()) for name in names))[:16]


def differ_beyond_digits(left: pl.Series, right: pl.Series) -> NDArray[np.bool_]:
    """False where two texts are the same but for their numbers: two days of a diary are no copies."""
    shapes = [texts.str.replace_all(r"\p{N}+", "0") for texts in (left, right)]
    return (shapes[0] != shapes[1]).to_numpy()


POSTINGS = ("keys", "rows", "sizes")
PAIRS = pl.Schema({"a": pl.UInt32, "b": pl.UInt32, "jaccard": pl.Float64})


@dataclass
class DedupIndex:
    """Texts compared so far. `take_in` makes it that of a corpus, `save` keeps it."""

    texts: Names = field(default_factory=Names)
    norms: Names = field(default_factory=Names)
    letters: U32 = field(default_factory=lambda: np.empty(0, np.uint32))  # by node
    pairs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAIRS))
    ranks: U32 = field(default_factory=lambda: np.empty(0, np.uint32))  # of the buckets of grams
    segments: list[Prefixes] = field(default_factory=list)
    once: bool = False  # nothing will be looked up later, so no segment is kept

    @classmethod
    def load(cls, store: ArrayStore) -> DedupIndex:
        """The index that is kept; an empty one where there is none that can be read."""
        parts = store.load(version())
        if not parts:
            return cls()
        segments = [name.removesuffix("keys") for name in parts if name.endswith(".keys")]
        return cls(
            Names(*(parts[f"texts.{half}"] for half in ("one", "two", "node"))),
            Names(*(parts[f"norms.{half}"] for half in ("one", "two", "node"))),
            parts["letters"],
            pl.DataFrame({name: parts[f"pairs.{name}"] for name in PAIRS}, schema=PAIRS),
            parts["ranks"],
            [
                Prefixes(
                    THRESHOLD,
                    bitmaps=[parts[f"{segment}bitmaps.{level}"] for level in range(len(BITMAPS))],
                    **{name: parts[segment + name] for name in POSTINGS},
                )
                for segment in segments
            ],
        )

    def save(self, store: ArrayStore) -> None:
        parts: Arrays = {"letters": self.letters, "ranks": self.ranks}
        for kind, names in (("texts", self.texts), ("norms", self.norms)):
            parts |= {f"{kind}.one": names.one, f"{kind}.two": names.two, f"{kind}.node": names.node}
        parts |= {f"pairs.{name}": self.pairs[name].to_numpy() for name in PAIRS}
        for n, part in enumerate(self.segments):
            parts |= {f"{n}.{name}": getattr(part, name) for name in POSTINGS}
            parts |= {f"{n}.bitmaps.{level}": bitmaps for level, bitmaps in enumerate(part.bitmaps)}
        store.save(parts, version())

    def take_in(self, rows: CorpusRows) -> tuple[Hashes, I64]:
        """The texts of a corpus: what tells them apart, and the node of each; all pairs of nodes are compared.

        Nodes that no row has any more are forgotten.
        """
        hashes = Hashes.of_texts(rows)
        node = self.texts.find(hashes)
        alive = np.bincount(node[node >= 0], minlength=len(self.letters)) > 0
        if (node < 0).sum() > ANEW * len(node) or alive.sum() < (1 - ANEW) * len(alive):
            vars(self).update(vars(DedupIndex(once=self.once)))
            node[:] = -1
        elif not alive.all():
            self.texts.keep(alive)
            self.norms.keep(alive)
            self.pairs = self.pairs.filter(alive[self.pairs["a"].to_numpy()] & alive[self.pairs["b"].to_numpy()])
        new = np.flatnonzero(node < 0)
        if len(new):
            first = new[hashes[new].firsts()]
            self._compare(first, hashes[first], node, rows)
            node[new] = self.texts.find(hashes[new])
        return hashes, node

    def _compare(self, new: I64, hashes: Hashes, node: I64, rows: CorpusRows) -> None:
        """Texts never seen become known; who among them is alike, or like a known one, becomes a pair."""
        norms = _normalised(rows.texts(new))
        keys = Hashes.of_norms(norms)
        fresh = np.flatnonzero(self.norms.find(keys) < 0)
        fresh = fresh[keys[fresh].firsts()]
        first = len(self.letters)
        numbers = np.arange(first, first + len(fresh))
        self.norms.add(keys[fresh], numbers)
        self.texts.add(hashes, self.norms.find(keys))
        norms = norms.gather(fresh)
        letters = norms.str.len_chars().to_numpy()
        self.letters = np.concatenate((self.letters, letters.astype(np.uint32)))

        joined = letters >= SHORTEST
        compared = norms.filter(pl.Series(joined))
        if not len(self.ranks):
            self.ranks = bucket_ranks(compared)
        added = Prefixes.of(compared, numbers[joined].astype(np.uint32), self.ranks, THRESHOLD)
        row_of = np.full(first + len(fresh), -1, np.int64)
        row_of[numbers] = new[fresh]
        seen = np.flatnonzero(node >= 0)[::-1]
        row_of[node[seen]] = seen
        found = [added.within(), *(segment.across(added) for segment in self.segments)]
        left, right = (np.concatenate(side) for side in zip(*found, strict=True))
        self._confirm(left, right, norms, row_of, rows)
        if not self.once and len(added.rows):
            self.segments.append(added)
            if len(self.segments) > SEGMENTS:
                self.segments = [Prefixes.merged(self.segments, row_of >= 0)]

    def _confirm(self, left: I64, right: I64, newest: pl.Series, row_of: I64, rows: CorpusRows) -> None:
        """Candidates that are alike become pairs. A node without a row is dead: nobody's copy.

        `newest` are the normalised texts of the last nodes; those of the others are made again.
        """
        alive = (row_of[left] >= 0) & (row_of[right] >= 0)
        left, right = left[alive], right[alive]
        nodes, place = np.unique(np.concatenate((left, right)), return_inverse=True)
        first = len(row_of) - len(newest)
        known = nodes[nodes < first]
        norms = _normalised(rows.texts(row_of[known])).append(newest.gather(nodes[len(known) :] - first))
        x, y, jaccard = setjoin.confirmed(norms, place[: len(left)], place[len(left) :], THRESHOLD)
        pairs = pl.DataFrame({"a": nodes[x], "b": nodes[y], "jaccard": jaccard}).cast(PAIRS)
        pairs = pairs.filter(differ_beyond_digits(norms.gather(x), norms.gather(y)))
        self.pairs = pl.concat([self.pairs, pairs])
