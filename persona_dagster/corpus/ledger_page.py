"""The row ledger as counts and as a page that needs no network: each bucket opens to rows by file and place."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import write_text
from persona_dagster.corpus.ledger import STAGES

EXAMPLES = 20  # rows of a bucket that its page names
STYLE = """
body{font:15px/1.6 system-ui,'Noto Sans TC',sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#111}
h1,h2{font-weight:600}summary{display:flex;gap:.8em;align-items:center;cursor:pointer}
summary span:first-child{width:15em}summary i{height:.9em;background:#2563eb;border-radius:2px;display:block}
table{border-collapse:collapse;margin:.4em 0 1em 1em;font-size:13px}td,th{padding:.1em .8em .1em 0;text-align:left}
"""


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
        f"<h1>Where every row went</h1><p>{records:,} records came in, with {ledger.height - records:,} comments "
        "within them. Each ends in exactly one of these.</p>"
    ]
    left, stage = ledger.height, ""
    for one in stages(ledger):
        if one["stage"] != stage:
            stage = one["stage"]
            body.append(f"<h2>{stage}: {left:,} came here</h2>")
        left -= one["rows"]
        name = f"{one['bucket']} · {one['why']}" if one["why"] else one["bucket"]
        share = max(1, round(400 * one["rows"] / ledger.height))
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(value if value is not None else ''))}</td>" for value in row)
            + "</tr>"
            for row in examples(ledger, one).iter_rows()
        )
        body.append(
            f'<details><summary><span>{html.escape(name)}</span><i style="width:{share}px"></i>{one["rows"]:,}'
            "</summary>"
            f"<table><tr><th>file</th><th>row</th><th>post</th><th>of</th></tr>{rows}</table></details>"
        )
    head = f'<!doctype html><html lang="zh-Hant"><meta charset="utf-8"><title>Funnel</title><style>{STYLE}</style>'
    return write_text(path, f"{head}{''.join(body)}</html>")
