"""Configuration of one's own in tests: packaged files, copied into an operator's folder and changed there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from persona_dagster.config.loading import find, overlay, read_yaml


def edit(config_dir: Path, name: str, changes: Mapping[str, Any] | None = None, like: str | None = None) -> Path:
    """Writes `name` (say `recipes/my_bot.yaml`) as the file `like` (default: itself) with `changes` laid on it."""
    value = overlay(read_yaml(find(like or name, config_dir)), dict(changes or {}))
    path = config_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def boards(config_dir: Path, **chosen: list[str]) -> None:
    """The boards of each site named."""
    for source, names in chosen.items():
        edit(config_dir, f"sources/{source}.yaml", {"boards": names})
