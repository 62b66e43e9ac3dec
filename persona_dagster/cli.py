"""`persona …`: what an operator does outside Dagster's UI. The commands are the modules of commands/, one an area, each
with an `app` of its own."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import typer

from persona_dagster import commands
from persona_dagster.commands.console import console, is_ours, told
from persona_dagster.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Forum posts in, a persona model out.")
for module in pkgutil.iter_modules(commands.__path__):
    if (area := getattr(import_module(f"{commands.__name__}.{module.name}"), "app", None)) is not None:
        app.add_typer(area)


def _go_on() -> None:
    """Ends a restore or a forgetting that was cut short, before anything else is done."""
    settings = Settings()
    if (settings.home / ".restore.json").exists() or (settings.home / "forgetting").exists():
        from persona_dagster.lineage.backup import resume_restore
        from persona_dagster.lineage.forget import resume

        resume_restore(settings)
        for report in resume(settings):
            console.print(report.markdown())


def main() -> None:
    """Errors that name their cure are printed as a line; everything else keeps its traceback."""
    try:
        _go_on()
        app()
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        if isinstance(error, RuntimeError) and not is_ours(error):
            raise
        console.print(told(error), style="red", markup=False)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
