"""Reads one configuration file: the packaged default, or the file of the same name under $PERSONA_HOME/config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

PACKAGED = Path(__file__).parent


class ConfigError(ValueError):
    """A configuration file that cannot be used; the message names file, key and cure."""


class Config(BaseModel):
    """Base of all configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Config)


def find(name: str, config_dir: Path) -> Path:
    """The file that wins for `name` (say `recipes/persona_v2.yaml`): the operator's, else the packaged one."""
    own = config_dir / name
    return own if own.is_file() else PACKAGED / name


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no mapping at the top; see {PACKAGED / path.name} for the shape")
    return value


def validate(model: type[C], value: dict[str, Any], path: Path) -> C:
    """`value` as `model`; every wrong key and value of the file is named in one message."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in item['loc']) or '(top)'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigError(f"{path}: {wrong}. Correct the keys named, or delete the file to use the default.") from error


def overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on it, mapping by mapping; lists and scalars are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
