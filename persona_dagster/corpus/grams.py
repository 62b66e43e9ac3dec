"""Character 3-grams of texts as numbers, in blocks: what is transient stays small however large the corpus is.

A gram of three UTF-16 units is 48 bits, mixed by a bijection: no dictionary, and no two grams ever collide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

# The upper bits of a mixed gram name a bucket whose frequency orders the grams, the lower tell those of a bucket apart.
BUCKET_BITS = 20
LOW_BITS = 48 - BUCKET_BITS
MASK48 = np.uint64((1 << 48) - 1)
MIX = np.uint64(0x9E3779B97F4B)  # odd, so multiplication modulo 2^48 is a bijection
ROWS_AT_ONCE = 1 << 16  # 16 bits of row and 48 of gram sort as one number
AT_ONCE = 1 << 20  # grams or pairs in work at a time: below 100 MB


@dataclass
class GramSets:
    """The distinct grams of every text: row `i` is `grams[offsets[i]:offsets[i + 1]]`, in ascending order."""

    grams: U64
    offsets: I64

    @property
    def sizes(self) -> I64:
        return np.diff(self.offsets)


def blocks(weights: I64, rows: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Consecutive rows whose weights add up to no more than AT_ONCE (or one row that is heavier)."""
    ends = np.cumsum(weights)
    start = 0
    while start < len(weights):
        base = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, base + AT_ONCE, side="right")), start + 1)
        yield slice(start, min(stop, start + rows))
        start = min(stop, start + rows)


def text_blocks(texts: pl.Series) -> Iterator[list[str]]:
    """Consecutive texts as Python strings, a block at a time: all at once they would weigh as much as their grams."""
    for some in blocks(texts.str.len_chars().to_numpy().astype(np.int64)):
        yield texts[some].to_list()


def ranges(starts: I64, counts: I64) -> I64:
    """Concatenated ranges `starts[i] .. starts[i] + counts[i]`."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def _mixed(texts: list[str]) -> tuple[U64, I64]:
    """3-grams of all texts (no row crosses a border) and how many each row has. Texts must lie in the BMP."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    units = np.frombuffer("".join(texts).encode("utf-16-le", "surrogatepass"), dtype=np.uint16).astype(np.uint64)
    if len(units) != lengths.sum():
        raise ValueError("grams: texts must be normalised to the BMP (dedup.normalised)")
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


def bucket_ranks(texts: pl.Series) -> U32:
    """For every bucket of grams its place from rare to frequent: the order that all rows share."""
    frequency = np.zeros(1 << BUCKET_BITS, np.int64)
    for some in text_blocks(texts):
        grams, _ = _mixed(some)
        frequency += np.bincount((grams >> np.uint64(LOW_BITS)).astype(np.int64), minlength=1 << BUCKET_BITS)
    ranks = np.empty(1 << BUCKET_BITS, np.uint32)
    ranks[np.argsort(frequency, kind="stable")] = np.arange(1 << BUCKET_BITS, dtype=np.uint32)
    return ranks


def gram_sets(texts: list[str], ranks: U32 | None = None) -> GramSets:
    """The gram sets of at most ROWS_AT_ONCE texts; with `ranks` the rarest gram of each comes first."""
    grams, counts = _mixed(texts)
    if ranks is not None:
        rank = ranks[(grams >> np.uint64(LOW_BITS)).astype(np.int64)].astype(np.uint64)
        grams = (rank << np.uint64(LOW_BITS)) | (grams & np.uint64((1 << LOW_BITS) - 1))
    grams |= np.repeat(np.arange(len(counts), dtype=np.uint64) << np.uint64(48), counts)
    grams.sort()
    if len(grams):
        grams = grams[np.concatenate(([True], grams[1:] != grams[:-1]))]
    sizes = np.bincount((grams >> np.uint64(48)).astype(np.int64), minlength=len(counts))
    return GramSets(grams & MASK48, np.concatenate(([0], np.cumsum(sizes))))
