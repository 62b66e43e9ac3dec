"""Train and test part here, by connected component: one thread, one cluster of near-duplicates, one side.

New components are drawn by keyed hash until each persona has its share of test rows. What the ledger holds
stays: a row that was in test stays in test; a new row that ties a train row to a test row is quarantined.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from persona_dagster.config.split import SplitSpec
from persona_dagster.conversation.leaks import largest_jaccard, near_duplicates, spoken
from persona_dagster.digest import keyed_hash
from persona_dagster.records import SPLIT_SCHEMA

SPLIT_VERSION = "1"

NEW, TRAIN, TEST, QUARANTINE = range(4)
NAMES = ("", "train", "test", "quarantine")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """Rows by persona and side, the largest component's share, and how near train comes to test."""

    by_persona: dict[str, dict[str, int]]
    quarantined: int
    components: int
    largest_component_share: float
    largest_jaccard: float
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class SplitResult:
    """`frame`: a row a dialogue. `ledger`: the same, plus every row seen before."""

    frame: pl.DataFrame
    ledger: pl.DataFrame
    report: SplitReport


@dataclass(frozen=True, slots=True)
class Ties:
    """Which rows may not part: row numbers and the group that each belongs to (a row has several groups)."""

    rows: Ints
    groups: Ints
    size: int  # rows in all

    def components(self, among: npt.NDArray[np.bool_]) -> Ints:
        """The connected component of every row, over the rows `among` only; others stand alone."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        kept = among[self.rows]
        nodes = self.size + (int(self.groups.max()) + 1 if len(self.groups) else 0)
        ends = (self.rows[kept], self.groups[kept] + self.size)
        graph = coo_array((np.ones(int(kept.sum()), dtype=np.int8), ends), shape=(nodes, nodes))
        found: Ints = connected_components(graph, directed=False)[1][: self.size].astype(np.int64)
        return found

    def touches(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """For every row: does one of its groups hold a marked row?"""
        hot = np.zeros(int(self.groups.max()) + 1 if len(self.groups) else 0, dtype=bool)
        hot[self.groups[marked[self.rows]]] = True
        found = np.zeros(self.size, dtype=bool)
        found[self.rows[hot[self.groups]]] = True
        return found


def split_dialogues(dialogues: pl.DataFrame, ledger: pl.DataFrame | None, spec: SplitSpec) -> SplitResult:
    """The split of `dialogues` (DIALOGUE_SCHEMA); `ledger` is the one that the last run returned, or None."""
    rows = dialogues.sort("pair_id")
    pairs = rows["pair_id"].to_list()
    ties = find_ties(rows, spec)
    side = _remembered(rows, ledger)
    _settle(side, ties)
    _draw(side, ties, rows, spec)
    components = ties.components(np.ones(len(pairs), dtype=bool))
    frame = pl.DataFrame(
        {"pair_id": pairs, "component": components, "split": [NAMES[code] for code in side]}
    ).with_columns(component=pl.col("pair_id").min().over("component"))
    frame = frame.cast(pl.Schema(SPLIT_SCHEMA))
    gone = frame.clear() if ledger is None else ledger.select(frame.columns).join(frame, on="pair_id", how="anti")
    return SplitResult(frame, pl.concat([frame, gone]).sort("pair_id"), _report(rows, frame, spec))


def find_ties(rows: pl.DataFrame, spec: SplitSpec) -> Ties:
    """Same thread, same post, near-duplicate text and, where asked, same answering author."""
    numbered = rows.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    kinds = [
        numbered.select("row", key=pl.format("thread {}", "thread_id")),
        numbered.explode("doc_ids").select("row", key=pl.format("post {}", "doc_ids")),
    ]
    if spec.by_author:
        kinds.append(numbered.select("row", key=pl.format("author {}", "answer_author")))
    kinds.append(near_duplicates(spoken(rows), spec.jaccard, spec.min_chars).select("row", key="group"))
    member = pl.concat(kinds).drop_nulls().with_columns(group=pl.col("key").rank("dense").cast(pl.Int64) - 1)
    return Ties(member["row"].to_numpy(), member["group"].to_numpy(), rows.height)


def _remembered(rows: pl.DataFrame, ledger: pl.DataFrame | None) -> Ints:
    """The side that each row already has: from the ledger; for Capybara from the Hub, which its board names. Where no
    chat is of the Hub's test (a file without splits) Capybara is drawn from like the others."""
    known = dict(ledger.select("pair_id", "split").iter_rows()) if ledger is not None else {}
    chats = pl.col("source") == "capybara"
    hub = pl.when(chats & (chats & (pl.col("board") == "test")).any()).then(pl.coalesce("board", pl.lit("train")))
    own = rows.select("pair_id", hub.otherwise(pl.lit("")).alias("hub")).iter_rows()
    return np.array([NAMES.index(known.get(pair, side)) for pair, side in own], dtype=np.int64)


