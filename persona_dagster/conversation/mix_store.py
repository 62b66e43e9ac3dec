"""Mixes on a store that several machines see (PERSONA_MIX_URL, any fsspec URL).

Programs read the folder of this machine; the store holds the same folders, named by content like these. A mix is there
once its manifest is, and `latest` moves after that.
"""

from __future__ import annotations

from pathlib import Path

from persona_dagster.artifacts import LATEST, MixManifest, Versions, families
from persona_dagster.digest import file_digest
from persona_dagster.filesystem import open_store
from persona_dagster.settings import Settings

MANIFEST = MixManifest.FILE


class MixStoreError(ValueError):
    """A stored mix is not what its manifest says; the message names the file."""


class MixStore:
    """The recipes' folders under one root: `root/<recipe>/<digest>/…` and `root/<recipe>/latest`."""

    def __init__(self, url: str):
        self.fs, self.root = open_store(url)

    def publish(self, mix: Path) -> None:
        """Sends the mix in `mix` (`…/<recipe>/<digest>`) and points the store's `latest` at it."""
        self._send(mix)
        self._point(mix.parent.name, f"{mix.name}\n".encode())

    def fetch(self, folder: Path) -> None:
        """Brings the recipe's newest mix into `folder` (`…/<recipe>`) and points its `latest` at it.

        Nothing happens where the store holds none. Raises `MixStoreError` where it was damaged."""
        self.fs.invalidate_cache()
        pointer = self._path(folder.name, LATEST)
        if not self.fs.exists(pointer):
            return
        digest = self.fs.cat_file(pointer).decode().strip()
        self.bring(folder, digest)
        Versions(folder, MANIFEST).point(digest)

    def fetch_all(self, mixes: Path) -> None:
        """Brings every stored mix into `mixes/<recipe>/<digest>`, old ones included, and where each `latest` points:
        what is sent back later must not lose or turn back a pointer that another machine moved."""
        listed = self.listed()
        for recipe, digest in listed:
            self.bring(mixes / recipe, digest)
        for recipe in dict(listed):
            self.fetch(mixes / recipe)

    def push(self, mixes: Path) -> None:
        """Sends every mix that stands in `mixes`, and where each `latest` points."""
        for mix in _here(mixes):
            self._send(mix)
        for pointer in mixes.glob(f"*/{LATEST}"):
            self._point(pointer.parent.name, pointer.read_bytes())

    def mirror(self, mixes: Path) -> None:
        """Makes the store hold exactly what stands in `mixes`: a forgetting, after `fetch_all`."""
        self.push(mixes)
        here = {(mix.parent.name, mix.name) for mix in _here(mixes)}
        for recipe, digest in self.listed():
            if (recipe, digest) not in here:
                self.fs.rm(self._path(recipe, digest), recursive=True)
            pointer = self._path(recipe, LATEST)
            if not (mixes / recipe / LATEST).is_file() and self.fs.exists(pointer):
                self.fs.rm_file(pointer)

    def listed(self) -> list[tuple[str, str]]:
        """(recipe, digest) of every mix in the store, whole or not."""
        self.fs.invalidate_cache()  # other machines write too
        found = self.fs.find(self.root) if self.fs.exists(self.root) else []
        parts = [path.removeprefix(self.root).strip("/").split("/") for path in found]
        return sorted({(part[0], part[1]) for part in parts if len(part) > 2})

    def _send(self, mix: Path) -> None:
        there = self._path(mix.parent.name, mix.name)
        self.fs.invalidate_cache()
        if self.fs.exists(f"{there}/{MANIFEST}"):
            return
        self.fs.makedirs(there, exist_ok=True)  # where folders are real
        for path in sorted(mix.iterdir(), key=lambda path: path.name == MANIFEST):  # the manifest last
            self.fs.put_file(str(path), f"{there}/{path.name}")

    def _point(self, recipe: str, digest: bytes) -> None:
        self.fs.pipe_file(self._path(recipe, LATEST), digest)

    def bring(self, folder: Path, digest: str) -> None:
        """Brings one mix of the recipe's `folder`, unless it stands here or the store has none of that name."""
        there, home = self._path(folder.name, digest), folder / digest
        if (home / MANIFEST).is_file() or not self.fs.exists(f"{there}/{MANIFEST}"):
            return
        versions = Versions(folder, MANIFEST)
        with versions.staging() as fresh:
            for path in self.fs.find(there):
                self.fs.get_file(path, str(fresh / path.rsplit("/", 1)[-1]))
            _check(MixManifest.read(fresh), f"{there} is damaged")
            versions.publish(fresh, digest, point=False)

    def _path(self, *names: str) -> str:
        return "/".join((self.root, *names))


def recipe_mixes(settings: Settings, recipe: str, *digests: str) -> Path:
    """The recipe's folder of mixes, with the newest one in it, and those named, also where another machine made them.

    Raises `StoreError` or `MixStoreError` where PERSONA_MIX_URL leads nowhere or to damage."""
    folder = settings.mix_dir / recipe
    if settings.mix_url:
        store = MixStore(settings.mix_url)
        store.fetch(folder)
        for digest in digests:
            store.bring(folder, digest)
    return folder


def _here(mixes: Path) -> list[Path]:
    return sorted(mix for versions in families(mixes, MANIFEST).values() for mix in versions.all())


def _check(manifest: MixManifest, problem: str) -> None:
    for name, told in manifest.files.items():
        path = manifest.folder / name
        if not path.is_file() or file_digest(path) != told["sha256"]:
            raise MixStoreError(f"{problem}: {name} is not what its manifest says; delete it and materialise the mix")
