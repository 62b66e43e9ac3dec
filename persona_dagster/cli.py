"""`persona …`: what an operator does outside Dagster's UI. Each command calls one function of a room."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from persona_dagster.artifacts import RunCard, Versions
from persona_dagster.commands import bases, crawling
from persona_dagster.settings import WORKSPACE, Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Forum posts in, a persona model out.")
sample_app = typer.Typer(no_args_is_help=True, help="The replica of the three sites.")
app.add_typer(sample_app, name="sample")
app.add_typer(bases.app)
console = Console(soft_wrap=True, highlight=False)


app.command()(crawling.frontier)


@app.command()
def doctor(
    live: Annotated[bool, typer.Option(help="also look at each site, with three requests at most")] = False,
) -> None:
    """Looks at what the graph needs here, and names the cure for what is missing."""
    from persona_dagster.crawl.browser import BrowserMissing, find_chromium
    from persona_dagster.models.hardware import find_hardware

    settings = Settings()
    console.print(f"home      {settings.home}")
    console.print(f"profile   {settings.profile}   engine {settings.engine}")
    console.print(f"hardware  {settings.hardware or find_hardware()}")
    try:
        console.print(f"chromium  {find_chromium(settings.chromium)}")
    except BrowserMissing as error:
        console.print(f"[red]chromium  {error}[/red]")
    where = settings.home if settings.home.exists() else settings.home.parent
    free = shutil.disk_usage(where).free / 1e9
    colour = "red" if free < 2 else "green"
    console.print(f"disk      [{colour}]{free:.1f} GB free[/{colour}] under {where}")
    if live:
        crawling.look_at_sites(settings)


def _run_on_instance(*command: str) -> None:
    """Becomes a program of Dagster's, on this home's own instance."""
    settings = Settings()
    home, instance = str(settings.home.resolve()), settings.prepare_instance().resolve()
    os.environ |= {"PERSONA_HOME": home, "DAGSTER_HOME": str(instance), "OMP_WAIT_POLICY": "PASSIVE"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every process compiles its sources again
    os.execv(sys.executable, [sys.executable, *command])


@app.command()
def demo(recipes: Annotated[list[str] | None, typer.Argument(help="default: persona_v2")] = None) -> None:
    """The main job: scrape, clean, mix, train, evaluate. Run it again, and only what changed is made again."""
    _run_on_instance("-m", "persona_dagster.defs.demo", *(recipes or []))


@app.command()
def ui(port: int = 3000, host: str = "127.0.0.1") -> None:
    """Dagster's UI and daemon on this home. There is no login: keep it on loopback."""
    console.print(f"Start at http://{host}:{port}/asset-groups: the whole flow. docs/operations.md says what to click.")
    _run_on_instance("-m", "dagster", "dev", "-w", str(WORKSPACE), "--host", host, "--port", str(port))


@app.command()
def parse(files: list[Path]) -> None:
    """Prints one JSON line a saved page or payload: outcome, kind, posts and comments, flags, and why."""
    from persona_dagster.intake.inspect_file import parse_file

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
    sources, personas = load_sources(settings.config_dir, settings.profile), load_personas(settings.config_dir).personas
    pseudonym = partial(author_key, settings.author_secret)
    console.print(clean_file(source, target, sources, personas=personas, author_key=pseudonym).markdown())


@app.command()
def personas() -> None:
    """What each persona would get from the present corpus."""
    import polars as pl

    from persona_dagster.config.personas import load_personas
    from persona_dagster.conversation.builders import persona_yield
    from persona_dagster.corpus.quality import usable

    settings = Settings()
    exports = [settings.tables_dir / name / "all.parquet" for name in ("posts", "notes")]
    present = [pl.read_parquet(path) for path in exports if path.is_file()]
    if not present:
        raise typer.BadParameter(f"no corpus under {settings.tables_dir}: materialise `posts` (make demo) first")
    found = persona_yield(pl.concat(present), load_personas(settings.config_dir), usable())
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


