"""How well an exchange fits a persona: a small scorer over the regular expressions of personas.yaml.

0 where the question is off the persona's topics, the answer lacks the core of the voice or holds a pattern
against it, or either touches what the persona avoids; else from the core alone up to 1 with every further signal. Polars evaluates the patterns (Rust
syntax, no look-around), so that 100 k exchanges take about a second.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.config.personas import Voice


def voice_score(question: pl.Expr, answer: pl.Expr, voice: Voice) -> pl.Expr:
    """The score of an exchange, 0 to 1; 1 where a voice names no pattern."""
    fits = pl.lit(value=True)
    if voice.topics:
        fits &= _any(question, voice.topics)
    if voice.core:
        fits &= _any(answer, voice.core)
    if voice.against:
        fits &= ~_any(answer, voice.against)
    if voice.avoid:
        fits &= ~(_any(question, voice.avoid) | _any(answer, voice.avoid))
    heard = pl.sum_horizontal(pl.lit(1), *(answer.str.contains(pattern).cast(pl.Int32) for pattern in voice.signals))
    return pl.when(fits).then(heard / (1 + len(voice.signals))).otherwise(0.0)


def _any(text: pl.Expr, patterns: tuple[str, ...]) -> pl.Expr:
    return text.str.contains("|".join(f"(?:{pattern})" for pattern in patterns))
