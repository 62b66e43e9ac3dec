"""Reads configuration files, and says of a bad one where it is wrong: file, line, key, and the cure.

A kind (`recipes`, `personas`, `sources`, `bases`) is a folder with a YAML file an item, here and under the operator's
config folder. A file of the same name wins, a new one adds an item, and a bad one takes nothing with it but its item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from persona_dagster.artifacts import write_bytes

PACKAGED = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9_]*")  # of an item: a file's stem, a partition key, a folder of results
BASE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")  # as models are named: llama3.1-8b-instruct
ENDINGS = (".yaml", ".yml")


class ConfigError(ValueError):
    """A configuration file that cannot be used; the message names file, line, key and cure."""


class Config(BaseModel):
    """Base of all configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster
C = TypeVar("C", bound=Config)
T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """The items of one kind by name, and what is wrong with the files of others.

    An item whose file is bad is here in its last accepted form, where there is one."""

    items: dict[str, T] = field(default_factory=dict)
    problems: dict[str, ConfigError] = field(default_factory=dict)  # by item

    def item(self, name: str) -> T:
        """Raises the problem of this item; or, where there is no such item, `ConfigError` with those that are."""
        if name in self.items:
            return self.items[name]
        raise self.problems.get(name) or ConfigError(f"no {name!r}; there are: {', '.join(self.items)}")


def find(name: str, config_dir: Path) -> Path:
    """The file that wins for `name` (say `split.yaml`): the operator's, else the packaged one."""
    own = config_dir / name
    return own if own.is_file() else PACKAGED / name


def discover(kind: str, config_dir: Path) -> dict[str, list[Path]]:
    """The files of a kind by item: the operator's before the packaged one; the packaged items first."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys((PACKAGED, config_dir)):
        for path in sorted((folder / kind).glob("*")):
            if path.suffix in ENDINGS and not path.name.startswith("."):
                found.setdefault(path.stem, []).insert(0, path)
    return found


def read_items(kind: str, parse: Callable[[Path], T], config_dir: Path, accepted: Path | None = None) -> Found[T]:
    """All items of a kind, each by `parse`, which raises `ConfigError` for a file that cannot be used.

    For a bad file stands what was `accept`ed of it last, else the packaged file of that name, else nothing. So does it
    for an accepted item whose file is gone.
    """
    found, files = Found[T](), discover(kind, config_dir)
    for name, paths in files.items():
        problem = _misnamed(kind, paths)
        for path in [paths[0], *_accepted(kind, name, accepted), *paths[1:]]:
            if path == paths[0] and problem:
                continue
            try:
                found.items[name] = parse(path)
                break
            except ConfigError as error:
                problem = problem or error
        if problem:
            found.problems[name] = problem
    for path in sorted((accepted / kind).glob("*.yaml")) if accepted else []:
        if path.stem not in files:
            where = config_dir / kind / path.name
            found.problems[path.stem] = ConfigError(
                f"{where}: is gone, and goes on as it last was. Put it back; or, to do without it, delete {path} too."
            )
            try:
                found.items[path.stem] = parse(path)
            except ConfigError:
                continue  # of another version of this code
    return found


def read_single(
    name: str, parse: Callable[[Path], T], config_dir: Path, accepted: Path | None = None
) -> tuple[T, ConfigError | None]:
    """The one file `name` (say `split.yaml`) and what is wrong with it; then it stands as it was last accepted.

    Raises that `ConfigError` where no `accepted` folder is given."""
    problem: ConfigError | None = None
    places = [accepted / name, PACKAGED / name] if accepted else []
    for path in [find(name, config_dir), *(place for place in places if place.is_file())]:
        try:
            return parse(path), problem
        except ConfigError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def accept(kind: str, name: str, config_dir: Path, accepted: Path) -> None:
    """Keeps the present file of an item, which was read without an error, as its last good state."""
    if paths := discover(kind, config_dir).get(name):
        write_bytes(accepted / kind / f"{name}.yaml", paths[0].read_bytes())


def accept_single(name: str, config_dir: Path, accepted: Path) -> None:
    write_bytes(accepted / name, find(name, config_dir).read_bytes())


def _accepted(kind: str, name: str, accepted: Path | None) -> Iterator[Path]:
    path = accepted / kind / f"{name}.yaml" if accepted else None
    if path and path.is_file():
        yield path


def _misnamed(kind: str, paths: list[Path]) -> ConfigError | None:
    first = paths[0]
    if not (BASE_NAME if kind == "bases" else NAME).fullmatch(first.stem):
        return ConfigError(f"{first}: {first.stem!r} is no name; use small letters, digits and _, a letter first")
    twins = [path for path in paths if path.parent == first.parent]
    if len(twins) > 1:
        return ConfigError(f"{first}: {twins[1].name} beside it has the same name; keep one of them")
    return None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`. Raises `ConfigError` with the line of what is no YAML, or of a key that stands twice."""
    try:
        node = _node(path)
        value = _Loader("").construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{mark.line + 1}" if mark else "?"
        why = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{path}, line {line}: no YAML: {why}. Look for an open bracket or quote above.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}, line 1: holds no mapping at the top; a packaged file shows the shape: {PACKAGED}")
    for key, number in _doubled(node):
        raise ConfigError(f"{path}, line {number}: {key}: stands twice in the same mapping; keep one")
    return value


def validate(model: type[C], value: dict[str, Any], path: Path, within: tuple[str, ...] = ()) -> C:
    """`value`, read from `path` (there below the keys `within`, where it is an overlay), as `model`.

    Raises `ConfigError` with every wrong key and value of the file, each with its line."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        wrong = "; ".join(_told(path, within, item["loc"], item["msg"]) for item in error.errors())
        raise ConfigError(f"{path}, {wrong}. Correct it, or delete the file to use the default.") from error


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it, mapping by mapping; lists and scalars are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _told(path: Path, within: tuple[str, ...], steps: tuple[int | str, ...], message: str) -> str:
    """One error as "line 7: training.learning_rat: Extra inputs are not permitted"."""
    keys = [str(step) for step in steps]
    root = _node(path)
    found = _line(root, [*within, *keys]) if within else None
    where = [*within, *keys] if found else keys
    line = found or _line(root, keys) or _line(root, keys[:-1]) or 1
    return f"line {line}: {'.'.join(where) or '(top)'}: {message}"


def at(path: Path, *keys: str) -> str:
    """Where a key stands, as the head of a message: "…/ptt.yaml, line 3: boards"."""
    return f"{path}, line {_line(_node(path), list(keys)) or 1}: {'.'.join(keys)}"


def _node(path: Path) -> yaml.Node | None:
    return yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)


def _line(node: yaml.Node | None, keys: list[str]) -> int | None:
    """The line of a key path; None where it does not stand in the file."""
    line = node.start_mark.line + 1 if node else None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == key), None)
            if pair is None:
                return None
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            return None
    return line


def _doubled(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that stand twice in one mapping, of which YAML would take the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen and key.value != "<<":
                yield str(key.value), key.start_mark.line + 1
            seen.add(key.value)
            yield from _doubled(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _doubled(item)
