"""A home with an archive, and files of our own to bring."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
import polars as pl
import pytest
import zstandard

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.digest import author_key
from persona_dagster.intake.import_to_archive import Intake, read_ledger, take_in
from persona_dagster.records import Post
from persona_dagster.settings import Settings

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return load_sources(tmp_path_factory.mktemp("config"), "tiny")


class Home:
    """A $PERSONA_HOME whose imports folder can be filled and taken in."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(home=path, archive_url=None)
        self.settings.imports_dir.mkdir(parents=True)
        self.archive = Archive(self.settings.raw_dir)

    def put(self, name: str, content: bytes | str | list[object]) -> Path:
        """A file in the imports folder; of rows JSON lines, packed as the name says."""
        path = self.settings.imports_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in content)
            packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
            content = packed(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def take_in(self, **how: object) -> Intake:
        return take_in(self.settings, self.archive, denied=["sex", "Suicide"], **how)  # type: ignore[arg-type]

    def posts(self, source: str = "ptt") -> list[Post]:
        key = partial(author_key, b"secret", source)
        return parse_board(self.archive.latest(source, "import"), key).posts  # type: ignore[arg-type]

    def ledger(self) -> pl.DataFrame:
        return read_ledger(self.settings.intake_dir)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
