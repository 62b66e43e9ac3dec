"""Arrays in a folder: read lazily, written only where they changed, switched all at once.

Every file is written once and never again; a manifest names those that belong together and moves last. A crash
leaves the former arrays; what no manifest names goes with the next write.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona_dagster.artifacts import write_json

Arrays = dict[str, NDArray[Any]]
MANIFEST = "manifest.json"


class ArrayStore:
    """The arrays of one owner. One writer; a reader keeps what it opened, even when its files are replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, tuple[NDArray[Any], str]] = {}
        self._written = 0

    def load(self, version: str) -> Mapping[str, NDArray[Any]]:
        """What `save` kept under this version, mapped into memory; nothing where that is absent, torn or another's."""
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["version"] != version:
                return {}
            loaded = {name: (self._read(file, size), file) for name, (file, size) in manifest["files"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        self._loaded, self._written = loaded, manifest["written"]
        return {name: array for name, (array, _) in loaded.items()}

    def _read(self, file: str, size: int) -> NDArray[Any]:
        path = self.folder / file
        if path.stat().st_size != size:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, {size} were written")
        return np.load(path, mmap_mode="r")

    def save(self, arrays: Arrays, version: str) -> None:
        """These arrays in place of the former; one that is still what `load` gave stays where it is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._loaded:  # files of former names will be written over
            (self.folder / MANIFEST).unlink(missing_ok=True)
        written = self._written + 1
        files = {}
        for name, array in arrays.items():
            known, file = next((pair for pair in self._loaded.values() if pair[0] is array), (None, ""))
            if known is None:
                file = f"{written}-{name}.npy"
                with (self.folder / file).open("wb") as target:
                    np.save(target, array)
                    target.flush()
                    os.fsync(target.fileno())
            files[name] = (file, (self.folder / file).stat().st_size)
        write_json(self.folder / MANIFEST, {"version": version, "written": written, "files": files})
        named = {MANIFEST, *(file for file, _ in files.values())}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in named:
                path.unlink()
