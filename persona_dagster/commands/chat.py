"""The conversation page."""

from __future__ import annotations

from typing import Annotated

import typer

from persona_dagster.settings import Settings

app = typer.Typer()


@app.command()
def chat(
    recipe: Annotated[str | None, typer.Option(help="whose adapter to load first; default: the newest")] = None,
    host: Annotated[str, typer.Option(help="127.0.0.1 keeps it on this machine")] = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Talk to the personas in a browser; an OpenAI-compatible API stands beside it at /v1."""
    from persona_dagster.chat.app import launch
    from persona_dagster.config.recipes import recipe_names
    from persona_dagster.conversation.mix_store import recipe_mixes

    settings = Settings()
    # Where there is no corpus here, its routing learns from a mix.
    for name in recipe_names(settings.config_dir, settings.accepted_dir):
        recipe_mixes(settings, name)
    launch(settings, host=host, port=port, recipe=recipe)