def _settle(side: Ints, ties: Ties) -> None:
    """Gives new rows the side of what they are tied to; quarantines what would tie train to test."""
    conflict = (side == TRAIN) & ties.touches(side == TEST)
    side[conflict] = QUARANTINE  # known rows grew together: test stays
    new = side == NEW
    by_train, by_test = ties.touches(side == TRAIN), ties.touches(side == TEST)
    side[new & by_train & by_test] = QUARANTINE
    # A chain of new rows from train to test breaks at its rows beside test.
    groups = ties.components(side == NEW)
    mixed = np.intersect1d(groups[(side == NEW) & by_train], groups[(side == NEW) & by_test])
    side[(side == NEW) & by_test & np.isin(groups, mixed)] = QUARANTINE
    groups = ties.components(side == NEW)
    for code, touched in ((TRAIN, by_train), (TEST, by_test)):
        reached = np.unique(groups[(side == NEW) & touched])
        side[(side == NEW) & np.isin(groups, reached)] = code


def _draw(side: Ints, ties: Ties, rows: pl.DataFrame, spec: SplitSpec) -> None:
    """Draws new components for test in the order of their keyed hash, until each persona has its quota."""
    persona = rows["persona"].to_numpy()
    alive = side != QUARANTINE
    names, totals = np.unique(persona[alive], return_counts=True)
    want = {
        name: spec.test_rows.get(name, round(spec.test_share * total)) - int(((side == TEST) & (persona == name)).sum())
        for name, total in zip(names.tolist(), totals.tolist(), strict=True)
    }
    new = side == NEW
    frame = pl.DataFrame(
        {"row": np.flatnonzero(new), "group": ties.components(new)[new], "pair": rows["pair_id"].filter(pl.Series(new))}
    )
    groups = frame.group_by("group").agg("row", name=pl.col("pair").min())
    order = sorted((keyed_hash(spec.key, name), members) for members, name in groups.select("row", "name").iter_rows())
    for _, members in order:
        found, counts = np.unique(persona[members], return_counts=True)
        need = dict(zip(found.tolist(), counts.tolist(), strict=True))
        fits = all(count <= want[name] for name, count in need.items())
        side[members] = TEST if fits else TRAIN
        if fits:
            for name, count in need.items():
                want[name] -= count


def _report(rows: pl.DataFrame, frame: pl.DataFrame, spec: SplitSpec) -> SplitReport:
    counts = rows.select("pair_id", "persona").join(frame, on="pair_id").group_by("persona", "split").len()
    by_persona: dict[str, dict[str, int]] = {}
    for persona, split, count in counts.sort("persona", "split").iter_rows():
        by_persona.setdefault(persona, {})[split] = count
    sizes = frame.group_by("component").len()["len"]
    largest = max(sizes, default=0) / max(1, frame.height)
    warnings = [
        f"persona {name} has no test row: too few components to draw one"
        for name, sides in by_persona.items()
        if not sides.get("test")
    ]
    if largest > spec.max_component_share:
        warnings.append(
            f"one component holds {largest:.0%} of all dialogues (limit {spec.max_component_share:.0%}): "
            "raise split.yaml's jaccard or turn by_author off"
        )
    sides = {name: rows.filter(frame["split"] == name) for name in ("train", "test")}
    return SplitReport(
        by_persona=by_persona,
        quarantined=int((frame["split"] == "quarantine").sum()),
        components=len(sizes),
        largest_component_share=round(largest, 4),
        largest_jaccard=largest_jaccard(spoken(sides["train"]), spoken(sides["test"]), spec.min_chars),
        warnings=warnings,
    )


def read_ledger(path: Path) -> pl.DataFrame | None:
    """The ledger of earlier runs, or None before the first."""
    return pl.read_parquet(path) if path.is_file() else None


def write_ledger(ledger: pl.DataFrame, path: Path) -> None:
    """Puts the ledger in place at once: the old one stays until the new one is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        ledger.write_parquet(file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
