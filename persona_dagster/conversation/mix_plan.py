"""Decides every row of a recipe's mix from names and counts alone: which dialogues, how many copies, what order.

Every choice is a keyed hash of a row's name: no RNG state, the same on any machine, nested as sizes grow.
The test set depends on no recipe: clean text and one tagging choice, so that recipes can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Mix, Recipe
from persona_dagster.conversation.capybara import PERSONA as GENERAL
from persona_dagster.conversation.mixture_weights import Weight, weigh
from persona_dagster.digest import keyed_hashes

TEST_KEY = "test"  # every recipe draws and tags its test rows by this key
TEST_TAGGED = 0.5

PLAN_COLUMNS = ("pair_id", "persona", "builder", "source")
_ROW_COLUMNS = ("row_id", "repeat", "place", "tagged", *PLAN_COLUMNS, "split")


class MixError(ValueError):
    """Input that no mix can be made of; raised before anything is written."""


@dataclass(frozen=True, slots=True)
class MixPlan:
    """`rows`: one a line to write, in the order of `place` within its split. `weights`: a row a persona."""

    rows: pl.DataFrame
    weights: list[dict[str, Any]]
    warnings: list[str]


def plan_mix(
    dialogues: pl.DataFrame,
    split: pl.DataFrame,
    recipe: Recipe,
    personas: Personas,
    tokens: Mapping[str, int] | None = None,
) -> MixPlan:
    """The plan of a mix. Of `dialogues` only PLAN_COLUMNS are looked at, no text. `tokens`: of the answers, by
    pair_id, where the recipe's unit is tokens."""
    mix = recipe.mix
    wanted = [GENERAL] if mix.kind == "capybara" else list(personas.personas)
    placed = dialogues.select(PLAN_COLUMNS).join(split.select("pair_id", "split"), on="pair_id", how="inner")
    placed = placed.sort("pair_id")
    if placed.height != dialogues.height:
        raise MixError(f"the split knows {placed.height} of {dialogues.height} dialogues: materialise split again")
    unknown = sorted(set(placed["persona"].unique()) - {*personas.personas, GENERAL})
    if unknown:
        raise MixError(
            f"dialogues of unknown personas {', '.join(unknown)}: config/personas/ knows {', '.join(wanted)}"
        )
    train = placed.filter(pl.col("split") == "train")
    ours = placed.filter(pl.col("persona").is_in(wanted))
    sized = train.select("pair_id", "persona", size=_size(tokens))
    by_persona = {name: sized.filter(persona=name) for name in wanted}
    absent = [name for name, found in by_persona.items() if found.is_empty()]
    wanted = [name for name in wanted if name not in absent]
    if not wanted:
        raise MixError(
            f"no train dialogue for {', '.join(absent)}: materialise a board that feeds one of them "
            "(`persona personas` shows what each has)"
        )
    by_persona = {name: by_persona[name] for name in wanted}
    sizes = {name: int(found["size"].sum()) for name, found in by_persona.items()}
    weights = weigh({name: found.height for name, found in by_persona.items()}, mix, sizes)
    copies = _copies(by_persona, weights, mix)
    if mix.kind == "persona":
        copies = pl.concat([copies, _replay(train, int(copies["copies"].sum()), mix)])
    chosen = [
        _train_rows(train, copies, mix),
        *(_held_rows(ours.filter(pl.col("split") == side), mix) for side in ("validation", "test")),
    ]
    rows = pl.concat(chosen)
    reached = _reached(weights, rows, recipe, tokens)
    left_out = [f"{name}: left out, there is no dialogue of it" for name in absent]
    return MixPlan(rows, reached, [*left_out, *_warnings(reached, rows, wanted, mix)])


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
    return _in_order(pl.DataFrame({"pair_id": names}, {"pair_id": pl.String}), key)["pair_id"].to_list()


