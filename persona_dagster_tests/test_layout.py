"""The rules of the layout that lint cannot see."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml

PACKAGE = Path(__file__).resolve().parent.parent / "persona_dagster"


@cache
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


OF_LIBRARIES = {"_replace", "_body"}  # of named tuples; of Starlette's request


def private_names(tree: ast.Module) -> set[str]:
    """Private functions and attributes that a module defines."""
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    owned = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }
    return {name for name in defined | owned if name.startswith("_") and not name.startswith("__")}


def test_no_folder_reaches_for_private_attributes_of_another() -> None:
    owners: dict[str, set[str]] = {}
    for path, tree in modules():
        for name in private_names(tree):
            owners.setdefault(name, set()).add(path.relative_to(PACKAGE).parts[0])
    wrong = []
    for path, tree in modules():
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - private_names(tree)
        folder = path.relative_to(PACKAGE).parts[0]
        wrong += [f"{path}: {name}" for name in used - OF_LIBRARIES if folder not in owners.get(name, {folder})]
    assert not wrong


def renames(tree: ast.Module) -> list[int]:
    """Lines that rename a file: os.replace, os.rename, and Path's (one argument; text and tables take others)."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
            owner, name = node.func.value, node.func.attr
            of_os = isinstance(owner, ast.Name) and owner.id in ("os", "shutil")
            of_path = len(node.args) == 1 and not isinstance(node.args[0], ast.Dict | ast.DictComp)
            if (name in ("replace", "rename", "renames") and (of_os or of_path)) or (name == "move" and of_os):
                lines.append(node.lineno)
    return lines


def test_only_artifacts_and_archive_rename_files() -> None:
    for path, tree in modules():
        if path.relative_to(PACKAGE).parts[0] not in ("artifacts.py", "archive"):
            assert not renames(tree), f"{path}, lines {renames(tree)}: see writing, replacing and put of artifacts.py"


def test_only_artifacts_knows_the_pointer_and_the_names_of_records() -> None:
    owned = {"latest", "run_card.json", "metrics.json"}
    for path, tree in modules():
        if path.relative_to(PACKAGE).parts[0] not in ("artifacts.py", "archive"):
            written = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not owned & {value for value in written if isinstance(value, str)}, path


def test_every_module_opens_with_its_charter() -> None:
    for path, tree in modules():
        if path.name == "__init__.py":
            assert not tree.body, f"{path} ought to be empty"
        else:
            assert ast.get_docstring(tree), f"{path} has no charter"


def may_import() -> dict[str, tuple[set[str], str]]:
    """The table of docs/architecture.md, in its order: by folder the names that it may import, and the cell."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): (set(re.findall(r"`([a-z_.]+)`", cells[3])), cells[3].strip()) for cells in rows}


def imported_modules(tree: ast.Module) -> set[str]:
    """What of the package a module imports, as names below the package: `corpus.rules`, `settings`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            below = node.module.split(".")[1:]
            is_folder = PACKAGE.joinpath(*below).is_dir()
            found |= {".".join([*below, alias.name]) for alias in node.names} if is_folder else {".".join(below)}
    return found


def test_folders_import_what_the_architecture_lists() -> None:
    table = may_import()
    leaves = {name for name, (_, cell) in table.items() if cell == "(leaf)"}
    present = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path, _ in modules()}
    assert present - {"__init__"} <= set(table)
    wrong = []
    for path, tree in modules():
        folder = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed, cell = table.get(folder, (set(), "everything"))
        if cell.startswith("everything"):
            continue
        for name in imported_modules(tree):
            if name.split(".")[0] in {folder, *leaves}:
                continue
            if not any(name == entry or name.startswith(f"{entry}.") for entry in allowed):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "not in docs/architecture.md: " + "; ".join(sorted(wrong))


def test_no_import_runs_back_up() -> None:
    table = may_import()
    for at, (folder, (allowed, _)) in enumerate(table.items()):
        above = list(table)[:at]
        assert {entry.split(".")[0] for entry in allowed} <= {*above, folder, "defs"}, folder


