"""Digests of frames: over what rows mean, and over nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from persona_dagster.digest import frame_digest

FRAME = pl.DataFrame(
    {
        "text": ["一", "二", None, ""],
        "title": ["x", "", "y", None],
        "at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
        "score": [1, None, -3, 4],
        "share": [0.5, 1.5, None, 2.0],
        "flags": [["a", "b"], ["ab"], [], None],
        "messages": [[{"role": "user", "content": str(row)}] for row in range(4)],
    }
)
COLUMNS = FRAME.columns


def test_a_digest_is_of_rows_in_any_order() -> None:
    assert frame_digest(FRAME, COLUMNS) == frame_digest(FRAME[[2, 0, 3, 1]], COLUMNS)
    assert frame_digest(FRAME, COLUMNS[:-1]) != frame_digest(FRAME, COLUMNS)
    assert frame_digest(FRAME.head(0), COLUMNS) == frame_digest(FRAME.head(0), COLUMNS)


def test_any_other_value_is_another_digest() -> None:
    """Also a null for an empty text, words that move to the column beside, and a list that is cut elsewhere."""
    known = frame_digest(FRAME, COLUMNS)
    other = {
        "text": ["一", "二", "", ""],
        "title": ["x", None, "y", None],
        "at": [datetime(2026, 1, day, microsecond=1, tzinfo=UTC) for day in (1, 2, 3, 4)],
        "score": [1, 0, -3, 4],
        "share": [0.5, 1.5, 0.0, 2.0],
        "flags": [["ab"], ["ab"], [], None],
        "messages": [[{"role": "user", "content": "0"}]] * 4,
    }
    for name, values in other.items():
        changed = FRAME.with_columns(pl.Series(name, values, dtype=FRAME.schema[name]))
        assert frame_digest(changed, COLUMNS) != known, name
    moved = (
        pl.DataFrame({"a": ["12:ab", "3"], "b": ["c", "4:x"]}),
        pl.DataFrame({"a": ["12:abc", "3"], "b": ["", "4:x"]}),
    )
    assert frame_digest(moved[0], ["a", "b"]) != frame_digest(moved[1], ["a", "b"])
