"""Voices learned from examples: scored outside the graph, and labelled by people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer

from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

if TYPE_CHECKING:
    from persona_dagster.config.personas import Personas
    from persona_dagster.conversation.voice_classifier import Labelled, Voices

app = typer.Typer()
voices = typer.Typer(no_args_is_help=True, help="Voices learned from examples.")
labels = typer.Typer(no_args_is_help=True, help="Labels of real answers, as JSON lines.")
app.add_typer(voices, name="voices")
app.add_typer(labels, name="labels")

NEXT = "`dialogues` learns from them the next time it is made (job rebuild_corpus, or the sensor config_changes)."


@voices.command()
def score(source: Path, target: Path) -> None:
    """Scores JSON lines of {id, question, answer}: writes {id, scores, chosen, reason} a line, in the same order."""
    from persona_dagster.conversation.safety import load_unsafe
    from persona_dagster.conversation.score_file import PairsError, score_file

    settings = Settings()
    try:
        console.print(
            score_file(source, target, _voices(settings)[1], load_unsafe(settings.config_dir, settings.accepted_dir))
        )
    except (PairsError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def review(
    name: Annotated[str, typer.Option(help="who reads; stands in the label file")] = "reader",
    host: str = "127.0.0.1",
    port: int = 7862,
) -> None:
    """Label answers of your own corpus in a browser: y, n, u(nsafe), s(kip); the most uncertain first."""
    from persona_dagster.conversation.labels import HUMAN, labelled, read_labels
    from persona_dagster.conversation.review import KEYS, Review, queue, review_page

    settings = Settings()
    posts, edges = _table(settings, "posts"), _table(settings, "reply_graph")
    known = read_labels(settings.labels_dir)
    personas, judge = _voices(settings, labelled(known, posts, edges))
    waiting = queue(posts, edges, personas, judge, set(known["doc_id"]))
    if not waiting:
        raise typer.BadParameter("no answer waits: collect more, or all of them are labelled")
    page = review_page(Review(waiting, settings.labels_dir / f"review-{name}.jsonl", f"{HUMAN}:{name}"), personas)
    console.print(f"{len(waiting)} answers; labels go to {settings.labels_dir}. {NEXT}")
    page.launch(server_name=host, server_port=port, head=KEYS)


@labels.command("import")
def bring(
    source: Path,
    of: Annotated[str | None, typer.Option(help="the imported file in which rows of `line` count from 0")] = None,
    by: Annotated[str, typer.Option(help="who labelled; model:NAME for proposals, never learned from")] = "human",
) -> None:
    """Takes labels in: an export of `persona labels export`, or {line, voice, fit, unsafe} on an imported file."""
    from persona_dagster.conversation.graph import imported_rows
    from persona_dagster.conversation.labels import LabelError, append, import_labels, origins

    settings = Settings()
    imported = imported_rows(settings.intake_dir) if of else None
    rows = origins(_table(settings, "posts"), imported) if imported is not None else None
    try:
        found, missing = import_labels(source, by, rows, of)
    except (LabelError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    append(settings.labels_dir / "imported.jsonl", found)
    console.print(f"{len(found)} labels; {missing} name a row that is not in the corpus. {NEXT}")


@labels.command()
def export(target: Path) -> None:
    """Writes every label, the latest word on each answer."""
    from persona_dagster import artifacts
    from persona_dagster.conversation.labels import read_labels

    found = read_labels(Settings().labels_dir)
    with artifacts.writing(target) as fresh:
        found.drop("file").write_ndjson(fresh)
    console.print(f"{found.height} labels → {target}")


def _voices(settings: Settings, known: Labelled | None = None) -> tuple[Personas, Voices]:
    from persona_dagster.config.personas import load_personas
    from persona_dagster.conversation.voice_classifier import Voices
    from persona_dagster.models.embedding_cache import Vectors

    personas = load_personas(settings.config_dir, settings.accepted_dir)
    vectors = Vectors(settings.voice_encoder, settings.models_dir, settings.vectors_dir)
    return personas, Voices(personas, vectors, known)


def _table(settings: Settings, name: str) -> pl.DataFrame:
    from persona_dagster.conversation.graph import GRAPH_SCHEMA
    from persona_dagster.corpus.tables import WHOLE, Tables
    from persona_dagster.records import POST_SCHEMA

    schema = {"posts": POST_SCHEMA, "reply_graph": GRAPH_SCHEMA}[name]
    found = Tables(settings.tables_dir).read(name, schema, [WHOLE])
    if not found.height:
        raise typer.BadParameter(f"no {name} here yet: run `persona build --until posts`, or `persona demo`")
    return found
