"""Decides every row of a recipe's mix from names and counts alone: which dialogues, how many copies, what order.

Every choice is a keyed hash of a row's name: no RNG state, the same on any machine, nested as sizes grow.
The test set depends on no recipe: clean text and one tagging choice, so that recipes can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Mix, Recipe
from persona_dagster.dialogue.capybara import PERSONA as GENERAL
from persona_dagster.dialogue.weights import Weight, weigh
from persona_dagster.digest import keyed_hash

TEST_KEY = "test"  # every recipe draws and tags its test rows by this key
TEST_TAGGED = 0.5

PLAN_COLUMNS = ("pair_id", "persona", "builder", "source", "board", "doc_ids", "urls")
_ROW_COLUMNS = ("row_id", "repeat", "place", "tagged", *PLAN_COLUMNS, "split")
_COPIES = {"pair_id": pl.String, "copies": pl.Int32}


class MixError(ValueError):
    """Input that no mix can be made of; raised before anything is written."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`rows`: one a line to write, in the order of `place` within its split. `weights`: a row a persona."""

    rows: pl.DataFrame
    weights: list[dict[str, Any]]
    warnings: list[str]


def plan_mix(dialogues: pl.DataFrame, split: pl.DataFrame, recipe: Recipe, personas: Personas) -> Plan:
    """The plan of a mix. Of `dialogues` only PLAN_COLUMNS are looked at, no text."""
    mix = recipe.mix
    wanted = [GENERAL] if mix.kind == "capybara" else list(personas.personas)
    placed = dialogues.select(PLAN_COLUMNS).join(split.select("pair_id", "split"), on="pair_id", how="inner")
    placed = placed.sort("pair_id")
    if placed.height != dialogues.height:
        raise MixError(f"the split knows {placed.height} of {dialogues.height} dialogues: materialise split again")
    strangers = sorted(set(placed["persona"]) - {*personas.personas, GENERAL})
    if strangers:
        raise MixError(f"dialogues of unknown personas {', '.join(strangers)}: personas.yaml knows {', '.join(wanted)}")
    train, test = (placed.filter(pl.col("split") == side) for side in ("train", "test"))
    by_persona = {name: train.filter(pl.col("persona") == name)["pair_id"].to_list() for name in wanted}
    empty = [name for name, pairs in by_persona.items() if not pairs]
    if empty:
        raise MixError(
            f"no train dialogue for {', '.join(empty)}: materialise a board that feeds it, or take it out of "
            "personas.yaml (`persona personas` shows what each would get)"
        )
    weights = weigh({name: len(pairs) for name, pairs in by_persona.items()}, mix)
    copies = _copies(by_persona, weights, mix)
    replayed = _replay(train, sum(copies.values()), mix) if mix.kind == "persona" else {}
    chosen = [
        _train_rows(train, {**copies, **replayed}, mix),
        _test_rows(test.filter(pl.col("persona").is_in(wanted)), mix),
    ]
    rows = pl.concat(chosen)
    reached = _reached(weights, rows, recipe)
    return Plan(rows, reached, _warnings(reached, rows, wanted))


