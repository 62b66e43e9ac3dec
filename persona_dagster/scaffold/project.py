"""A project of one's own: a folder that is PERSONA_HOME and a `dg` project, written from the templates in project/."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from persona_dagster.artifacts import write_text

TEMPLATES = Path(__file__).parent / "project"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,60}")
HIDDEN = {"env": ".env", "gitignore": ".gitignore"}  # packaged without a dot, so that no tool leaves them out
OWN = ("config", "notes", "imports")  # empty: whatever lies in notes/ and imports/ is taken in
PRIVATE = 0o700  # raw pages and the key of the pseudonyms will lie in it


class ProjectError(ValueError):
    """A project that cannot be written; the message names the folder and the cure."""


def write_project(folder: Path) -> list[Path]:
    """Writes the project into `folder`, which is made, or is empty; returns the files. Raises `ProjectError`."""
    if not NAME.fullmatch(folder.name):
        raise ProjectError(f"{folder.name!r}: a project's name has letters, digits, - and _, and begins with a letter")
    module = folder.name.lower().replace("-", "_")
    made = (TEMPLATES / "gitignore.j2").read_text(encoding="utf-8").replace("/", "").split()
    if module in (*OWN, "tests", *made) or ((found := find_spec(module)) and found.origin):
        raise ProjectError(f"{module!r} is a folder of every project, or an installed package; choose another name")
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder} holds something already; name a new folder")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    folder.chmod(PRIVATE)
    written = []
    for template in sorted(path.relative_to(TEMPLATES) for path in TEMPLATES.rglob("*.j2")):
        *parents, name = str(template.with_suffix("")).replace("MODULE", module).split("/")
        text = environment.get_template(template.as_posix()).render(
            name=folder.name, module=module, home=folder.resolve()
        )
        written.append(write_text(folder.joinpath(*parents, HIDDEN.get(name, name)), text))
    for name in OWN:
        (folder / name).mkdir()
    return written
