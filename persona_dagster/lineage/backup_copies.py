"""Where else the contents of a home stand: backups, which are registered as they are made, and homes that a restore
moved aside. Forgetting goes through them all, and seals a backup again whose files it rewrote.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import orjson

from persona_dagster.artifacts import write_json
from persona_dagster.settings import Settings

MANIFEST = "manifest.json"
REGISTER = "backups.json"
DAGSTER = "dagster"
ASIDE = "before-restore"


def dagster_home(settings: Settings) -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or settings.home / DAGSTER)


def register(home: Path, *backups: Path) -> None:
    """Notes where backups of `home` lie, so that a later forgetting finds them."""
    known = sorted({*(str(path) for path in registered(home)), *(str(path.resolve()) for path in backups)})
    write_json(home / REGISTER, known)


def registered(home: Path) -> list[Path]:
    """The backups made of `home`, those that have since been moved or deleted included."""
    path = home / REGISTER
    return [Path(name) for name in orjson.loads(path.read_bytes())] if path.is_file() else []


def present(settings: Settings) -> list[Path]:
    """Every copy that is there: registered backups, and what restores moved aside."""
    places = {settings.home, dagster_home(settings)}
    aside = [copy for place in places for copy in place.parent.glob(f"{place.name}.{ASIDE}-*")]
    return sorted({path for path in [*registered(settings.home), *aside] if path.is_dir()})


def derived(path: Path) -> bool:
    """Whether it is made anew where it is missing, and changes with every look: no part of what a backup holds."""
    return path.name.startswith((".index.sqlite", ".lock", ".forgetting.lock"))


def seal(folder: Path) -> dict[str, list[int | str]]:
    """Writes the manifest of a backup: size and sha256 of every file."""
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST and not derived(path)
    )
    files: dict[str, list[int | str]] = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, file_sha256(path)] for path in paths
    }
    manifest = {"made_at": datetime.now(UTC).isoformat(timespec="seconds"), "files": files}
    write_json(folder / MANIFEST, manifest)
    return files


def file_sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