def apportion(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` rows over the groups in proportion to their sizes, by largest remainder; nobody goes empty."""
    whole = max(1, sum(sizes.values()))
    exact = {name: size * total / whole for name, size in sizes.items()}
    rows = {name: max(int(share), min(1, sizes[name])) for name, share in exact.items()}
    for name in sorted(sizes, key=lambda name: (int(exact[name]) - exact[name], name)):
        if sum(rows.values()) >= total:
            break
        rows[name] = min(rows[name] + 1, sizes[name])
    return rows


def by_hash(names: list[str], key: str) -> list[str]:
    """The names in an order that any machine finds, and that stays when names come or go."""
    return sorted(names, key=lambda name: (keyed_hash(key, name), name))


def _copies(by_persona: Mapping[str, list[str]], weights: list[Weight], mix: Mix) -> dict[str, int]:
    """How many times each train dialogue is written; the mix shrinks to `max_train_rows` with its weights kept."""
    whole = {weight.persona: round(weight.repeats * weight.count) for weight in weights}
    total = sum(whole.values())
    if mix.max_train_rows is not None:
        total = min(total, max(len(whole), round(mix.max_train_rows * (1 - mix.replay_share))))
    rows = apportion(whole, total)
    copies: dict[str, int] = {}
    for weight in weights:
        share = rows[weight.persona]
        taken = max(1, min(weight.count, math.ceil(share / max(weight.repeats, 1) - 1e-9)))
        each, more = divmod(share, taken)
        order = by_hash(by_persona[weight.persona], str(mix.seed))[:taken]
        copies |= {pair: each + (position < more) for position, pair in enumerate(order)}
    return {pair: count for pair, count in copies.items() if count}


def _replay(train: pl.DataFrame, persona_rows: int, mix: Mix) -> dict[str, int]:
    """Untagged Capybara chats against forgetting: their share of all train rows, as far as there are any."""
    wanted = round(persona_rows * mix.replay_share / (1 - mix.replay_share))
    general = train.filter(pl.col("persona") == GENERAL)["pair_id"].to_list()
    return dict.fromkeys(by_hash(general, str(mix.seed))[:wanted], 1)


def _train_rows(train: pl.DataFrame, copies: Mapping[str, int], mix: Mix) -> pl.DataFrame:
    """A row a copy. Copy k of m stands at (k + h) / m, h in [0, 1) a hash: the copies of one row are spread
    evenly over the file, and any stretch of it holds the whole mixture."""
    counts = pl.DataFrame({"pair_id": list(copies), "copies": list(copies.values())}, schema=_COPIES)
    rows = train.join(counts, on="pair_id", how="inner", maintain_order="left")
    rows = rows.with_columns(h=_unit_hashes(f"{mix.seed}|place", rows["pair_id"]))
    rows = rows.with_columns(repeat=pl.int_ranges(0, "copies", dtype=pl.Int32)).explode("repeat")
    rows = rows.with_columns(
        row_id=pl.format("{}-{}", "pair_id", "repeat"), place=(pl.col("repeat") + pl.col("h")) / pl.col("copies")
    )
    tagged = _unit_hashes(f"{mix.seed}|tag", rows["row_id"]) < mix.tagged_share
    return rows.with_columns(tagged=tagged & (rows["persona"] != GENERAL)).select(*_ROW_COLUMNS)


def _test_rows(test: pl.DataFrame, mix: Mix) -> pl.DataFrame:
    """Each test dialogue once, at most `max_test_rows`, stratified by persona; the same for every recipe."""
    pairs = dict(test.group_by("persona", maintain_order=True).agg("pair_id").iter_rows())
    sizes = {name: len(found) for name, found in pairs.items()}
    rows = apportion(sizes, min(mix.max_test_rows or test.height, test.height))
    kept = [pair for name, found in pairs.items() for pair in by_hash(found, TEST_KEY)[: rows[name]]]
    chosen = test.filter(pl.col("pair_id").is_in(kept))
    tagged = _unit_hashes(f"{TEST_KEY}|tag", chosen["pair_id"]) < TEST_TAGGED
    return chosen.with_columns(
        row_id=pl.format("{}-0", "pair_id"),
        repeat=pl.lit(0, pl.Int32),
        place=_unit_hashes(TEST_KEY, chosen["pair_id"]),
        tagged=tagged & (chosen["persona"] != GENERAL),
    ).select(*_ROW_COLUMNS)


def _unit_hashes(key: str, names: pl.Series) -> pl.Series:
    """For each name a number in [0, 1), from the 53 leading bits of its keyed hash."""
    return pl.Series([(keyed_hash(key, name) >> 11) / (1 << 53) for name in names], dtype=pl.Float64)


def _reached(weights: list[Weight], rows: pl.DataFrame, recipe: Recipe) -> list[dict[str, Any]]:
    """The weights with what will be written beside what was asked and what could be had."""
    train = rows.filter((pl.col("split") == "train") & pl.col("persona").is_in([weight.persona for weight in weights]))
    counts = dict(train.group_by("persona").len().iter_rows())
    taken = dict(train.group_by("persona").agg(pl.col("pair_id").n_unique()).iter_rows())
    return [
        {
            **asdict(weight),
            "reached": counts[weight.persona] / train.height,
            "rows": counts[weight.persona],
            "dialogues": taken[weight.persona],
            "effective_epochs": counts[weight.persona] / taken[weight.persona] * recipe.training.epochs,
        }
        for weight in weights
    ]


def _warnings(weights: list[dict[str, Any]], rows: pl.DataFrame, wanted: list[str]) -> list[str]:
    tested = set(rows.filter(pl.col("split") == "test")["persona"])
    return [
        *(f"{weight['persona']}: {weight['note']}" for weight in weights if weight["note"]),
        *(f"{name}: no test row" for name in wanted if name not in tested),
    ]
