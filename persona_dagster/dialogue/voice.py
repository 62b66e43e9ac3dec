"""How well an answer fits a persona's voice: a small scorer over the regular expressions of personas.yaml.

Score = share of the voice's signals heard, halved by each pattern heard against it; 1 where a voice has none.
Polars evaluates the patterns (Rust syntax, no look-around), so that 100 k answers take about a second.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.config.personas import Voice


def voice_score(text: pl.Expr, voice: Voice) -> pl.Expr:
    """The score of `text`, 0 to 1."""
    heard = _hits(text, voice.signals) / len(voice.signals) if voice.signals else pl.lit(1.0)
    return heard * pl.lit(0.5).pow(_hits(text, voice.against))


def _hits(text: pl.Expr, patterns: tuple[str, ...]) -> pl.Expr:
    """How many of the patterns occur in `text`."""
    return pl.sum_horizontal(pl.lit(0), *(text.str.contains(pattern).cast(pl.Int32) for pattern in patterns))
