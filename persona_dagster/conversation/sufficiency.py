"""Whether a mix holds enough of each persona: by what is learned of it (characters of answers, copies included), not by
rows; an answer of notes is thirty times as long as a push.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Mix


def learned_shares(dialogues: pl.LazyFrame, rows: pl.DataFrame, personas: Personas) -> dict[str, float]:
    """The share of each persona in all that train teaches of personas; `rows`: the plan's, `dialogues`: their texts."""
    answers = pl.col("messages").list.eval(
        pl.element().filter(pl.element().struct.field("role") == "assistant").struct.field("content").str.len_chars()
    )
    sizes = dialogues.select("pair_id", size=answers.list.sum().cast(pl.Int64)).collect()
    train = rows.filter((pl.col("split") == "train") & pl.col("persona").is_in(list(personas.personas)))
    by_persona = dict(train.join(sizes, on="pair_id").group_by("persona").agg(pl.col("size").sum()).iter_rows())
    total = sum(by_persona.values())
    return {name: by_persona.get(name, 0) / total if total else 0.0 for name in personas.personas}


def shortfall(learned: dict[str, float], test_rows: dict[str, int], mix: Mix, personas: Personas) -> list[str]:
    """What each persona of the mix lacks, and where it could be collected. One that has nothing at all is left out by
    name in the mix's warnings; general chats (`kind: capybara`) need nothing."""
    if mix.kind != "persona":
        return []
    lines = []
    for name, persona in personas.personas.items():
        if not learned[name]:
            continue
        lacks = []
        if learned[name] < mix.min_learned_share:
            lacks.append(f"{learned[name]:.1%} of what is learned, {mix.min_learned_share:.0%} wanted")
        if test_rows.get(name, 0) < mix.min_test_rows:
            lacks.append(f"{test_rows.get(name, 0)} test rows, {mix.min_test_rows} wanted")
        if lacks:
            places = ", ".join(
                dict.fromkeys(
                    f"{source} {board}".strip()
                    for feed in persona.feeds
                    for source in feed.sources
                    for board in feed.boards or ("",)
                )
            )
            lines.append(f"{persona.tag} {name}: {'; '.join(lacks)}; fed by {places}")
    return lines