def _in_order(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    hashes = pl.Series("hash", keyed_hashes(key, frame["pair_id"].to_list()))
    return frame.with_columns(hashes).sort("hash", "pair_id").drop("hash")


def _size(tokens: Mapping[str, int] | None) -> pl.Expr:
    """What a dialogue amounts to in the recipe's unit."""
    return pl.col("pair_id").replace_strict(tokens, return_dtype=pl.Int64) if tokens else pl.lit(1, pl.Int64)


def _copies(by_persona: Mapping[str, pl.DataFrame], weights: list[Weight], mix: Mix) -> pl.DataFrame:
    """How many times each train dialogue is written (pair_id, copies); the mix shrinks to `max_train_rows` with its
    shares kept, and copies go before dialogues do. `by_persona`: pair_id and size of each dialogue."""
    orders = {name: _in_order(found, str(mix.seed)) for name, found in by_persona.items()}
    limit = None
    if mix.max_train_rows is not None:
        limit = max(len(weights), round(mix.max_train_rows * (1 - mix.replay_share)))
    sizes = {weight.persona: weight.repeats * int(orders[weight.persona]["size"].sum()) for weight in weights}
    if mix.unit == "rows":
        whole = {name: round(size) for name, size in sizes.items()}
        total = sum(whole.values())
        return _fill_all(orders, apportion(whole, total if limit is None else min(total, limit)))

    def scaled(scale: float) -> pl.DataFrame:
        return _fill_all(orders, {name: round(scale * size) for name, size in sizes.items()})

    copies = scaled(1)
    low, high = 0.0, 1.0
    if limit is not None and copies["copies"].sum() > limit:
        for _ in range(40):  # the largest mix of the same shares that has no more rows than the limit
            middle = (low + high) / 2
            low, high = (middle, high) if scaled(middle)["copies"].sum() <= limit else (low, middle)
        copies = scaled(low)
    return copies


def _fill_all(orders: Mapping[str, pl.DataFrame], targets: Mapping[str, int]) -> pl.DataFrame:
    return pl.concat(_fill(order, targets[persona]) for persona, order in orders.items())


def _fill(order: pl.DataFrame, target: int) -> pl.DataFrame:
    """Copies of the dialogues of `order` (pair_id, size) that sum to `target` or nearly: whole copies of all of them,
    and one more of the very first. What a dialogue not yet seen teaches, no copy does: none has one while one waits."""
    sums = order["size"].cum_sum().to_numpy()

    def reaching(size: float) -> int:
        """How many of the first it takes to have that size."""
        return int(np.searchsorted(sums, size)) + 1

    each, rest = divmod(target, int(sums[-1]))
    more = reaching(rest) if rest else 0
    if more and sums[more - 1] - rest > rest - (sums[more - 2] if more > 1 else 0):
        more -= 1  # stopping before the border dialogue comes nearer
    more = max(more, 0 if each else 1)  # nobody goes empty
    copies = (pl.int_range(pl.len()) < more).cast(pl.Int32) + each
    return order.select("pair_id", copies=copies.cast(pl.Int32)).filter(pl.col("copies") > 0)


def _replay(train: pl.DataFrame, persona_rows: int, mix: Mix) -> pl.DataFrame:
    """Untagged Capybara chats against forgetting: their share of all train rows, as far as there are any."""
    wanted = round(persona_rows * mix.replay_share / (1 - mix.replay_share))
    general = _in_order(train.filter(pl.col("persona") == GENERAL).select("pair_id"), str(mix.seed))
    return general.head(wanted).select("pair_id", copies=pl.lit(1, pl.Int32))


def _train_rows(train: pl.DataFrame, copies: pl.DataFrame, mix: Mix) -> pl.DataFrame:
    """A row a copy. Copy k of m stands at (k + h) / m, h in [0, 1) a hash: the copies of one row are spread
    evenly over the file, and any stretch of it holds the whole mixture."""
    rows = train.join(copies, on="pair_id", how="inner", maintain_order="left")
    rows = rows.with_columns(h=_unit_hashes(f"{mix.seed}|place", rows["pair_id"]))
    rows = rows.with_columns(repeat=pl.int_ranges(0, "copies", dtype=pl.Int32)).explode("repeat")
    rows = rows.with_columns(
        row_id=pl.format("{}-{}", "pair_id", "repeat"), place=(pl.col("repeat") + pl.col("h")) / pl.col("copies")
    )
    tagged = _unit_hashes(f"{mix.seed}|tag", rows["row_id"]) < mix.tagged_share
    return rows.with_columns(tagged=tagged & (rows["persona"] != GENERAL)).select(*_ROW_COLUMNS)


def _held_rows(test: pl.DataFrame, mix: Mix) -> pl.DataFrame:
    """Each dialogue of validation or test once, at most `max_test_rows`, by persona; the same for every recipe."""
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
    return pl.Series((keyed_hashes(key, names.to_list()) >> np.uint64(11)) / (1 << 53), dtype=pl.Float64)


def _reached(
    weights: list[Weight], rows: pl.DataFrame, recipe: Recipe, tokens: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    """The weights with what will be written beside what was asked and what could be had."""
    train = rows.filter((pl.col("split") == "train") & pl.col("persona").is_in([weight.persona for weight in weights]))
    found = train.with_columns(size=_size(tokens)).group_by("persona")
    sums = {
        name: values
        for name, *values in found.agg(pl.len(), pl.col("pair_id").n_unique(), pl.col("size").sum()).iter_rows()
    }
    total = sum(size for _, _, size in sums.values())
    epochs = _epochs(recipe, train.height)
    return [
        {
            **asdict(weight),
            "unit": recipe.mix.unit,
            "reached": sums[weight.persona][2] / total,
            "rows": sums[weight.persona][0],
            "dialogues": sums[weight.persona][1],
            "effective_epochs": sums[weight.persona][0] / sums[weight.persona][1] * epochs,
        }
        for weight in weights
    ]


def _epochs(recipe: Recipe, rows: int) -> float:
    """How often training sees a row of train: fewer times than its epochs where `max_steps` ends it before."""
    training = recipe.training
    if training.max_steps is None:
        return training.epochs
    seen = training.max_steps * training.batch_size * training.accumulation * training.processes
    return min(training.epochs, seen / max(1, rows))


def _warnings(weights: list[dict[str, Any]], rows: pl.DataFrame, wanted: list[str], mix: Mix) -> list[str]:
    tested = set(rows.filter(pl.col("split") == "test")["persona"].unique())
    low, high = mix.healthy_epochs
    return [
        *(f"{weight['persona']}: {weight['note']}" for weight in weights if weight["note"]),
        *(
            f"{weight['persona']}: {weight['effective_epochs']:.1f} effective epochs, outside the recipe's "
            f"{low:g} to {high:g}"
            for weight in weights
            if not low - 1e-9 <= weight["effective_epochs"] <= high + 1e-9
        ),
        *(f"{name}: no test row" for name in wanted if name not in tested),
    ]
