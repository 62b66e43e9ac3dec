"""Where things came from, forgetting, verifying, backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

app = typer.Typer()


@app.command()
def trace(
    query: str, show: Annotated[bool, typer.Option("--show", help="and the captures themselves, as archived")] = False
) -> None:
    """Where a row, post, URL or sentence came from, and what was made of it."""
    from persona_dagster.lineage.trace import captures
    from persona_dagster.lineage.trace import trace as find

    found = find(query, Settings())
    console.print(found.markdown())
    for capture in captures(found, Settings()) if show else ():
        console.print(f"\n{capture.url} as of {capture.fetched_at:%Y-%m-%d %H:%M} UTC, sha256 {capture.sha256}")
        console.print(capture.body.decode("utf-8", "replace"), markup=False, highlight=False)


@app.command()
def forget(
    target: Annotated[str, typer.Argument(help="URL of a post, a doc_id, or `source:author`")],
    only_plan: Annotated[bool, typer.Option("--plan", help="say what would change, and touch nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask, however much changes")] = False,
) -> None:
    """Removes a post or an author from every store, for good, and marks the adapters that saw it."""
    from persona_dagster.lineage import forget as forgetting

    settings = Settings()
    try:
        if only_plan:
            console.print(forgetting.plan(target, settings).markdown())
            return
        report = forgetting.forget(target, settings, most=None if yes else settings.forget_limit)
    except forgetting.LimitError as error:
        console.print(str(error))
        typer.confirm(f"Forget {target} everywhere? This cannot be undone.", abort=True)
        report = forgetting.forget(target, settings)
    console.print(report.markdown())
    if report.left:
        raise typer.Exit(1)  # something still holds the text: the report names it


@app.command()
def verify() -> None:
    """Holds every store against its hashes, and the tombstones against every store."""
    from persona_dagster.lineage.verify import verify as look

    faults = look(Settings())
    console.print("\n".join(faults) if faults else "every store is as it was written, and nothing forgotten is in one")
    if faults:
        raise typer.Exit(1)


@app.command()
def rebuild() -> None:
    """Makes anew what can be derived: indexes of the archive, the catalogue, what is remembered of compared texts."""
    from persona_dagster.lineage.verify import rebuild as make

    console.print("\n".join(make(Settings())) or "nothing there to derive from")


@app.command()
def backup(
    folder: Path,
    models: Annotated[bool, typer.Option("--models", help="and exports and releases, which are large")] = False,
) -> None:
    """Writes archive, tables, mixes, adapters, reports and Dagster's own storage to a new folder, with their hashes."""
    from persona_dagster.lineage.backup import backup as write

    console.print(write(Settings(), folder, models=models).markdown())


@app.command()
def restore(folder: Path, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Puts a backup in the place of $PERSONA_HOME; what was there is moved aside. Stop Dagster first."""
    from persona_dagster.lineage.backup import restore as put_back

    settings = Settings()
    if not yes:
        typer.confirm(f"Put {folder} in the place of {settings.home}?", abort=True)
    console.print(put_back(settings, folder).markdown())
