"""The weights of an adapter as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persona_dagster.artifacts import write_json
from persona_dagster.config.base_models import Base, Hub


def save_weights(model: Any, folder: Path, base: Base) -> None:
    """adapter_model.safetensors and adapter_config.json of a PEFT model, without this machine's paths in them."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = upstream(base)
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set: its order differs by process
    write_json(path, config)


def upstream(base: Base) -> str:
    """What PEFT alone can load in the place of `base`, once an adapter leaves this machine."""
    entry = base.entry
    return entry.upstream or (entry.source.hub if isinstance(entry.source, Hub) else base.model)
