"""All pairs of texts with Jaccard similarity of character 3-grams >= t: exact, in numpy.

Candidates by the prefixes of the gram sets, then an exact count on what is left. Recall and precision are 1 by
construction, and for short posts it is faster than MinHash, which loses a fifth of the pairs between 0.7 and 0.8.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from persona_dagster.corpus.grams import I64, blocks, bucket_ranks, gram_sets, ranges
from persona_dagster.corpus.inverted_index import Prefixes, least

Pairs = tuple[I64, I64, NDArray[np.float64]]


def _shared(texts: pl.Series, left: I64, right: I64) -> tuple[I64, I64]:
    """How many grams each pair of texts shares, counted exactly, and how many it has on both sides together."""
    rows, place = np.unique(np.concatenate((left, right)), return_inverse=True)
    sets = gram_sets(texts.gather(rows).to_list())
    sizes, offsets = sets.sizes, sets.offsets
    a, b = place[: len(left)], place[len(left) :]
    shared, total = np.zeros(len(left), np.int64), sizes[a] + sizes[b]
    for some in blocks(total):
        pair = np.arange(some.stop - some.start, dtype=np.uint64) << np.uint64(48)
        keys = np.concatenate([
            np.repeat(pair, sizes[side]) | sets.grams[ranges(offsets[side], sizes[side])] for side in (a[some], b[some])
        ])  # fmt: skip
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(48)
        shared[some] = np.bincount(twice.astype(np.int64), minlength=len(pair))
    return shared, total


def confirmed(texts: pl.Series, left: I64, right: I64, threshold: float) -> Pairs:
    """Those of the pairs of texts (by place) whose Jaccard is >= threshold, with it."""
    letters = texts.str.len_chars().to_numpy().astype(np.int64)
    shared, total = np.zeros(len(left), np.int64), np.zeros(len(left), np.int64)
    for some in blocks(letters[left] + letters[right], 1 << 15):  # of two rows a pair, at most 2^16 rows
        shared[some], total[some] = _shared(texts, left[some], right[some])
    hit = shared >= least(total, threshold / (1 + threshold))
    return left[hit], right[hit], shared[hit] / (total[hit] - shared[hit])


def similar_pairs(texts: pl.Series, threshold: float = 0.7, fresh: NDArray[np.bool_] | None = None) -> Pairs:
    """All pairs of texts `(i, j, jaccard)` with jaccard >= threshold, i < j. Texts must lie in the BMP.

    With `fresh`, only pairs in which at least one text is fresh: what an increment adds.
    """
    numbers = np.arange(len(texts), dtype=np.uint32)
    left, right = Prefixes.of(texts, numbers, bucket_ranks(texts), threshold).within(fresh)
    return confirmed(texts, np.minimum(left, right), np.maximum(left, right), threshold)
