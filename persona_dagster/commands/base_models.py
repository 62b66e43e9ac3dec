"""`persona base …`: which base models there are, whether one does what is asked of it; getting and pinning one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from persona_dagster.config.base_models import Base, Hub, find_base, load_bases, write_pin
from persona_dagster.settings import Settings

app = typer.Typer()
base_app = typer.Typer(no_args_is_help=True, help="Base models: entries in config/bases.")
app.add_typer(base_app, name="base")
console = Console(soft_wrap=True, highlight=False)


@base_app.command("list")
def show() -> None:
    """All entries, packaged and your own, with source and licence."""
    table = Table("name", "source", "licence", "end of turn")
    for entry in load_bases(Settings().config_dir).values():
        source = entry.source
        where = (
            f"{source.hub}@{source.revision or 'main'}" if isinstance(source, Hub) else type(source).__name__.lower()
        )
        table.add_row(entry.name, where, entry.licence.id, ", ".join(entry.end_of_turn))
    console.print(table)


@base_app.command()
def check(
    name: str,
    tiny: Annotated[bool, typer.Option(help="a random model of its shape and template instead of its weights")] = False,
) -> None:
    """Template, mask, stop, cuts, adapter, merge and shortcut of a base, one line each; fails if one does not hold."""
    from persona_dagster.models.base_check import check_base, tiny_base

    settings = Settings()
    entry = find_base(name, load_bases(settings.config_dir))
    base = tiny_base(entry) if tiny else Base(model=name, entry=entry)
    if entry.licence.notice:
        console.print(f"{entry.licence.notice} {entry.licence.url}")
    failed = 0
    for finding in check_base(base, settings.models_dir):
        failed += not finding.holds
        console.print(f"[green]ok[/green]    {finding.name}" if finding.holds else f"[red]fails[/red] {finding.name}")
        if finding.why:
            console.print(f"      {finding.why}", markup=False)
    if failed:
        raise typer.Exit(1)


@base_app.command()
def fetch(name: str) -> None:
    """Gets a base ready before it is needed: downloads or converts it, once."""
    from huggingface_hub import snapshot_download

    from persona_dagster.models.base_model import resolve_base

    settings = Settings()
    entry = find_base(name, load_bases(settings.config_dir))
    base = Base(model=name, entry=entry)
    where = resolve_base(base, settings.models_dir)
    if isinstance(entry.source, Hub) and not Path(where).is_dir():
        where = snapshot_download(where, revision=base.hub_revision)
    console.print(f"{name} is ready in {where}")


@base_app.command()
def pin(name: str) -> None:
    """Writes the commit that the Hub has now into your own entry of this base: it then stays what it is."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    settings = Settings()
    entry = find_base(name, load_bases(settings.config_dir))
    if not isinstance(entry.source, Hub):
        raise ValueError(f"base {entry.name} is not of the Hub: its entry says what it is already")
    try:
        revision = HfApi().model_info(entry.source.hub).sha
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(f"{entry.source.hub}: {error}. Check the network, and HF_TOKEN if it is gated.") from error
    console.print(
        f"{entry.source.hub} is at {revision}: written to {write_pin(entry, str(revision), settings.config_dir)}"
    )
