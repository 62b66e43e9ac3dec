"""How dialogues part into train, validation and test (split.yaml): before weights and recipes, the same for all."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from persona_dagster.config.loading import Config, ConfigError, read_single, read_yaml, validate


class SplitSpec(Config):
    """Sizes are per persona: `test_rows` where given, else `test_share` of its dialogues; validation likewise."""

    key: str = "split-1"  # changing it draws anew whatever the ledger does not hold yet
    test_share: float = Field(0.15, gt=0, lt=0.9)
    test_rows: dict[str, int] = Field({})  # by persona
    validation_share: float = Field(0.1, ge=0, lt=0.9)  # what training and every choice may look at
    validation_rows: dict[str, int] = Field({})
    by_author: bool = False  # also keep one answering author on one side
    jaccard: float = Field(0.8, gt=0.4, le=1)  # from here on two dialogues count as near-duplicates
    min_chars: int = Field(20, ge=1)  # shorter dialogues are compared for equality only
    max_component_share: float = Field(0.2, gt=0, le=1)  # a larger component makes the report warn


def find_split(config_dir: Path, accepted: Path | None = None) -> tuple[SplitSpec, ConfigError | None]:
    return read_single("split.yaml", lambda path: validate(SplitSpec, read_yaml(path), path), config_dir, accepted)


def load_split(config_dir: Path, accepted: Path | None = None) -> SplitSpec:
    """split.yaml. With `accepted`, a bad one goes on as it last was; without, raises `ConfigError`."""
    return find_split(config_dir, accepted)[0]
