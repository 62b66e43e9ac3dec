"""A recipe's plan, curves and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_dagster.artifacts import RunCard, Versions
from persona_dagster.commands.console import console
from persona_dagster.settings import Settings

app = typer.Typer()


@app.command()
def plan(
    recipe: str,
    card: Annotated[str, typer.Option(help="plan the time for another card: T4, A100, RTX 4090 …")] = "",
) -> None:
    """Steps, tokens, time and memory of a recipe on this machine, before anything is trained."""
    from persona_dagster.conversation.mix_store import recipe_mixes
    from persona_dagster.models.hardware import recipe_here
    from persona_dagster.training.plan import plan_recipe

    settings = Settings()
    adapters = settings.adapters_dir / recipe
    mixes = recipe_mixes(settings, recipe)
    console.print(plan_recipe(recipe_here(recipe, settings), mixes, settings.models_dir, adapters, card).markdown())


@app.command()
def curves(recipe: str, folder: Path) -> None:
    """The newest training of a recipe as TensorBoard events under FOLDER (needs tensorboardX)."""
    from persona_dagster.training.tensorboard_export import write_tensorboard

    adapters = Versions(Settings().adapters_dir / recipe, RunCard.FILE)
    points = write_tensorboard(adapters.newest(), folder)
    console.print(f"{points} points in {folder}: tensorboard --logdir {folder}")


@app.command()
def export(
    recipe: Annotated[str | None, typer.Option(help="default: PERSONA_RECIPE")] = None,
    to_gguf: Annotated[bool, typer.Option("--gguf/--no-gguf", help="also GGUF and Modelfiles, for Ollama")] = True,
    outtype: Annotated[str, typer.Option(help="numbers of the GGUF: q4_k_m, q5_k_m, q8_0, f16, bf16 or f32")] = "q8_0",
    converter: Annotated[Path | None, typer.Option(help="a checkout of llama.cpp; default: fetched from PyPI")] = None,
) -> None:
    """The newest adapter merged into its base, as safetensors and as GGUF; both are read back and compared."""
    from persona_dagster.config.personas import load_personas
    from persona_dagster.publishing import exports, gguf

    settings = Settings()
    recipe = recipe or settings.recipe
    personas = load_personas(settings.config_dir, settings.accepted_dir)
    adapter = exports.newest_adapter(settings, recipe)
    folder = exports.exports_dir(settings, recipe, adapter.name)
    merged = exports.merge(adapter, personas, settings.models_dir, folder)
    console.print(merged.markdown())
    if to_gguf:
        try:
            console.print(exports.to_gguf(merged, personas, settings.models_dir, outtype, converter).markdown())
        except gguf.NoConverter as reason:
            console.print(f"[yellow]GGUF skipped: {reason}[/yellow]")
