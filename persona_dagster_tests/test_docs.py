"""The documentation says what the code does: reference pages, links, and the commands of README and tutorial."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from persona_dagster.cli import app
from persona_dagster.settings import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
PAGES = sorted([*PROJECT_ROOT.glob("README*.md"), *DOCS.glob("*.md")])
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
OURS = ("make", "persona")  # of the commands on the pages


def test_the_reference_pages_are_of_the_present_code() -> None:
    found = runpy.run_path(str(PROJECT_ROOT / "scripts" / "reference.py"))
    for name, page in found["PAGES"].items():
        assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == page(), "run: python scripts/reference.py"
    assert all(text for types in found["_errors"]().values() for _, text in types), "an error without a docstring"


def notebook() -> tuple[Path, list[str]]:
    path = PROJECT_ROOT / "notebooks" / "starter.ipynb"
    sources = ("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    return path, [source.removeprefix("!") for source in sources if source.startswith("!")]


def commands() -> Iterator[tuple[str, list[str]]]:
    for page, blocks in [*((page, BLOCK.findall(page.read_text(encoding="utf-8"))) for page in PAGES), notebook()]:
        for block in blocks:
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield page.name, words


def unknown(words: list[str]) -> str | None:
    """What is wrong with a command of a page: a target of make, a command or an option that there is not."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if not words or words[0] not in OURS or "--help" in words:
        return None
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return next((word for word in words[1:] if "=" not in word and word not in targets), None)
    command, left = typer.main.get_command(app), words[1:]
    while subcommands := getattr(command, "commands", None):
        if not left or left[0] not in subcommands:
            return f"no command {left[:1]}"
        command, left = subcommands[left[0]], left[1:]
    try:
        command.make_context("persona", left)  # parses, and runs nothing
    except Exception as error:  # typer's usage errors are of a click of its own
        return str(getattr(error, "message", error))
    return None


def test_every_command_in_the_documentation_is_there() -> None:
    found = list(commands())
    assert len(found) > 30
    assert [(page, words, wrong) for page, words in found if (wrong := unknown(words))] == []
    assert unknown(["persona", "improt", "x"]) and unknown(["persona", "export", "starter"])
    assert unknown(["persona", "build", "--untill", "mix"])
    assert unknown(["make", "demos"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_every_page_of_the_site_s_list_is_there() -> None:
    listed = re.findall(
        r"[\w/-]+\.md", yaml.safe_dump(yaml.safe_load((PROJECT_ROOT / "mkdocs.yml").read_text())["nav"])
    )
    assert len(listed) > 15 and [name for name in listed if not (DOCS / name).is_file()] == []
    assert {page.name for page in DOCS.glob("*.md") if ".zh-TW" not in page.name} <= set(listed)
