"""Publishing an adapter: a directory named by content, whole or absent, and `latest` that moves last."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from persona_dagster.models.base_model import BUNDLED

# What PEFT alone can load in place of the bundled base, once an adapter leaves this machine.
_UPSTREAM = {BUNDLED: "HuggingFaceTB/SmolLM2-135M-Instruct"}


def sync_folder(folder: Path) -> None:
    """All files of `folder` and the folder itself on disk, for a rename to be worth something after a power loss."""
    for path in [*(path for path in folder.rglob("*") if path.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place, synced, when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    staging.chmod(0o755)
    try:
        yield staging
        sync_folder(staging)
        if target.exists():
            shutil.rmtree(target)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def save_weights(model: Any, folder: Path, base: str) -> None:
    """adapter_model.safetensors and adapter_config.json of a PEFT model, without this machine's paths in them."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = _UPSTREAM.get(base, base)
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set: its order differs by process
    write_json(path, config)


def point_latest(folder: Path) -> None:
    """The file `folder.parent/latest` names `folder`, in one rename: readers see the old adapter or the new one."""
    temporary = folder.parent / f".latest-{os.getpid()}"
    temporary.write_text(f"{folder.name}\n", encoding="utf-8")
    temporary.replace(folder.parent / "latest")
