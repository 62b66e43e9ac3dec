"""The index file of a board's parts: only a cache, and never wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persona_dagster.archive import part_index
from persona_dagster.archive.archive import Archive
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome

NIGHTS = part_index.WORTH + 4
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def page(night: int, key: str) -> Capture:
    body, at = f"night {night}".encode(), FIRST + timedelta(days=night)
    return Capture("ptt", "Hate", "article", key, f"https://x/{key}", at, 200, Outcome.OK, {}, body, sha256(body))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    archive = Archive(tmp_path)
    for night in range(NIGHTS):
        archive.append([page(night, f"M.{night}"), page(night, "M.again")])
    return tmp_path


def test_it_says_what_the_parts_say(root: Path) -> None:
    index = root / "ptt" / "Hate" / part_index.NAME
    assert not index.exists()
    one_by_one = Archive(root).histories("ptt", "Hate")
    assert index.is_file() and len(one_by_one) == NIGHTS + 1
    assert Archive(root).histories("ptt", "Hate") == one_by_one
    Archive(root).append([page(NIGHTS, "M.new")])  # newer than the file: read beside it
    assert ("article", "M.new") in Archive(root).histories("ptt", "Hate")
    assert Archive(root).verify("ptt", "Hate") == []


def test_it_is_what_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Archive(root).histories("ptt", "Hate")
    monkeypatch.setattr(Archive, "_read", lambda *_: pytest.fail("a part was read"))
    assert len(Archive(root).histories("ptt", "Hate")) == NIGHTS + 1


def test_a_damaged_file_is_made_again(root: Path) -> None:
    before = Archive(root).histories("ptt", "Hate")
    index = root / "ptt" / "Hate" / part_index.NAME
    sound = index.read_bytes()
    for damaged in (sound[:100], b"", sound[:200] + bytes([sound[200] ^ 255]) + sound[201:]):
        index.write_bytes(damaged)
        assert Archive(root).histories("ptt", "Hate") == before


def test_what_is_forgotten_stands_in_it_no_more(root: Path) -> None:
    Archive(root).histories("ptt", "Hate")
    Archive(root).forget("ptt", "Hate", ["M.3"], "asked")
    assert ("article", "M.3") not in Archive(root).histories("ptt", "Hate")
    index = root / "ptt" / "Hate" / part_index.NAME
    assert not index.exists() or b"M.3" not in index.read_bytes()
