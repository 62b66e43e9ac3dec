"""One page that says what is in a corpus: HTML that needs no network, Markdown, and the numbers as JSON.

Counts come from SQL over the cleaned frame; examples are masked text, fenced or escaped.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import write_text
from persona_dagster.corpus.funnel import Funnel, RuleCount
from persona_dagster.corpus.html_page import page
from persona_dagster.corpus.privacy import KINDS
from persona_dagster.corpus.quality import usable
from persona_dagster.corpus.tables import run_sql

Bars = list[tuple[str, float]]
# Qwen and Llama 3 spend about 0.8 tokens on a Han character and 1.3 on an English word (4.5 letters).
TOKENS_PER_HAN, LETTERS_PER_TOKEN = 0.8, 4.0
MASKED = f"<(?:{'|'.join(KINDS)})>"
SHOWN = 12  # rows of a table before the rest is folded
BOARD = ("source", "board", "rows", "usable", "copies", "personal_data", "tokens")


def _numbers(frame: pl.DataFrame, funnel: Funnel, matches: pl.DataFrame | None) -> dict[str, Any]:
    text = pl.col("text")
    han = text.str.count_matches(r"\p{Han}")
    shape = frame.select(
        "source", "board", "kind", "created_at", "lang",
        text.str.len_chars().alias("chars"),
        (han * TOKENS_PER_HAN + (text.str.len_chars() - han) / LETTERS_PER_TOKEN).alias("tokens"),
        usable().alias("usable"),
        pl.col("text_raw").str.extract_all(MASKED).alias("masked"),
        pl.col("dup_of").is_not_null().alias("copy"),
    )  # fmt: skip
    parts = ("boards", "lengths", "years", "personal_data")
    boards, lengths, years, personal = (run_sql(f"card_{name}", shape=shape) for name in parts)
    return {
        "funnel": funnel.to_dict(),
        "rows": len(frame),
        "usable": int(shape["usable"].sum()),
        "tokens_usable_estimate": round(shape.filter("usable")["tokens"].sum() or 0),
        "boards": boards.to_dicts(),
        "lengths": [(f"{least}-{most or ''}", rows) for least, most, rows in lengths.iter_rows()],
        "years": list(years.iter_rows()),
        "personal_data": [(kind.strip("<>"), found, boards) for kind, found, boards in personal.iter_rows()],
        "examples": {name: count.examples for name, count in funnel.trace.rules.items()},
        "duplicates": []
        if matches is None
        else [tuple(r.values()) for r in matches.group_by("cause").len().sort("cause").to_dicts()],
    }


def plot(bars: Bars, title: str) -> bytes:
    """A bar chart as PNG, small enough (<100 KB) for an asset's metadata."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar([name for name, _ in bars], [value for _, value in bars], color="#2563eb")
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    for label in axes.get_xticklabels():
        label.set_rotation(40)
        label.set_horizontalalignment("right")
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _fenced(text: str) -> str:
    return "`" + text.replace("`", "ˋ").replace("|", "¦").replace("\n", "⏎") + "`"


def _markdown(numbers: dict[str, Any], funnel: Funnel, title: str) -> str:
    lines = [
        f"# Data card: {title}",
        "",
        f"About {numbers['tokens_usable_estimate']:,} tokens of usable text.",
        "",
        funnel.markdown(),
    ]
    if numbers["duplicates"]:
        lines += [
            "",
            "| copies, by cause | rows |",
            "|---|--:|",
            *(f"| {cause} | {count:,} |" for cause, count in numbers["duplicates"]),
        ]
    if numbers["personal_data"]:
        lines += ["", "| personal data masked | found | boards |", "|---|--:|--:|"]
        lines += [f"| {kind} | {found:,} | {boards:,} |" for kind, found, boards in numbers["personal_data"]]
    lines += ["", f"| {' | '.join(BOARD).replace('_', ' ')} |", "|---|---|--:|--:|--:|--:|--:|"]
    for board in numbers["boards"][:40]:
        counts = " | ".join(f"{board[name]:,}" for name in BOARD[2:])
        lines.append(f"| {board['source']} | {_cell(board['board'])} | {counts} |")
    lines += ["", "## What each rule did", ""]
    for name, count in funnel.trace.rules.items():
        lines += [f"- **{name}** ({count.rows:,} rows)"]
        lines += [f"  - {_fenced(before)} → {_fenced(after)}" for before, after in count.examples]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "¦")


