"""The rules over columns: Polars runs each as one vectorised replacement and counts what it touched.

Rows change from pass to pass until nothing moves; only rows that changed are looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from persona_dagster.corpus.funnel import RuleTrace
from persona_dagster.corpus.rules import MAX_PASSES, CleaningRule


def apply_rule(texts: pl.Series, rule: CleaningRule) -> pl.Series:
    """One rule over a column, by Polars."""
    if rule.fold:
        return texts.str.replace_many(list(rule.table), list(rule.table.values()))
    return texts.str.replace_all(rule.rust, rule.replace)


def one_pass(texts: pl.Series, rules: Sequence[CleaningRule], trace: RuleTrace) -> pl.Series:
    """Every rule once, in order. A rule's cost is one scan; its trace is counted on the rows it changed only."""
    for rule in rules:
        after = apply_rule(texts, rule)
        changed = texts != after
        if changed.any():
            trace.note(rule.name, texts.filter(changed), after.filter(changed))
            texts = after
    return texts


def apply_rules(texts: pl.Series, rules: Sequence[CleaningRule], trace: RuleTrace) -> tuple[pl.Series, pl.Series]:
    """The column cleaned, and a mask of the rows that never settled (emptied; see `rules.MAX_PASSES`)."""
    texts = texts.fill_null("")
    unsettled = pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(texts))
    cleaned = one_pass(texts, rules, trace)
    moving = (texts != cleaned).arg_true()
    for _ in range(MAX_PASSES - 1):
        if not len(moving):
            return cleaned, unsettled
        before = cleaned.gather(moving)
        after = one_pass(before, rules, trace)
        changed = before != after
        moving, after = moving.filter(changed), after.filter(changed)
        if len(moving):
            cleaned = cleaned.clone().scatter(moving, after)
    cleaned = cleaned.clone().scatter(moving, "")
    return cleaned, unsettled.clone().scatter(moving, True)
