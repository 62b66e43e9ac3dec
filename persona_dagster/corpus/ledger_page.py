"""The row ledger as counts and as a page that needs no network: each bucket opens to rows by file and place."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import write_text
from persona_dagster.corpus.html_page import page
from persona_dagster.corpus.ledger import STAGES

EXAMPLES = 20  # rows of a bucket that its page names


def stages(ledger: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows by stage, bucket and reason, in the order of the stages; they sum to the ledger's rows."""
    order = {stage: number for number, stage in enumerate(STAGES)}
    counts = ledger.group_by("stage", "bucket", "why").agg(rows=pl.len())
    return (
        counts.with_columns(at=pl.col("stage").replace_strict(order, default=99))
        .sort("at", "rows", "bucket", "why", descending=[False, True, False, False])
        .drop("at")
        .to_dicts()
    )


def examples(ledger: pl.DataFrame, of: dict[str, Any]) -> pl.DataFrame:
    """Rows of one of `stages`: file, row, doc_id, and what they repeat."""
    here = [pl.col(name).eq_missing(of[name]) for name in ("stage", "bucket", "why")]
    return ledger.filter(*here).select("file", "row", "doc_id", "of").head(EXAMPLES)


def write_page(ledger: pl.DataFrame, path: Path) -> Path:
    """The page; no text of posts stands on it, but where each row lies."""
    records = ledger.filter(pl.col("part") == 0).height
    body = [
        f"<p>{records:,} records came in, with {ledger.height - records:,} comments "
        "within them. Each ends in exactly one of these.</p>"
    ]
    left, stage = ledger.height, ""
    for one in stages(ledger):
        if one["stage"] != stage:
            stage = one["stage"]
            body.append(f"<h2>{stage}: {left:,} came here</h2>")
        left -= one["rows"]
        name = f"{one['bucket']} · {one['why']}" if one["why"] else one["bucket"]
        share = round(70 * one["rows"] / ledger.height, 1)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(value if value is not None else ''))}</td>" for value in row)
            + "</tr>"
            for row in examples(ledger, one).iter_rows()
        )
        body.append(
            f'<details><summary class="stage"><span>{html.escape(name)}</span>'
            f'<b><i style="width:{share}%"></i>{one["rows"]:,}</b></summary>'
            f"<table><tr><th>file</th><th>row</th><th>post</th><th>of</th></tr>{rows}</table></details>"
        )
    return write_text(path, page("Where every row went", "".join(body), "Funnel"))
