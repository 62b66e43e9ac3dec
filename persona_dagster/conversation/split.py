"""Train, validation and test part here, by connected component: one thread, one cluster of near-duplicates, one side.

New components are drawn by keyed hash until each persona has its share of test rows, then of validation rows. What
the ledger holds stays: a row that was in test stays in test; a new row that ties two sides is quarantined.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from persona_dagster.artifacts import writing
from persona_dagster.config.split import SplitSpec
from persona_dagster.conversation.train_test_leakage import largest_jaccard, near_duplicates, spoken
from persona_dagster.digest import keyed_hash
from persona_dagster.records import SPLIT_SCHEMA

SPLIT_VERSION = "2"

NEW, TRAIN, VALIDATION, TEST, QUARANTINE = range(5)
NAMES = ("", "train", "validation", "test", "quarantine")
HELD = (TEST, VALIDATION)  # sides that training never learns from; where two sides meet, the first of these stays

SMALLEST = 4  # dialogues of a persona that leave it one row on each held side

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SplitReport:
    """Rows by persona and side, the largest component's share, and how near train comes to what is held out."""

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
    learnt = _reopen(side, ledger)
    _draw(side, learnt, ties, rows, spec)
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


def _reopen(side: Ints, ledger: pl.DataFrame | None) -> npt.NDArray[np.bool_]:
    """Where no validation row was ever drawn (a first run; a ledger of 0.1), what stands in train is drawn from again,
    for validation alone: the rows of which that is true."""
    drawn = ledger is not None and (ledger["split"] == NAMES[VALIDATION]).any()
    learnt: npt.NDArray[np.bool_] = np.zeros(len(side), dtype=bool) if drawn else side == TRAIN
    side[learnt] = NEW
    return learnt


def _settle(side: Ints, ties: Ties) -> None:
    """Gives new rows the side of what they are tied to; quarantines what would tie two sides."""
    for lower, higher in ((VALIDATION, TEST), (TRAIN, TEST), (TRAIN, VALIDATION)):
        side[(side == lower) & ties.touches(side == higher)] = QUARANTINE  # known rows grew together: `higher` stays
    sides = (TRAIN, VALIDATION, TEST)
    beside = {code: ties.touches(side == code) for code in sides}
    side[(side == NEW) & (sum(beside.values(), np.zeros(len(side), dtype=int)) > 1)] = QUARANTINE
    for held in HELD:  # a chain of new rows from one side to another breaks at its rows beside the held one
        new = side == NEW
        groups = ties.components(new)
        others = np.logical_or.reduce([beside[code] for code in sides if code != held])
        mixed = np.intersect1d(groups[new & others], groups[new & beside[held]])
        side[new & beside[held] & np.isin(groups, mixed)] = QUARANTINE
    groups = ties.components(side == NEW)
    for code in sides:
        reached = np.unique(groups[(side == NEW) & beside[code]])
        side[(side == NEW) & np.isin(groups, reached)] = code


def _draw(side: Ints, learnt: npt.NDArray[np.bool_], ties: Ties, rows: pl.DataFrame, spec: SplitSpec) -> None:
    """Draws new components for test, then for validation, in the order of their keyed hash, until each persona has
    its quota; those with a row that was `learnt` from, for validation alone."""
    persona = rows["persona"].to_numpy()
    names, totals = np.unique(persona[side != QUARANTINE], return_counts=True)
    quotas = {TEST: (spec.test_rows, spec.test_share), VALIDATION: (spec.validation_rows, spec.validation_share)}
    want = {
        code: {
            name: fixed.get(name, max(round(share * total), int(total >= SMALLEST)))
            - int(((side == code) & (persona == name)).sum())
            for name, total in zip(names.tolist(), totals.tolist(), strict=True)
        }
        for code, (fixed, share) in quotas.items()
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
        open_sides = HELD[1:] if learnt[members].any() else HELD
        fitting = (code for code in open_sides if all(count <= want[code][name] for name, count in need.items()))
        side[members] = code = next(fitting, TRAIN)
        if code in want:
            for name, count in need.items():
                want[code][name] -= count


def _report(rows: pl.DataFrame, frame: pl.DataFrame, spec: SplitSpec) -> SplitReport:
    counts = rows.select("pair_id", "persona").join(frame, on="pair_id").group_by("persona", "split").len()
    by_persona: dict[str, dict[str, int]] = {}
    for persona, split, count in counts.sort("persona", "split").iter_rows():
        by_persona.setdefault(persona, {})[split] = count
    sizes = frame.group_by("component").len()["len"]
    largest = max(sizes, default=0) / max(1, frame.height)
    warnings = [
        f"persona {name} has no {side} row: too few components to draw one"
        for name, sides in by_persona.items()
        for side in ("validation", "test")
        if not sides.get(side)
    ]
    if largest > spec.max_component_share:
        warnings.append(
            f"one component holds {largest:.0%} of all dialogues (limit {spec.max_component_share:.0%}): "
            "raise split.yaml's jaccard or turn by_author off"
        )
    train, held = rows.filter(frame["split"] == "train"), rows.filter(frame["split"].is_in(["validation", "test"]))
    return SplitReport(
        by_persona=by_persona,
        quarantined=int((frame["split"] == "quarantine").sum()),
        components=len(sizes),
        largest_component_share=round(largest, 4),
        largest_jaccard=largest_jaccard(spoken(train), spoken(held), spec.min_chars),
        warnings=warnings,
    )


def read_ledger(path: Path) -> pl.DataFrame | None:
    """The ledger of earlier runs, or None before the first."""
    return pl.read_parquet(path) if path.is_file() else None


def write_ledger(ledger: pl.DataFrame, path: Path) -> None:
    """Puts the ledger in place at once: the old one stays until the new one is on disk."""
    with writing(path) as fresh:
        ledger.write_parquet(fresh)
