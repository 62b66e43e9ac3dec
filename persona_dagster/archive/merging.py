"""Which small parts are merged, and what a merged part holds.

Parts of one size are merged once there are four of them, so that each capture is rewritten a few times in its life and
a week's merging costs what the week brought. Large parts are left alone, and memory holds one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from persona_dagster.archive.index import BoardIndex
from persona_dagster.archive.parts import PART_BYTES

MERGED_ROWS = 20_000  # of a part; its bytes are bounded too: what a rewriting must hold
SMALL = PART_BYTES // 2  # decoded bytes: larger parts are not merged again
TIER, TIER_BYTES = 4, 64 << 10  # so many parts of one size are merged; sizes differ by that factor
ROW_BYTES = 400  # what a row weighs that only refers to a body


def tier(parts: Mapping[str, tuple[int, int]]) -> list[str]:
    """Names of parts to merge into one, the smallest first; none when all is well. `parts`: rows and bytes by name."""
    tiers: dict[int, list[tuple[str, int]]] = {}
    for name, (rows, size) in sorted(parts.items()):
        if size < SMALL and rows < MERGED_ROWS // 2:
            tiers.setdefault(level(size, rows), []).append((name, size))
    for number in sorted(tiers):
        if len(tiers[number]) >= TIER:
            chosen, total = list[str](), 0
            for name, size in tiers[number]:
                if chosen and total + size > PART_BYTES:
                    break
                chosen.append(name)
                total += size
            if len(chosen) > 1:
                return chosen
    return []


def level(size: int, rows: int) -> int:
    """Parts of one level differ in size by less than a factor of four."""
    number, weight = 0, max(size, rows * ROW_BYTES)
    while weight >= TIER_BYTES * TIER ** (number + 1):
        number += 1
    return number


def merged(rows: Iterable[dict[str, Any]], index: BoardIndex) -> list[list[dict[str, Any]]]:
    """The rows of several parts as those of one, or of a few when they are many: each once, versions of a page side by
    side, and runs of sightings that brought nothing new thinned to their first and last."""
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        name = (row["kind"], row["key"], row["fetched_at"], row["sha256"], row["outcome"])
        if name not in distinct or row["stored"]:
            distinct[name] = row
    kept = [row for row in distinct.values() if row["stored"] or not _thinned(index, row)]
    kept.sort(key=lambda row: (row["url"], row["fetched_at"]))
    return [kept[start : start + MERGED_ROWS] for start in range(0, len(kept), MERGED_ROWS)]


def _thinned(index: BoardIndex, row: Mapping[str, Any]) -> bool:
    history = index.history(row["kind"], row["key"])
    if history is None or len(history.sightings) < 3:
        return False
    n = next((n for n, seen in enumerate(history.sightings) if seen.fetched_at == row["fetched_at"]), 0)
    return history.in_the_middle(n)