def test_what_a_ptt_page_looks_like_is_known_in_one_place() -> None:
    """The station's line: in the site's folder, the cleaning rules, the residue metric and the sample's replica."""
    files = (path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".yaml", ".sql", ".md", ".j2"})
    knows = {path.relative_to(PACKAGE).as_posix() for path in files if "發信站" in path.read_text(encoding="utf-8")}
    others = {name for name in knows if not name.startswith(("sites/ptt/", "sample/"))}
    assert others == {"corpus/rules.yaml", "evaluation/residue.py"}


def test_words_that_are_out_stand_nowhere() -> None:
    """The pre-commit hook `words`, over the package and the pages that people read."""
    hooks = yaml.safe_load((PACKAGE.parent / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    hook = next(hook for hook in hooks if hook["id"] == "words")
    out, left_out = re.compile(hook["entry"]), re.compile(hook["exclude"])
    root, wrong = PACKAGE.parent, []
    for path in [*PACKAGE.rglob("*"), *(root / "docs").rglob("*.md"), *root.glob("*.md")]:
        place = path.relative_to(root).as_posix()
        kept = path.suffix in {".py", ".md", ".yaml", ".sql", ".j2"} and re.match(hook["files"], place)
        if kept and not left_out.match(place):
            lines = path.read_text(encoding="utf-8").splitlines()
            wrong += [f"{place}:{number}" for number, line in enumerate(lines, 1) if out.search(line)]
    assert out.search("the house has rooms"), "the hook looks for nothing"
    assert not wrong, "see CONTEXT.md: " + "; ".join(wrong)


def test_no_class_name_stands_twice() -> None:
    names = Counter(node.name for _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert not {name for name, count in names.items() if count > 1}


# Who reads an id's parts: DocId, RowId and PageKey. (Of PTT's pushes and threads the parsers still know the marks.)
ID_READERS = {"records.py"}
SPLITS = frozenset(["split", "rsplit", "partition", "rpartition"])
NAMED_OTHERWISE = {  # what is split there is no id of a row or post
    ("training/callbacks.py", "-"), ("training/train.py", "-"),  # checkpoint-<step>
    ("chat/service.py", "@"), ("chat/api.py", ":"),  # a model's name, as clients send it
    ("corpus/personal_data/name_model.py", "@"),  # a model and its revision
    ("lineage/forget_plan.py", ":"),  # what a person typed: ptt:name
    ("sample/clock.py", ":"),
    ("evaluation/iteration_report.py", "-"),  # the number of a probe, which voices share
}  # fmt: skip


def test_nothing_splits_an_id_to_learn_what_it_is() -> None:
    wrong = []
    for path, tree in modules():
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                mark = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                reads = node.func.attr in SPLITS and mark in ("@", ":", "-")
                if reads and place not in ID_READERS and (place, mark) not in NAMED_OTHERWISE:
                    wrong.append(f"{place}:{node.lineno}: {node.func.attr}({mark!r})")
    assert not wrong, "read it by its type (records.py): " + "; ".join(wrong)


def test_what_benchmarks_scripts_and_the_scaffold_import_is_there() -> None:
    """They are run by hand, so a name that is gone would be found late."""
    root = PACKAGE.parent
    scaffold = (PACKAGE / "scaffold/project/tests").glob("*.py.j2")
    asked = {
        (path.name, str(node.module), alias.name)
        for path in (*root.glob("benchmarks/*.py"), *root.glob("scripts/*.py"), *scaffold)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("persona_dagster")
        for alias in node.names
    }
    missing = []
    for file, module, name in sorted(asked):
        found = import_module(module)
        if not hasattr(found, name) and not (hasattr(found, "__path__") and find_spec(f"{module}.{name}")):
            missing.append((file, f"{module}.{name}"))
    assert missing == []