def _table(header: list[str], rows: list[list[Any]]) -> str:
    """A table; what is more than a screen of it is folded."""

    def cell(tag: str, value: Any) -> str:
        return (
            f"<{tag} class=n>{value:,}</{tag}>"
            if isinstance(value, int)
            else f"<{tag}>{html.escape(str(value))}</{tag}>"
        )

    def table(some: list[list[Any]]) -> str:
        head = "".join(
            f"<th{'' if isinstance(value, str) else ' class=n'}>{html.escape(name)}</th>"
            for name, value in zip(header, rows[0], strict=True)
        )
        body = "".join(f"<tr>{''.join(cell('td', value) for value in row)}</tr>" for row in some)
        return f"<table><tr>{head}</tr>{body}</table>"

    if not rows:
        return "<p>none</p>"
    more = rows[SHOWN:]
    folded = f"<details><summary>{len(more)} more</summary>{table(more)}</details>" if more else ""
    return table(rows[:SHOWN]) + folded


def _html(numbers: dict[str, Any], funnel: Funnel, plots: dict[str, bytes], title: str) -> str:
    images = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in plots.items()
    )
    rules = "".join(
        f"<details><summary>{html.escape(name)}: {c.rows:,} rows, {c.bytes_removed:,} bytes removed</summary><ul>"
        + "".join(f"<li><code>{html.escape(b)}</code><br>→ <code>{html.escape(a)}</code></li>" for b, a in c.examples)
        + "</ul></details>"
        for name, c in funnel.trace.rules.items()
    )
    counts = "".join(
        f"<h2>{heading}</h2>" + _table(["", "rows"], [[k, v] for k, v in values.most_common()])
        for heading, values in (
            ("Removed", funnel.removed),
            ("Flags", funnel.flags),
            ("Languages", funnel.languages),
            ("Labels that no configuration names", funnel.unknown_labels),
        )
        if values
    )
    copies = _table(["cause", "rows"], [list(row) for row in numbers["duplicates"]])
    personal = _table(["kind", "found", "boards"], [list(row) for row in numbers["personal_data"]])
    boards = _table([n.replace("_", " ") for n in BOARD], [[b[n] for n in BOARD] for b in numbers["boards"]])
    size = f"{funnel.rows_in:,} rows in, {numbers['rows']:,} out, {numbers['usable']:,} usable"
    body = (
        f"<p>{size}, about {numbers['tokens_usable_estimate']:,} tokens.</p>{images}{counts}"
        f"<h2>Personal data masked</h2>{personal}<h2>Copies</h2>{copies}<h2>By board</h2>{boards}"
        f"<h2>What each rule did</h2>{rules}"
    )
    return page(title, body, "Data card")


def funnel_of(frame: pl.DataFrame, cards: Path) -> Funnel:
    """The counts that finished rows still tell, and what the cards of their boards (below `cards`) say of the rules."""
    whole = Funnel(
        rows_in=frame.height,
        rows_out=frame.height,
        usable=frame.filter(usable()).height,
        flags=Counter(frame["flags"].explode().drop_nulls()),
        languages=Counter(frame["lang"].drop_nulls()),
    )
    parts = frame.select("source", "board").unique().rows()
    # Imported rows stand in a partition of that name, whatever their boards.
    for source, board in sorted({*parts, *((source, "import") for source, _ in parts)}):
        card = cards / card_name(source, [board]) / "data_card.json"
        if card.exists():
            numbers = json.loads(card.read_text(encoding="utf-8"))
            part = Funnel(unknown_labels=Counter(numbers["funnel"]["unknown_labels"]))
            for name, count in numbers["funnel"]["rules"].items():
                part.trace.rules[name] = RuleCount(**count, examples=[tuple(e) for e in numbers["examples"][name]])
            whole.add(part)
    return whole


def card_name(source: str, boards: list[str]) -> str:
    """The folder of a partition's card."""
    return f"{source}-{'-'.join(boards[:1])}"


def write_data_card(
    frame: pl.DataFrame, funnel: Funnel, matches: pl.DataFrame | None, folder: Path, title: str = "corpus"
) -> Path:
    """`data_card.html`, `.md` and `.json` in `folder`, each put in place whole. Returns the folder."""
    numbers = _numbers(frame, funnel, matches)
    plots = {
        name: plot(bars, name)
        for name, bars in (
            ("characters of usable rows", [(label, float(count)) for label, count in numbers["lengths"]]),
            ("rows by year", [(label, float(count)) for label, count in numbers["years"]]),
            ("rows by flag", [(flag, float(count)) for flag, count in funnel.flags.most_common(12)]),
            ("personal data by kind", [(kind, float(found)) for kind, found, _ in numbers["personal_data"]]),
        )
        if bars
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "data_card.json", json.dumps(numbers, ensure_ascii=False, indent=2, default=str))
    write_text(folder / "data_card.md", _markdown(numbers, funnel, title))
    write_text(folder / "data_card.html", _html(numbers, funnel, plots, title))
    return folder
