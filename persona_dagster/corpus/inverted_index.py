"""Inverted lists: under which of its rarest grams a text is found by those that may be like it.

Prefix, length and positional filters and a bitmap bound (AllPairs, PPJoin: Bayardo 2007, Xiao 2008): no pair at or
above the threshold is ever lost, and what else comes out the exact count rejects. 8 bytes a posting, 24 a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_dagster.corpus.grams import AT_ONCE, I64, U32, U64, GramSets, blocks, gram_sets, ranges, text_blocks

# A posting is one number: 28 bits of gram, 24 of row (by size, so that "shorter" is "smaller"), 12 of place. A gram
# cut to 28 bits and a place cut off at 4,095 only add candidates.
ROW_BITS, PLACE_BITS = 24, 12
LAST_PLACE = (1 << PLACE_BITS) - 1
ROW, PLACE, TOKEN = np.uint64(PLACE_BITS), np.uint64(LAST_PLACE), np.uint64(ROW_BITS + PLACE_BITS)
# Bits that tell texts apart: (texts of more grams than this, 64-bit words for each). All bits of too small a map are
# set, and tell nothing: 128 bits are full at 64 grams (15 rows in 100 have more), 1,024 at 1,000 (1 in 100; with 8,192
# bits for those, 18 of the 19 million characters that were counted in vain on the real corpus are not).
BITMAPS = ((0, 2), (64, 16), (768, 128))
HASH = np.uint64(0xC2B2AE3D27D4EB4F)
BIT = np.uint64(0xD6E8FEB86659FD93)
Rows = tuple[I64, I64]


class TooManyTextsError(ValueError):
    """More distinct texts than a posting has room for."""


def least(sizes: I64, share: float) -> I64:
    """ceil(share * size), safe against floating point: 0.7 * 10 is 7.000000000000001 for some factors."""
    return np.ceil(sizes * share - 1e-9).astype(np.int64)


def _bitmaps(sets: GramSets, above: int, words: int) -> U64:
    """A bit for each hashed gram, of rows of more than `above`: bits that differ are a lower bound of grams that do."""
    rows = np.flatnonzero(sets.sizes > above)
    sizes = sets.sizes[rows]
    bits = (sets.grams[ranges(sets.offsets[rows], sizes)] * BIT) >> np.uint64(64 - (words * 64).bit_length() + 1)
    found = np.zeros((len(rows), words * 64), bool)
    found[np.repeat(np.arange(len(rows)), sizes), bits.astype(np.int64)] = True
    return np.packbits(found, axis=1).view(np.uint64)


@dataclass
class Prefixes:
    """The postings of texts, and what the filters need of each: rows by size, whatever their owner calls them."""

    threshold: float
    keys: U64  # postings, ascending
    rows: U32  # the owner's number of every row here
    sizes: U32  # distinct grams, ascending
    bitmaps: list[U64]  # one of BITMAPS each, (the last rows: those of so many grams, words)

    @classmethod
    def of(cls, texts: pl.Series, numbers: U32, ranks: U32, threshold: float) -> Prefixes:
        """Of texts that are called `numbers`; those of less than three letters have no grams, and are left out."""
        tokens, sizes = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
        bitmaps = [[np.empty((0, words), np.uint64)] for _, words in BITMAPS]
        for some in text_blocks(texts):
            sets = gram_sets(some, ranks)
            grams = sets.grams[ranges(sets.offsets[:-1], _probe(sets.sizes, threshold))]
            tokens.append(((grams * HASH) >> TOKEN).astype(np.uint32))
            sizes.append(sets.sizes)
            for level, (above, words) in zip(bitmaps, BITMAPS, strict=True):
                level.append(_bitmaps(sets, above, words))
        size = np.concatenate(sizes)
        order = np.argsort(size, kind="stable")
        order = order[np.count_nonzero(size == 0) :]
        if len(order) >= 1 << ROW_BITS:
            raise TooManyTextsError(f"{len(order):,} distinct texts: at most {1 << ROW_BITS:,} are compared at once")
        place = np.zeros(len(size), np.uint64)
        place[order] = np.arange(len(order), dtype=np.uint64)
        probe = _probe(size, threshold)
        keys = np.empty(int(probe.sum()), np.uint64)
        row = posting = 0
        for token, part in zip(tokens, sizes, strict=True):
            here = slice(row, row + len(part))
            at = np.minimum(ranges(np.zeros(len(part), np.int64), probe[here]), LAST_PLACE).astype(np.uint64)
            keys[posting : posting + len(token)] = (
                (token.astype(np.uint64) << TOKEN) | np.repeat(place[here] << ROW, probe[here]) | at
            )
            row, posting = row + len(part), posting + len(token)
        keys.sort()
        rows, counts = numbers[order].astype(np.uint32), size[order].astype(np.uint32)
        return cls(threshold, keys, rows, counts, _in_order(bitmaps, size, order))

    @classmethod
    def merged(cls, parts: list[Prefixes], alive: NDArray[np.bool_]) -> Prefixes:
        """One out of several of one threshold, without the rows that are alive no more."""
        sizes = np.concatenate([part.sizes for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(sizes, kind="stable")
        order = order[alive[rows[order]]]
        place = np.full(len(sizes), -1, np.int64)
        place[order] = np.arange(len(order))
        keys, first = [np.empty(0, np.uint64)], 0
        for part in parts:
            moved = place[first + part._row(part.keys)]
            stays = moved >= 0
            token_and_place = part.keys & ~(np.uint64((1 << ROW_BITS) - 1) << ROW)
            keys.append(token_and_place[stays] | (moved[stays].astype(np.uint64) << ROW))
            first += len(part.rows)
        every = np.concatenate(keys)
        every.sort()
        bitmaps = _in_order(zip(*(part.bitmaps for part in parts), strict=True), sizes, order)
        return cls(parts[0].threshold, every, rows[order], sizes[order], bitmaps)

    @staticmethod
    def _row(keys: U64) -> I64:
        return ((keys >> ROW) & np.uint64((1 << ROW_BITS) - 1)).astype(np.int64)

    def _from(self, keys: U64, rows: I64) -> U64:
        """Where the postings of a key's gram begin whose row is at least `rows`."""
        return ((keys >> TOKEN) << TOKEN) | (rows.astype(np.uint64) << ROW)

    def within(self, fresh: NDArray[np.bool_] | None = None) -> Rows:
        """Pairs of rows that may be alike; with `fresh`, by the owner's number, only those that hold a fresh row."""
        sizes = self.sizes.astype(np.int64)
        shortest = np.searchsorted(sizes, least(sizes, self.threshold))  # first row that is long enough for each
        index = _index(sizes, self.threshold)
        new = None if fresh is None else fresh[self.rows]
        found = [np.empty(0, np.uint64)]
        for every in self._blocks():
            same = every[1:] >> TOKEN == every[:-1] >> TOKEN
            keys = every[np.concatenate((same, [False])) | np.concatenate(([False], same))]  # seen once: pairs nobody
            row, place = self._row(keys), (keys & PLACE).astype(np.int64)
            indexed = np.flatnonzero(place < index[row])
            before = np.searchsorted(indexed, np.arange(len(keys)))  # indexed postings that stand before each
            first = np.searchsorted(keys[indexed], self._from(keys, shortest[row]))
            counts = np.maximum(before - first, 0)
            probes = np.flatnonzero(counts)
            for some in blocks(counts[probes], len(probes)):
                chosen = probes[some]
                entry = np.repeat(chosen, counts[chosen])
                partner = indexed[ranges(first[chosen], counts[chosen])]
                x, y = row[entry], row[partner]
                pairs = (x != y) & _in_place(sizes[x], sizes[y], place[entry], place[partner], self.threshold)
                if new is not None:
                    pairs &= new[x] | new[y]
                found.append(_alike(self, x[pairs], self, y[pairs]))
        return self._named(self, found)

    def across(self, other: Prefixes) -> Rows:
        """Pairs `(row of self, row of other)` that may be alike, `other` being the smaller by far."""
        theirs, ours = other.sizes.astype(np.int64), self.sizes
        shortest = np.searchsorted(ours, least(theirs, self.threshold))
        longest = np.searchsorted(ours, np.floor(theirs / self.threshold + 1e-9).astype(np.int64), side="right")
        row, place = self._row(other.keys), (other.keys & PLACE).astype(np.int64)
        first = np.searchsorted(self.keys, self._from(other.keys, shortest[row]))
        at = np.minimum(first, len(self.keys) - 1)
        met = np.flatnonzero(self.keys[at] >> TOKEN == other.keys >> TOKEN)  # most grams are nobody else's
        row, place, first = row[met], place[met], first[met]
        counts = np.searchsorted(self.keys, self._from(other.keys[met], longest[row])) - first
        found = [np.empty(0, np.uint64)]
        for some in blocks(counts, max(len(counts), 1)):
            entry = np.repeat(np.arange(some.start, some.stop), counts[some])
            keys = self.keys[ranges(first[some], counts[some])]
            x, y = row[entry], self._row(keys)
            at_x, at_y = place[entry], (keys & PLACE).astype(np.int64)
            size_x, size_y = theirs[x], ours[y].astype(np.int64)
            # The shorter one is found by fewer of its grams: see `_index`.
            shorter, at = np.minimum(size_x, size_y), np.where(size_y <= size_x, at_y, at_x)
            pairs = (at < _index(shorter, self.threshold)) & _in_place(size_x, size_y, at_x, at_y, self.threshold)
            found.append(_alike(self, y[pairs], other, x[pairs]))
        return self._named(other, found)

    def _named(self, other: Prefixes, found: Iterable[U64]) -> Rows:
        ours, theirs = _unpacked(np.unique(np.concatenate(list(found))))
        return self.rows[ours].astype(np.int64), other.rows[theirs].astype(np.int64)

    def _blocks(self) -> Iterable[U64]:
        """The postings, all of a gram together, a block at a time."""
        start = 0
        while start < len(self.keys):
            last = self.keys[min(start + AT_ONCE, len(self.keys)) - 1]
            stop = int(np.searchsorted(self.keys, last | np.uint64((1 << (ROW_BITS + PLACE_BITS)) - 1), side="right"))
            yield self.keys[start:stop]
            start = stop


