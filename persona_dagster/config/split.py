"""How dialogues part into train and test (split.yaml): before weights and before recipes, the same for all of them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from persona_dagster.config.loading import Config, find, read_yaml, validate


class SplitSpec(Config):
    """Sizes are per persona: `test_rows` where given, else `test_share` of its dialogues."""

    key: str = "split-1"  # changing it draws anew whatever the ledger does not hold yet
    test_share: float = Field(0.15, gt=0, lt=0.9)
    test_rows: dict[str, int] = Field({})  # by persona
    by_author: bool = False  # also keep one answering author on one side
    jaccard: float = Field(0.8, gt=0.4, le=1)  # from here on two dialogues count as near-duplicates
    min_chars: int = Field(20, ge=1)  # shorter dialogues are compared for equality only
    max_component_share: float = Field(0.2, gt=0, le=1)  # a larger component makes the report warn


def load_split(config_dir: Path) -> SplitSpec:
    path = find("split.yaml", config_dir)
    return validate(SplitSpec, read_yaml(path), path)
