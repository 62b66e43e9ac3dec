"""What the graph needs here, and its configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona_dagster.commands.console import console
from persona_dagster.commands.crawling import look_at_sites
from persona_dagster.settings import Settings

app = typer.Typer()


@app.command()
def doctor(
    live: Annotated[bool, typer.Option(help="also look at each site: robots.txt and one page")] = False,
) -> None:
    """Looks at what the graph needs here, and names the cure for what is missing."""
    from persona_dagster.config.loading import ConfigError
    from persona_dagster.crawl.browser import BrowserMissing, find_chromium
    from persona_dagster.models.hardware import find_hardware, hardware_of

    settings = Settings()
    console.print(f"home      {settings.home}")
    console.print(f"profile   {settings.profile}   engine {settings.engine}")
    try:
        console.print(f"hardware  {hardware_of(settings)}   (found here: {find_hardware()})")
    except ConfigError as error:
        console.print(f"[red]hardware  {error}[/red]")
    try:
        console.print(f"chromium  {find_chromium(settings.chromium, headed=settings.headed)}")
    except BrowserMissing as error:
        console.print(f"[red]chromium  {error}[/red]")
    if settings.headed and not os.environ.get("DISPLAY"):
        cure = "run under xvfb-run" if shutil.which("xvfb-run") else "apt install xvfb xauth, then run under xvfb-run"
        console.print(f"[red]display   none, and PERSONA_HEADED is set[/red]; {cure}")
    where = settings.home if settings.home.exists() else settings.home.parent
    free = shutil.disk_usage(where).free / 1e9
    colour = "red" if free < 2 else "green"
    console.print(f"disk      [{colour}]{free:.1f} GB free[/{colour}] under {where}")
    if live:
        look_at_sites(settings)
    problems = config_problems(settings)
    for wrong in problems:
        console.print(f"[red]config    {wrong}[/red]", markup=True)
    if not problems:
        console.print(f"config    [green]every file is valid[/green] under {settings.config_dir}")


def problems_by_asset(settings: Settings) -> dict[str, dict[str, str]]:
    """What is wrong with configuration files, by the asset that stands for them and by item."""
    from persona_dagster.config.base_models import find_bases
    from persona_dagster.config.cluster import find_cluster
    from persona_dagster.config.personas import find_personas
    from persona_dagster.config.recipes import find_recipes
    from persona_dagster.config.sources import find_sources
    from persona_dagster.config.split import find_split
    from persona_dagster.conversation.safety import find_unsafe

    where = settings.config_dir, settings.accepted_dir
    bases = {f"base {name}": error for name, error in find_bases(*where).problems.items()}
    sources = find_sources(settings.config_dir, settings.profile, settings.accepted_dir).problems
    singles = {"split": find_split, "cluster": find_cluster, "unsafe": find_unsafe}
    split, cluster, unsafe = ({name: error} if (error := find(*where)[1]) else {} for name, find in singles.items())
    found = {
        "recipe_config": bases | find_recipes(*where).problems,
        "personas_config": find_personas(*where).problems | unsafe,
        "sources_config": sources | split | cluster,
    }
    return {asset: {name: str(error) for name, error in wrong.items()} for asset, wrong in found.items()}


def config_problems(settings: Settings) -> list[str]:
    """What is wrong with configuration files, each with file, line and key."""
    return [why for problems in problems_by_asset(settings).values() for why in problems.values()]


@app.command()
def init(folder: Path) -> None:
    """Writes a project of your own into a new FOLDER: its configuration, and a `dg` project around it."""
    from persona_dagster.scaffold.project import write_project

    written = write_project(folder)
    Settings(home=folder.resolve()).prepare_instance()
    _fetch_chromium()
    console.print(f"{len(written)} files in {folder}. Next: cd {folder} && persona demo")


def _fetch_chromium() -> None:
    """Gets one by Playwright where none is: the sample's sites are read in a browser, and the demo runs offline."""
    from persona_dagster.crawl.browser import BrowserMissing, find_chromium

    try:
        find_chromium()
    except BrowserMissing as missing:
        console.print("No Chromium is here: Playwright fetches one (about 100 MB)")
        fetch = [sys.executable, "-m", "playwright", "install", "chromium", "--only-shell"]
        if subprocess.run(fetch, check=False, stdout=subprocess.DEVNULL).returncode:
            console.print(f"That failed. Before the demo, do one of these: {missing}", style="red", markup=False)


@app.command()
def new(kind: str, name: str) -> None:
    """Writes a recipe, persona or source of your own under config/, from the packaged example, to be edited."""
    from persona_dagster.artifacts import write_bytes
    from persona_dagster.config.loading import NAME, PACKAGED, ConfigError, discover

    examples = {"recipe": "persona_v2", "persona": "mentor", "source": name}
    if kind not in examples or not NAME.fullmatch(name):
        raise ConfigError("persona new recipe|persona|source NAME, the name in small letters, digits and _")
    packaged = PACKAGED / f"{kind}s" / f"{examples[kind]}.yaml"
    if not packaged.is_file():
        known = ", ".join(discover(f"{kind}s", PACKAGED))
        raise ConfigError(f"no source {name!r}; there are {known}")
    target = Settings().config_dir / f"{kind}s" / f"{name}.yaml"
    if target.exists():
        raise ConfigError(f"{target} is there already")
    console.print(f"{write_bytes(target, packaged.read_bytes())}: edit it (a persona needs a tag of its own)")