def _in_order(bitmaps: Iterable[Sequence[U64]], sizes: I64 | U32, order: I64) -> list[U64]:
    """Bitmaps made in parts, those of each level as one array, by rows in this order."""
    return [
        np.concatenate(parts)[(np.cumsum(sizes > above) - 1)[order[sizes[order] > above]]]
        for parts, (above, _) in zip(bitmaps, BITMAPS, strict=True)
    ]


def _probe(sizes: I64, threshold: float) -> I64:
    """How many of a row's rarest grams look for partners among shorter rows."""
    return np.where(sizes > 0, sizes - least(sizes, threshold) + 1, 0)


def _index(sizes: I64, threshold: float) -> I64:
    """How many of a row's rarest grams longer rows can find it by."""
    return sizes - least(sizes, 2 * threshold / (1 + threshold)) + 1


def _in_place(size_x: I64, size_y: I64, at_x: I64, at_y: I64, threshold: float) -> NDArray[np.bool_]:
    """Whether enough grams stand behind the one that is shared."""
    need = least(size_x + size_y, threshold / (1 + threshold))
    return np.minimum(size_x - at_x, size_y - at_y) >= need


def _alike(left: Prefixes, x: I64, right: Prefixes, y: I64) -> U64:
    """Distinct pairs that the bitmaps do not rule out, packed."""
    packed = np.unique((x.astype(np.uint64) << np.uint64(32)) | y.astype(np.uint64))
    x, y = _unpacked(packed)
    total = left.sizes[x].astype(np.int64) + right.sizes[y]
    most = total - 2 * least(total, left.threshold / (1 + left.threshold))  # grams in which they may differ
    for ours, theirs in zip(left.bitmaps, right.bitmaps, strict=True):
        # What has no bitmap of this level, being too short, comes out negative, and stays.
        first, second = x - (len(left.rows) - len(ours)), y - (len(right.rows) - len(theirs))
        there = np.flatnonzero((first >= 0) & (second >= 0))
        near = np.ones(len(packed), bool)
        for some in blocks(np.full(len(there), 2 * ours.shape[1])):
            pair = there[some]
            near[pair] = _bits_apart(ours[first[pair]], theirs[second[pair]]) <= most[pair]
        packed, x, y, most = packed[near], x[near], y[near], most[near]
    return packed


def _bits_apart(left: U64, right: U64) -> I64:
    return np.bitwise_count(left ^ right).sum(axis=1, dtype=np.int64)


def _unpacked(pairs: U64) -> Rows:
    return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
