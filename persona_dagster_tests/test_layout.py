"""The rules of the layout that lint cannot see."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "persona_dagster"


def modules() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))]


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_only_defs_know_dagster() -> None:
    for path, tree in modules():
        place = path.relative_to(PACKAGE)
        if place.parts[0] in ("defs", "definitions.py"):
            continue
        assert not {name for name in imported(tree) if name.split(".")[0] == "dagster"}, place


def test_no_folder_imports_defs() -> None:
    for path, tree in modules():
        place = path.relative_to(PACKAGE)
        if place.parts[0] in ("defs", "definitions.py"):
            continue
        assert not {name for name in imported(tree) if name.startswith("persona_dagster.defs")}, place


def test_no_folder_imports_private_names_of_another() -> None:
    for path, tree in modules():
        folder = path.relative_to(PACKAGE).parts[0]
        for name in imported(tree):
            parts = name.split(".")
            if parts[0] == "persona_dagster" and len(parts) > 2 and parts[1] != folder.removesuffix(".py"):
                assert not any(part.startswith("_") for part in parts[1:]), f"{path}: {name}"


def test_every_module_opens_with_its_charter() -> None:
    for path, tree in modules():
        if path.name == "__init__.py":
            assert not tree.body, f"{path} ought to be empty"
        else:
            assert ast.get_docstring(tree), f"{path} has no charter"
