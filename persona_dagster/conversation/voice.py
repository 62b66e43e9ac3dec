"""How well an exchange fits a persona: a small scorer over the regular expressions of config/personas/.

The question on topic and the core of the voice heard count two each, every further signal one; the score is
their share of all. A pattern against the voice halves it, and what the persona avoids makes it 0. Polars
evaluates the patterns (Rust syntax, no look-around), so that 100 k exchanges take about a second.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.config.personas import Voice


def voice_score(question: pl.Expr, answer: pl.Expr, voice: Voice) -> pl.Expr:
    """The score of an exchange, 0 to 1; a list without patterns is heard in everything."""
    heard = [
        2 * _any(question, voice.topics),
        2 * _any(answer, voice.core),
        *(_any(answer, (s,)) for s in voice.signals),
    ]
    score = pl.sum_horizontal(heard) / (4 + len(voice.signals))
    if voice.against:
        score = score / (1 + _any(answer, voice.against))
    if voice.avoid:
        score = score * (1 - _any(question, voice.avoid)) * (1 - _any(answer, voice.avoid))
    return score


def _any(text: pl.Expr, patterns: tuple[str, ...]) -> pl.Expr:
    """1 where one of the patterns occurs in `text`, else 0; 1 without patterns."""
    if not patterns:
        return pl.lit(1)
    return text.str.contains("|".join(f"(?:{pattern})" for pattern in patterns)).fill_null(value=False).cast(pl.Int32)
