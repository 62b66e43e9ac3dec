"""Voices learned from examples, outside the graph."""

from __future__ import annotations

from pathlib import Path

import typer

from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

app = typer.Typer()
voices = typer.Typer(no_args_is_help=True, help="Voices learned from examples.")
app.add_typer(voices, name="voices")


@voices.command()
def score(source: Path, target: Path) -> None:
    """Scores JSON lines of {id, question, answer}: writes {id, scores, chosen, reason} a line, in the same order."""
    from persona_dagster.config.personas import load_personas
    from persona_dagster.conversation.safety import load_unsafe
    from persona_dagster.conversation.score_file import PairsError, score_file
    from persona_dagster.conversation.voices import Voices
    from persona_dagster.models.vectors import Vectors

    settings = Settings()
    personas = load_personas(settings.config_dir, settings.accepted_dir)
    vectors = Vectors(settings.voice_encoder, settings.models_dir, settings.vectors_dir)
    try:
        console.print(score_file(source, target, Voices(personas, vectors), load_unsafe(settings.config_dir)))
    except (PairsError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
