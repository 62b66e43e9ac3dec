"""All pairs of texts with Jaccard similarity of character 3-grams >= t: exact, in numpy.

Prefix filter with the rarest grams first, length and positional filters, a bitmap bound, and an exact count on
what is left (AllPairs, PPJoin: Bayardo 2007, Xiao 2008). Recall and precision are 1 by construction, and for
short posts it is faster than MinHash, which loses a fifth of the pairs between 0.7 and 0.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# A gram of three UTF-16 units is 48 bits, mixed by a bijection: the upper bits name a bucket whose frequency orders
# the grams, the lower bits tell grams of a bucket apart. No dictionary, and no two grams ever collide.
BUCKET_BITS = 20
LOW_BITS = 48 - BUCKET_BITS
MASK48 = np.uint64((1 << 48) - 1)
MIX = np.uint64(0x9E3779B97F4B)  # odd, so multiplication modulo 2^48 is a bijection
ROWS_AT_ONCE = 1 << 16  # 16 bits of row and 48 of gram sort as one number
AT_ONCE = 1 << 21  # grams or pairs in work at a time: what is transient stays below 200 MB


@dataclass
class GramSets:
    """The distinct grams of every text, rarest first: row `i` is `grams[offsets[i]:offsets[i + 1]]`."""

    grams: U64
    offsets: I64

    @property
    def sizes(self) -> I64:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def followed_by(self, other: GramSets) -> GramSets:
        return GramSets(
            np.concatenate((self.grams, other.grams)),
            np.concatenate((self.offsets, self.offsets[-1] + other.offsets[1:])),
        )


def _slices(weights: I64, rows: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Consecutive rows whose weights add up to no more than AT_ONCE (or one row that is heavier)."""
    ends = np.cumsum(weights)
    start = 0
    while start < len(weights):
        base = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, base + AT_ONCE, side="right")), start + 1)
        yield slice(start, min(stop, start + rows))
        start = min(stop, start + rows)


def _letters(texts: list[str]) -> I64:
    return np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))


def _mixed_grams(texts: list[str]) -> tuple[U64, I64]:
    """3-grams of all texts (no row crosses a border) and how many each row has. Texts must lie in the BMP."""
    lengths = _letters(texts)
    units = np.frombuffer("".join(texts).encode("utf-16-le", "surrogatepass"), dtype=np.uint16).astype(np.uint64)
    if len(units) != lengths.sum():
        raise ValueError("setjoin: texts must be normalised to the BMP (dedup.normalised)")
    counts = np.maximum(lengths - 2, 0)
    if not counts.sum():
        return np.empty(0, np.uint64), counts
    every = (units[:-2] << np.uint64(32)) | (units[1:-1] << np.uint64(16)) | units[2:]
    starts = np.cumsum(lengths) - lengths
    within = np.zeros(len(units) + 1, np.int8)
    np.add.at(within, starts[counts > 0], 1)
    np.add.at(within, (starts + counts)[counts > 0], -1)
    grams = every[np.cumsum(within[: len(every)]).astype(bool)]
    grams = (grams * MIX) & MASK48
    grams ^= grams >> np.uint64(24)
    return (grams * MIX) & MASK48, counts


def bucket_ranks(texts: list[str]) -> NDArray[np.uint32]:
    """For every bucket of grams its place from rare to frequent: the order that all rows share."""
    frequency = np.zeros(1 << BUCKET_BITS, np.int64)
    for some in _slices(_letters(texts)):
        grams, _ = _mixed_grams(texts[some])
        frequency += np.bincount((grams >> np.uint64(LOW_BITS)).astype(np.int64), minlength=1 << BUCKET_BITS)
    ranks = np.empty(1 << BUCKET_BITS, np.uint32)
    ranks[np.argsort(frequency, kind="stable")] = np.arange(1 << BUCKET_BITS, dtype=np.uint32)
    return ranks


def gram_sets(texts: list[str], ranks: NDArray[np.uint32]) -> GramSets:
    """The gram sets of texts, each in the order that `ranks` gives."""
    letters = _letters(texts)
    found = np.empty(int(np.maximum(letters - 2, 0).sum()), np.uint64)  # pages that repeated grams leave are never used
    offsets = np.zeros(len(texts) + 1, np.int64)
    for some in _slices(letters):
        grams, counts = _mixed_grams(texts[some])
        rank = ranks[(grams >> np.uint64(LOW_BITS)).astype(np.int64)].astype(np.uint64)
        low = grams & np.uint64((1 << LOW_BITS) - 1)
        row = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
        keys = np.sort((row << np.uint64(48)) | (rank << np.uint64(LOW_BITS)) | low)
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))] if len(keys) else keys
        sizes = np.bincount((keys >> np.uint64(48)).astype(np.int64), minlength=len(counts))
        first = offsets[some.start]
        offsets[some.start + 1 : some.stop + 1] = first + np.cumsum(sizes)
        found[first : first + len(keys)] = keys & MASK48
    return GramSets(found[: offsets[-1]], offsets)


