"""The replica's clock."""

from __future__ import annotations

import typer

from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

app = typer.Typer()
sample_app = typer.Typer(no_args_is_help=True, help="The replica of the three sites.")
app.add_typer(sample_app, name="sample")


@sample_app.command()
def advance(days: int) -> None:
    """Moves the replica's clock: posts, edits and deletions of those days come into being."""
    from persona_dagster.sample.clock import Clock

    clock = Clock(Settings().replica_dir)
    clock.advance(days)
    console.print(f"the replica's clock stands at day {clock.day}; materialise the raw assets to see what is new")
