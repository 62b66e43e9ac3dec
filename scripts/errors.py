"""Writes docs/errors.md: every error type of the package, by area, in the words of its own docstring."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "persona_dagster"
PAGE = ROOT / "docs" / "errors.md"
HEAD = """# Errors

What the project's own errors mean. Each message names the file, partition or row, and the cure. Made from the code by
`python scripts/errors.py`; a test holds it to that.
"""


def errors() -> dict[str, list[tuple[str, str]]]:
    """By folder the error types and the first sentence of their docstrings."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.bases and node.name.endswith(("Error", "Missing", "Full")):
                folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
                text = " ".join((ast.get_docstring(node) or "").split())
                found.setdefault(folder, []).append((node.name, text))
    return found


def page() -> str:
    parts = [HEAD]
    for folder, types in sorted(errors().items()):
        parts.append(f"\n## {folder}\n\n| error | means |\n|---|---|\n")
        parts += [f"| `{name}` | {text.replace('|', '/')} |\n" for name, text in sorted(types)]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
