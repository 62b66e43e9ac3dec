"""Which answers are language, whether their characters make words, and which answer their question: the first three
gates, over a frame of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bootstrap import Interval, mean_interval, share_interval
from persona_dagster.evaluation.coherence import (
    Calibration,
    error_rates,
    lexicon_share,
    long_enough,
    read,
    read_flaw,
    shuffled_chars,
)
from persona_dagster.evaluation.model_comparison import MODELS, SPOKEN, compare, mean_over, of_model
from persona_dagster.evaluation.prompts import MixRow
from persona_dagster.evaluation.relevance import Embed, Relevance, beside_people

PEOPLE = 60  # human answers that are the measure


def mark_flaws(rows: pl.DataFrame, calibration: Calibration, read_rows: int) -> pl.DataFrame:
    """The rows with `flaw`; for those of the adapter that the reader saw, at most `read_rows`, `nats` and `order`."""
    flaws: list[str | None] = [None] * rows.height
    for _, places in _spoken(rows):
        columns = (rows[places][name].to_list() for name in ("answer", "question", "broken"))
        for place, flaw in zip(places, calibration.flaws(*columns), strict=True):
            flaws[place] = flaw
    seen = _to_read(rows, read_rows)
    nats: list[float | None] = [None] * rows.height
    order: list[float | None] = [None] * rows.height
    whole = [place for place in seen if flaws[place] is None]
    if calibration.reader and whole:
        reading = read([rows["answer"][place] for place in whole], calibration.reader)
        for place, likely, lost in zip(whole, reading.nats, reading.order, strict=True):
            nats[place], order[place] = likely, lost
            flaws[place] = read_flaw(likely, lost, calibration.bounds)
    return rows.with_columns(
        pl.Series("flaw", flaws, dtype=pl.String),
        pl.Series("nats", nats, dtype=pl.Float64),
        pl.Series("order", order, dtype=pl.Float64),
        pl.Series("read", [place in set(seen) for place in range(rows.height)], dtype=pl.Boolean),
    )


def mark_relevance(rows: pl.DataFrame, relevance: Relevance) -> pl.DataFrame:
    """The rows with `relevance`: null where a voice was asked too few questions."""
    found: list[float | None] = [None] * rows.height
    for _, places in _spoken(rows):
        columns = (rows[places][name].to_list() for name in ("answer", "question", "asked"))
        for place, value in zip(places, relevance(*columns), strict=True):
            found[place] = value
    return rows.with_columns(pl.Series("relevance", found, dtype=pl.Float64))


def _spoken(rows: pl.DataFrame) -> list[tuple[str, list[int]]]:
    """Each model's places among answers that ought to be prose."""
    named = rows.select("model", "suite").with_row_index("place").filter(pl.col("suite").is_in(SPOKEN))
    by_model = [(model, of_model(named, model)["place"].to_list()) for model in MODELS]
    return [(model, places) for model, places in by_model if places]


def _to_read(rows: pl.DataFrame, count: int) -> list[int]:
    """Places of the adapter's answers that the reader sees: voices in turn, by a hash that knows no answer."""
    places: dict[str, list[tuple[str, int]]] = {}
    for place, row in enumerate(rows.select("model", "suite", "asked", "prompt_id").rows()):
        model, suite, asked, prompt = row
        if model == "adapter" and suite in SPOKEN:
            places.setdefault(asked, []).append((text_digest(suite, prompt), place))
    queues = [sorted(queue) for _, queue in sorted(places.items())]
    turns = [
        queue[depth][1] for depth in range(max(map(len, queues), default=0)) for queue in queues if len(queue) > depth
    ]
    return turns[:count]


def measure_coherence(
    rows: pl.DataFrame,
    calibration: Calibration,
    validation: Sequence[MixRow],
    intervals: dict[str, Interval],
    detail: dict[str, Any],
) -> dict[str, Interval]:
    """The gated share of answers without a flaw. `rows`: of `mark_flaws`; the error rates are of `validation`."""
    spoken = rows.filter(pl.col("suite").is_in(SPOKEN)).with_columns(whole=pl.col("flaw").is_null().cast(pl.Float64))
    compare(spoken, "whole", "coherent", intervals)
    # The gate judges the answers that the reader saw too, where there is one.
    judged = of_model(spoken, "adapter").filter(pl.col("read") if calibration.reader else pl.lit(value=True))
    intervals["coherent_adapter"] = mean_over(judged, "whole")
    errors = error_rates([(row.question, row.answer) for row in validation], calibration)
    if errors["rows"]:
        intervals["coherent_human"] = share_interval(1 - errors["false_alarms"], errors["rows"])
    found = of_model(spoken, "adapter")["flaw"].drop_nulls().value_counts().sort("count", "flaw", descending=True)
    detail["coherence"] = {
        "bounds": calibration.bounds.as_dict(),
        "errors": errors,
        "flaws": {
            model: dict(of_model(spoken, model).drop_nulls("flaw")["flaw"].value_counts().sort("flaw").rows())
            for model in MODELS
        },
        "commonest": found["flaw"][0] if found.height else None,
        "read": rows["nats"].count(),
    }
    return {"min_coherent": intervals["coherent_adapter"]}


def _people(human: Sequence[MixRow], validation: Sequence[MixRow]) -> list[MixRow]:
    """Whose answers are the measure: of `validation`, or of `human` where there are none."""
    return list(validation) or sorted(human, key=lambda row: text_digest(row.row_id))[:PEOPLE]


def measure_words(
    rows: pl.DataFrame, human: Sequence[MixRow], validation: Sequence[MixRow], intervals: dict[str, Interval]
) -> dict[str, Interval]:
    """The gated share of characters that make words, on the scale from people's answers with their characters shuffled
    to people's. Each answer alone may have rare words; all of them together have as many as people's."""
    spoken = rows.filter(pl.col("suite").is_in(SPOKEN))
    shares = [lexicon_share(text) if long_enough(text) else None for text in spoken["answer"]]
    compare(spoken.with_columns(pl.Series("words", shares, dtype=pl.Float64)), "words", "words", intervals)
    said = [(row.answer, text_digest(row.question)) for row in _people(human, validation) if long_enough(row.answer)]
    mixed = mean_interval([lexicon_share(shuffled_chars(text)) for text, _ in said])
    intervals["words_human"] = mean_interval(
        [lexicon_share(text) for text, _ in said], groups=[question for _, question in said]
    )
    intervals["words_share"] = beside_people(intervals["words_adapter"], intervals["words_human"], mixed.value or 0.0)
    return {"min_words": intervals["words_share"]}


def measure_relevance(
    rows: pl.DataFrame,
    embed: Embed,
    human: Sequence[MixRow],
    validation: Sequence[MixRow],
    intervals: dict[str, Interval],
) -> tuple[pl.DataFrame, dict[str, Interval]]:
    """The rows with `relevance`, and the gated number, on the scale from chance to people. `human` answers say how rare
    words are."""
    relevance = Relevance([text for row in human for text in (row.question, row.answer)], embed)
    rows = mark_relevance(rows, relevance)
    compare(rows, "relevance", "relevance", intervals)
    people = _people(human, validation)
    values = relevance(
        [row.answer for row in people], [row.question for row in people], [row.persona for row in people]
    )
    kept = [(row.question, value) for row, value in zip(people, values, strict=True) if value is not None]
    people_reach = mean_interval([value for _, value in kept], groups=[text_digest(question) for question, _ in kept])
    intervals["relevance_human"] = people_reach
    intervals["relevance_share"] = beside_people(intervals["relevance_adapter"], people_reach)
    return rows, {"min_relevance": intervals["relevance_share"]}
