"""Writes the reference pages under docs/ from the code: commands, configuration, the component, errors."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "persona_dagster"
MADE = "Made from the code by `python scripts/reference.py`; a test holds it to that."


def errors_page() -> str:
    """Every error type of the package, by area, in the words of its own docstring."""
    parts = [
        "# Errors\n\nWhat the project's own errors mean. Each message names the file, partition or row, and the cure; "
        f"`persona` prints the type below it. {MADE}\n"
    ]
    for folder, types in sorted(_errors().items()):
        parts.append(f"\n## {folder}\n\n| error | means |\n|---|---|\n")
        parts += [
            f'| <a id="{name.lower()}"></a>`{name}` | {text.replace("|", "/")} |\n' for name, text in sorted(types)
        ]
    return "".join(parts)


def _errors() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.bases and node.name.endswith(("Error", "Missing", "Full")):
                folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
                text = " ".join((ast.get_docstring(node) or "").split())
                found.setdefault(folder, []).append((node.name, text))
    return found


def commands_page() -> str:
    """Every command with its arguments, options and help."""
    import typer

    from persona_dagster.cli import app

    parts = [f"# Commands\n\n`persona COMMAND --help` says the same. {MADE}\n"]
    parts += _commands(typer.main.get_command(app), "persona")
    return "".join(parts)


def _commands(command: Any, name: str) -> Iterator[str]:
    if subcommands := getattr(command, "commands", None):
        for key in sorted(subcommands):
            yield from _commands(subcommands[key], f"{name} {key}")
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = " ".join([name, *(_name(one) if one.required else f"[{_name(one)}]" for one in arguments)])
    yield f"\n## {name}\n\n`{usage}`\n\n{' '.join((command.help or '').split())}\n"
    rows = [
        f"| {_spelling(one)} | {_cell(getattr(one, 'help', None) or '')} | {_default(one)} |\n"
        for one in command.params
        if one.name != "help"
    ]
    if rows:
        yield "\n| argument | means | default |\n|---|---|---|\n" + "".join(rows)


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _spelling(parameter: Any) -> str:
    spelt = [_name(parameter)] if parameter.param_type_name == "argument" else parameter.opts
    return ", ".join(f"`{one}`" for one in spelt)


def _default(parameter: Any) -> str:
    plain = not callable(parameter.default) and parameter.default not in (None, False, (), [])
    return f"`{parameter.default}`" if plain else "required" if parameter.required else ""


def configuration_page() -> str:
    """Every key of the YAML files and of the component, from the models that read them."""
    from persona_dagster.config.base_models import BaseEntry
    from persona_dagster.config.personas import Persona
    from persona_dagster.config.recipes import Recipe
    from persona_dagster.config.sources import Site
    from persona_dagster.config.split import SplitSpec
    from persona_dagster.defs.component import PersonaProject

    files = {
        "config/recipes/NAME.yaml": Recipe,
        "config/personas/NAME.yaml": Persona,
        "config/sources/NAME.yaml": Site,
        "config/bases/NAME.yaml": BaseEntry,
        "config/split.yaml": SplitSpec,
        "defs.yaml, attributes of persona_dagster.defs.component.PersonaProject": PersonaProject,
    }
    parts = [
        "# Configuration\n\nThe files under `$PERSONA_HOME/config` take the place of the packaged ones of the same "
        "name, which show every key in use (`persona new recipe NAME` writes one). "
        f"`dg check defs` and `persona doctor` name what is wrong, with file and line. {MADE}\n"
    ]
    for title, model in files.items():
        schema = model.model_json_schema()
        parts.append(f"\n## {title}\n\n{' '.join((schema.get('description') or '').split())}\n")
        parts.append(_keys(schema))
        parts += [
            f"\n### {model.__name__}: {name}\n\n{' '.join((part.get('description') or '').split())}\n" + _keys(part)
            for name, part in sorted(schema.get("$defs", {}).items())
            if "properties" in part
        ]
    return "".join(parts)


def _keys(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"| `{name}` | {_cell(_type(key))} | "
        f"{'required' if name in required else _cell(_value(key))} | {_cell(key.get('description', ''))} |\n"
        for name, key in schema.get("properties", {}).items()
    ]
    return "\n| key | type | default | |\n|---|---|---|---|\n" + "".join(rows) if rows else ""


def _value(key: dict[str, Any]) -> str:
    if "default" not in key:
        return ""
    text = json.dumps(key["default"], ensure_ascii=False)
    return f"`{text}`" if len(text) <= 60 else "see the type"


def _type(key: dict[str, Any]) -> str:  # noqa: PLR0911 - a form of JSON schema a line
    if "$ref" in key:
        return str(key["$ref"]).rsplit("/", 1)[-1]
    if "enum" in key:
        return " or ".join(json.dumps(one, ensure_ascii=False) for one in key["enum"])
    if "const" in key:
        return json.dumps(key["const"], ensure_ascii=False)
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(_type(one) for one in key["anyOf"]))
    if key.get("type") == "array":
        return f"list of {_type(key['items'])}" if isinstance(key.get("items"), dict) else "list"
    if key.get("type") == "object":
        inner = key.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return str(key.get("type", "any"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"errors": errors_page, "commands": commands_page, "configuration": configuration_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / "docs" / f"{name}.md").write_text(page(), encoding="utf-8")
