"""Cleaning and querying outside the graph."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.table import Table

from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

app = typer.Typer()


@app.command()
def parse(files: list[Path]) -> None:
    """Prints one JSON line a saved page or payload: outcome, kind, posts and comments, flags, and why."""
    from persona_dagster.intake.inspect_saved_page import parse_file

    for path in files:
        sys.stdout.write(orjson.dumps(parse_file(path), default=str).decode() + "\n")


@app.command()
def clean(source: Path, target: Path) -> None:
    """Runs the cleaning rules over a dump (JSONL, also .gz and .zst, in the import schema); prints the funnel."""
    from persona_dagster.config.personas import load_personas
    from persona_dagster.config.sources import load_sources
    from persona_dagster.corpus.clean_file import clean_file
    from persona_dagster.digest import author_key

    settings = Settings()
    sources, personas = (
        load_sources(settings.config_dir, settings.profile, settings.accepted_dir),
        load_personas(settings.config_dir, settings.accepted_dir).personas,
    )
    pseudonym = partial(author_key, settings.author_secret)
    console.print(
        clean_file(
            source, target, sources, personas=personas, author_key=pseudonym, name_model=settings.name_model
        ).markdown()
    )


@app.command()
def personas() -> None:
    """What each persona has of the present dialogues."""
    import polars as pl

    from persona_dagster.config.personas import load_personas
    from persona_dagster.conversation.builders import persona_yield

    settings = Settings()
    path = settings.tables_dir / "dialogues" / "all.parquet"
    if not path.is_file():
        raise typer.BadParameter(f"no dialogues under {settings.tables_dir}: materialise `dialogues` (make demo) first")
    found = persona_yield(pl.read_parquet(path), load_personas(settings.config_dir, settings.accepted_dir))
    table = Table(*found.columns)
    for row in found.iter_rows():
        table.add_row(*(str(value) for value in row))
    console.print(table)


@app.command()
def sql(statement: str, csv: Annotated[bool, typer.Option(help="CSV on standard output, whole")] = False) -> None:
    """Asks the corpus in DuckDB's SQL, read only; without a FROM clause of its own, try "SHOW TABLES"."""
    from persona_dagster.corpus.tables import QueryError, Tables

    try:
        found = Tables(Settings().tables_dir).query(statement)
    except QueryError as error:
        raise typer.BadParameter(str(error)) from error
    if csv:
        sys.stdout.write(found.write_csv())
        return
    table = Table(*found.columns)
    for row in found.head(200).iter_rows():
        table.add_row(*(str(value) for value in row))
    console.print(table)
    if found.height > 200:
        console.print(f"200 of {found.height} rows; --csv gives them all")