def _least(sizes: I64, share: float) -> I64:
    """ceil(share * size), safe against floating point: 0.7 * 10 is 7.000000000000001 for some factors."""
    return np.ceil(sizes * share - 1e-9).astype(np.int64)


def _ranges(starts: I64, counts: I64) -> I64:
    """Concatenated ranges `starts[i] .. starts[i] + counts[i]`."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _bitmaps(sets: GramSets, rows: I64) -> U64:
    """128 bits a row, one for each hashed gram: bits that differ are a lower bound of grams that differ."""
    sizes = sets.sizes[rows]
    bitmaps = np.empty((len(rows), 2), np.uint64)
    for some in _slices(sizes):
        grams = sets.grams[_ranges(sets.offsets[rows[some]], sizes[some])]
        bit = (grams * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(57)
        starts = np.cumsum(sizes[some]) - sizes[some]
        for word in range(2):
            here = np.where((bit >> np.uint64(6)) == word, np.uint64(1) << (bit & np.uint64(63)), np.uint64(0))
            bitmaps[some, word] = np.bitwise_or.reduceat(here, starts)
    return bitmaps


def overlaps(sets: GramSets, left: I64, right: I64) -> I64:
    """How many grams each pair of rows shares, counted exactly."""
    found = np.zeros(len(left), np.int64)
    sizes = sets.sizes
    for some in _slices(sizes[left] + sizes[right]):
        a, b = left[some], right[some]
        pair = np.arange(len(a), dtype=np.uint64) << np.uint64(48)
        keys = np.concatenate([
            np.repeat(pair, sizes[rows]) | sets.grams[_ranges(sets.offsets[rows], sizes[rows])] for rows in (a, b)
        ])  # fmt: skip
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(48)
        found[some] = np.bincount(twice.astype(np.int64), minlength=len(a))
    return found


def confirmed(sets: GramSets, left: I64, right: I64, threshold: float) -> tuple[I64, I64, NDArray[np.float64]]:
    """Those of the pairs whose jaccard is >= threshold, with it."""
    shared = overlaps(sets, left, right)
    total = sets.sizes[left] + sets.sizes[right]
    hit = shared >= _least(total, threshold / (1 + threshold))
    return left[hit], right[hit], shared[hit] / (total[hit] - shared[hit])


@dataclass
class _BySize:
    """Rows renumbered by size, so that "shorter" is "smaller", and how much of each row must be looked at."""

    order: I64  # row by place
    sizes: I64
    probe: I64  # grams of a row that look for partners among shorter rows
    index: I64  # grams of a row under which longer rows can find it


def _by_size(sets: GramSets, threshold: float) -> _BySize:
    order = np.argsort(sets.sizes, kind="stable")
    order = order[sets.sizes[order] > 0]
    sizes = sets.sizes[order]
    probe = sizes - _least(sizes, threshold) + 1
    return _BySize(order, sizes, probe, sizes - _least(sizes, 2 * threshold / (1 + threshold)) + 1)


def _candidates(sets: GramSets, rows: _BySize, threshold: float, fresh: NDArray[np.bool_] | None) -> U64:
    """Pairs of places that share a gram of their prefixes and pass the length and positional filters, packed."""
    none = np.empty(0, np.uint64)
    row_bits = int(len(rows.order) - 1).bit_length()
    place_bits = int(rows.probe.max()).bit_length()
    token_bits = np.uint64(64 - row_bits - place_bits)
    shift = np.uint64(row_bits + place_bits)
    keys = np.empty(int(rows.probe.sum()), np.uint64)
    filled = 0
    for some in _slices(rows.probe):
        probe = rows.probe[some]
        owner = np.repeat(np.arange(some.start, some.stop, dtype=np.uint64), probe)
        places = _ranges(np.zeros(len(probe), np.int64), probe).astype(np.uint64)
        grams = sets.grams[_ranges(sets.offsets[rows.order[some]], probe)]
        # A token shortened by a hash only adds candidates, which the count rejects.
        tokens = (grams * np.uint64(0xC2B2AE3D27D4EB4F)) >> (np.uint64(64) - token_bits)
        keys[filled : filled + len(grams)] = (tokens << shift) | (owner << np.uint64(place_bits)) | places
        filled += len(grams)
    keys.sort()
    same = keys[1:] >> shift == keys[:-1] >> shift
    keys = keys[np.concatenate((same, [False])) | np.concatenate(([False], same))]  # a token seen once pairs nobody
    if not len(keys):
        return none
    row = ((keys >> np.uint64(place_bits)) & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    place = (keys & np.uint64((1 << place_bits) - 1)).astype(np.int64)
    indexed = np.flatnonzero(place < rows.index[row])
    before = np.searchsorted(indexed, np.arange(len(keys)))  # indexed entries that stand before each entry
    shortest = np.searchsorted(rows.sizes, _least(rows.sizes, threshold)).astype(np.uint64)  # first row long enough
    first = np.searchsorted(keys[indexed], ((keys >> shift) << shift) | (shortest[row] << np.uint64(place_bits)))
    counts = np.maximum(before - first, 0)
    probes = np.flatnonzero(counts)
    found = [none]
    for some in _slices(counts[probes], len(probes)):
        chosen = probes[some]
        entry = np.repeat(chosen, counts[chosen])
        partner = indexed[_ranges(first[chosen], counts[chosen])]
        x, y = row[entry], row[partner]
        need = _least(rows.sizes[x] + rows.sizes[y], threshold / (1 + threshold))
        possible = np.minimum(rows.sizes[x] - place[entry], rows.sizes[y] - place[partner]) >= need
        possible &= x != y
        if fresh is not None:
            possible &= fresh[x] | fresh[y]
        found.append(np.unique((x[possible].astype(np.uint64) << np.uint64(32)) | y[possible].astype(np.uint64)))
    return np.unique(np.concatenate(found))


def similar_pairs(
    sets: GramSets, threshold: float = 0.7, fresh: NDArray[np.bool_] | None = None
) -> tuple[I64, I64, NDArray[np.float64]]:
    """All pairs of rows `(i, j, jaccard)` with jaccard >= threshold, i < j.

    With `fresh`, only pairs in which at least one row is fresh: what an increment adds.
    """
    rows = _by_size(sets, threshold)
    if not len(rows.order):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    pairs = _candidates(sets, rows, threshold, None if fresh is None else fresh[rows.order])
    if not len(pairs):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    x, y = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    total = rows.sizes[x] + rows.sizes[y]
    need = _least(total, threshold / (1 + threshold))
    seen, where = np.unique(np.concatenate((x, y)), return_inverse=True)
    bitmaps = _bitmaps(sets, rows.order[seen])
    apart = np.bitwise_count(bitmaps[where[: len(x)]] ^ bitmaps[where[len(x) :]]).sum(axis=1, dtype=np.int64)
    near = apart <= total - 2 * need
    a, b = rows.order[x[near]], rows.order[y[near]]
    return confirmed(sets, np.minimum(a, b), np.maximum(a, b), threshold)


@dataclass
class Postings:
    """Under which grams rows can be found later: the prefix of every row, by gram and size. 14 bytes an entry."""

    keys: U64  # 32 bits of gram, 32 of size. Grams shortened to one only add candidates, which the count rejects
    rows: NDArray[np.uint32]
    places: NDArray[np.uint16]  # how many of the row's grams stand before; cut off above 65,535, which only looks more

    @classmethod
    def of(cls, sets: GramSets, rows: NDArray[np.uint32], threshold: float) -> Postings:
        """The postings of gram sets whose rows are called `rows`."""
        sizes = sets.sizes
        prefix = np.where(sizes > 0, sizes - _least(sizes, threshold) + 1, 0)
        grams = sets.grams[_ranges(sets.offsets[:-1], prefix)]
        tokens = (grams * np.uint64(0xC2B2AE3D27D4EB4F)) >> np.uint64(32)
        keys = (tokens << np.uint64(32)) | np.repeat(sizes.astype(np.uint64), prefix)
        places = np.minimum(_ranges(np.zeros(len(sets), np.int64), prefix), 0xFFFF).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], np.repeat(rows.astype(np.uint32), prefix)[order], places[order])

    def merged(self, other: Postings) -> Postings:
        at = np.searchsorted(self.keys, other.keys)
        return Postings(
            np.insert(self.keys, at, other.keys),
            np.insert(self.rows, at, other.rows),
            np.insert(self.places, at, other.places),
        )

    @property
    def sizes(self) -> I64:
        return (self.keys & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def partners(self, other: Postings, threshold: float) -> tuple[I64, I64]:
        """Pairs `(row of self, row of other)` that share a gram of their prefixes and fit by size and place."""
        size = other.sizes
        token = (other.keys >> np.uint64(32)) << np.uint64(32)
        longest = np.floor(size / threshold + 1e-9).astype(np.uint64)
        first = np.searchsorted(self.keys, token | _least(size, threshold).astype(np.uint64))
        counts = np.searchsorted(self.keys, token | longest, side="right") - first
        found = [np.empty(0, np.uint64)]
        for some in _slices(counts, len(counts)):
            entry = np.repeat(np.arange(some.start, some.stop), counts[some])
            partner = _ranges(first[some], counts[some])
            x, y = size[entry], (self.keys[partner] & np.uint64(0xFFFFFFFF)).astype(np.int64)
            at_x, at_y = other.places[entry], self.places[partner]
            possible = np.minimum(x - at_x, y - at_y) >= _least(x + y, threshold / (1 + threshold))
            # The shorter one is found by fewer of its grams: see `_BySize.index`.
            short, at = np.minimum(x, y), np.where(y <= x, at_y, at_x)
            possible &= at <= short - _least(short, 2 * threshold / (1 + threshold))
            ours, theirs = self.rows[partner[possible]], other.rows[entry[possible]]
            found.append(np.unique((ours.astype(np.uint64) << np.uint64(32)) | theirs))
        pairs = np.unique(np.concatenate(found))
        return (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
