"""The data card of a mix, as Markdown and as one HTML page: counts, weights and proofs, no word of any post."""

from __future__ import annotations

from html import escape
from pathlib import Path

from persona_dagster.artifacts import MixManifest
from persona_dagster.config.personas import Personas
from persona_dagster.corpus.html_page import page

Table = tuple[str, list[str], list[list[str]]]  # title, head, rows


def write_card(manifest: MixManifest, personas: Personas, folder: Path) -> None:
    """data_card.md and data_card.html in `folder`."""
    tables = _tables(manifest, personas)
    facts = _facts(manifest)
    (folder / "data_card.md").write_text(_markdown(manifest, facts, tables), encoding="utf-8")
    (folder / "data_card.html").write_text(_html(manifest, facts, tables), encoding="utf-8")


def weights_markdown(manifest: MixManifest) -> str:
    unit = manifest.config["mix"].get("unit", "rows")
    head = ["persona", "dialogues", "asked", "feasible", "reached", "copies", "effective epochs", ""]
    top = [f"Shares of {unit}.", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines = [
        f"| {w['persona']} | {w['dialogues']} | {w['asked']:.1%} | {w['feasible']:.1%} | {w['reached']:.1%} "
        f"| {w['rows'] / w['dialogues']:.2f} | {w['effective_epochs']:.1f} | {w['note']} |"
        for w in manifest.weights
    ]
    return "\n".join([*top, *lines])


def _facts(manifest: MixManifest) -> list[str]:
    return [
        f"{manifest.train_rows:,} train rows, {_held(manifest)} validation rows, {manifest.test_rows:,} test rows; "
        f"text level of train: {manifest.config['mix']['text']}, of the others: clean.",
        f"Tagged with the persona: {manifest.tagged.get('train', 0):,} train rows, "
        f"{manifest.tagged.get('test', 0):,} test rows; the others have no system message.",
        f"Largest Jaccard similarity between a train row and a row held out: {manifest.largest_jaccard:.3f} "
        "(prompt and answer, exact join over all pairs).",
        "Learned of each persona (characters of its answers, copies included): "
        + ", ".join(f"{name} {share:.1%}" for name, share in manifest.learned.items())
        + ".",
        *(f"Too little to train on: {line}." for line in manifest.shortfall),
        *(
            [f"Trained on all the same: {reason}"]
            if manifest.shortfall and (reason := manifest.config["mix"].get("accept_shortfall"))
            else []
        ),
        "Rows can be traced to their posts by provenance.parquet; authors stand as keyed hashes, and a forgotten "
        "post takes its rows along. The card repeats no text.",
    ]


def _held(manifest: MixManifest) -> str:
    return f"{manifest.files.get('validation.jsonl', {}).get('rows', 0):,}"


def _tables(manifest: MixManifest, personas: Personas) -> list[Table]:
    tags = {name: persona.tag for name, persona in personas.personas.items()}
    weights = [
        [
            w["persona"],
            tags.get(w["persona"], ""),
            f"{w['dialogues']:,}",
            f"{w['rows']:,}",
            f"{w['asked']:.1%}",
            f"{w['feasible']:.1%}",
            f"{w['reached']:.1%}",
            f"{w['effective_epochs']:.1f}",
            w["note"],
        ]
        for w in manifest.weights
    ]
    head = ["persona", "tag", "dialogues", "rows", "asked", "feasible", "reached", "effective epochs", "note"]
    names = sorted({*manifest.train_by_persona, *manifest.test_by_persona})
    by_split = [
        [name, f"{manifest.train_by_persona.get(name, 0):,}", f"{manifest.test_by_persona.get(name, 0):,}"]
        for name in names
    ]
    files = [[name, f"{file['rows']:,}", f"{file['bytes']:,}", file["sha256"]] for name, file in manifest.files.items()]
    return [
        (f"Weights (shares of {manifest.config['mix'].get('unit', 'rows')})", head, weights),
        ("Rows by persona", ["persona", "train", "test"], by_split),
        ("Train rows by source", ["source", "rows"], [[k, f"{v:,}"] for k, v in manifest.by_source.items()]),
        ("Train rows by builder", ["builder", "rows"], [[k, f"{v:,}"] for k, v in manifest.by_builder.items()]),
        ("Files", ["file", "rows", "bytes", "sha256"], files),
    ]


def _markdown(manifest: MixManifest, facts: list[str], tables: list[Table]) -> str:
    lines = [f"# Data card: {manifest.recipe}", "", f"Mix `{manifest.digest}`.", ""]
    lines += [f"- {fact}" for fact in facts]
    lines += [f"- **{warning}**" for warning in manifest.warnings]
    for title, head, rows in tables:
        lines += ["", f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _html(manifest: MixManifest, facts: list[str], tables: list[Table]) -> str:
    parts = [
        f"<p>Mix <code>{manifest.digest}</code></p><ul>",
        *(f"<li>{escape(fact)}</li>" for fact in facts),
        *(f"<li class='warn'>{escape(warning)}</li>" for warning in manifest.warnings),
        "</ul>",
    ]
    for title, head, rows in tables:
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        parts.append(f"<h2>{escape(title)}</h2><table><tr>{cells}</tr>")
        parts += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts.append("</table>")
    return page(manifest.recipe, "\n".join(parts), "Data card")