@app.command()
def plan(recipe: str) -> None:
    """Steps, tokens and memory of a recipe on this machine, before anything is trained."""
    from persona_dagster.config.recipes import load_recipe
    from persona_dagster.conversation.mix_store import recipe_mixes
    from persona_dagster.models.hardware import find_hardware
    from persona_dagster.training.plan import plan_recipe

    settings = Settings()
    hardware = settings.hardware or find_hardware()
    loaded = load_recipe(recipe, settings.config_dir, settings.profile, hardware)
    console.print(plan_recipe(loaded, recipe_mixes(settings, recipe), settings.models_dir).markdown())


@app.command()
def curves(recipe: str, folder: Path) -> None:
    """The newest training of a recipe as TensorBoard events under FOLDER (needs tensorboardX)."""
    from persona_dagster.training.tracking import write_tensorboard

    adapters = Versions(Settings().adapters_dir / recipe, RunCard.FILE)
    points = write_tensorboard(adapters.newest(), folder)
    console.print(f"{points} points in {folder}: tensorboard --logdir {folder}")


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
def chat(
    recipe: Annotated[str | None, typer.Option(help="whose adapter to load first; default: the newest")] = None,
    host: Annotated[str, typer.Option(help="127.0.0.1 keeps it on this machine")] = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Talk to the personas in a browser; an OpenAI-compatible API stands beside it at /v1."""
    from persona_dagster.chat.app import launch
    from persona_dagster.config.recipes import RECIPES
    from persona_dagster.conversation.mix_store import recipe_mixes

    settings = Settings()
    for name in RECIPES:  # where there is no corpus here, its routing learns from a mix
        recipe_mixes(settings, name)
    launch(settings, host=host, port=port, recipe=recipe)


@app.command()
def export(
    recipe: str = "persona_v2",
    to_gguf: Annotated[bool, typer.Option("--gguf/--no-gguf", help="also GGUF and Modelfiles, for Ollama")] = True,
    outtype: Annotated[str, typer.Option(help="numbers of the GGUF: f32, f16, bf16 or q8_0")] = "q8_0",
    converter: Annotated[Path | None, typer.Option(help="a checkout of llama.cpp; default: fetched from PyPI")] = None,
) -> None:
    """The newest adapter merged into its base, as safetensors and as GGUF; both are read back and compared."""
    from persona_dagster.config.personas import load_personas
    from persona_dagster.publishing import exports, gguf

    settings = Settings()
    personas, adapter = load_personas(settings.config_dir), exports.newest_adapter(settings, recipe)
    folder = exports.exports_dir(settings, recipe, adapter.name)
    merged = exports.merge(adapter, personas, settings.models_dir, folder)
    console.print(merged.markdown())
    if to_gguf:
        try:
            console.print(exports.to_gguf(merged, personas, settings.models_dir, outtype, converter).markdown())
        except gguf.NoConverter as reason:
            console.print(f"[yellow]GGUF skipped: {reason}[/yellow]")


@app.command()
def backup(folder: Path) -> None:
    """Writes archive, tables, mixes, adapters, reports and Dagster's own storage to a new folder, with their hashes."""
    from persona_dagster.lineage.backup import backup as write

    console.print(write(Settings(), folder).markdown())


@app.command()
def restore(folder: Path, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Puts a backup in the place of $PERSONA_HOME; what was there is moved aside. Stop Dagster first."""
    from persona_dagster.lineage.backup import restore as put_back

    settings = Settings()
    if not yes:
        typer.confirm(f"Put {folder} in the place of {settings.home}?", abort=True)
    console.print(put_back(settings, folder).markdown())


@sample_app.command()
def advance(days: int) -> None:
    """Moves the replica's clock: posts, edits and deletions of those days come into being."""
    from persona_dagster.sample.clock import Clock

    clock = Clock(Settings().replica_dir)
    clock.advance(days)
    console.print(f"the replica's clock stands at day {clock.day}; materialise the raw assets to see what is new")


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
    except (ValueError, FileNotFoundError) as error:
        console.print(f"[red]{error}[/red]")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
