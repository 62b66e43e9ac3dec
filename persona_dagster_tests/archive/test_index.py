"""The index is a cache of the parts: right after every change, and made again when it is anything but sound."""

from __future__ import annotations

import gc
import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.archive.index import NAME
from persona_dagster.records import Outcome
from persona_dagster_tests.archive.test_archive import capture

NIGHTS = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    archive = Archive(tmp_path)
    for night in range(NIGHTS):
        archive.append([capture(f"M.{night}", f"body {night}", night)])
    return tmp_path


@pytest.mark.parametrize("harm", ["gone", "garbage", "cut", "middle", "version"])
def test_a_damaged_index_is_made_again(root: Path, harm: str) -> None:
    before = Archive(root).histories("ptt", "Hate")
    path = root / "ptt" / "Hate" / NAME
    gc.collect()  # the writer's connection
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "version":
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA user_version = 999")
        db.close()
    else:
        for log in path.parent.glob(f"{NAME}-*"):
            log.unlink()
        path.write_bytes({"garbage": b"no database" * 999, "cut": whole[: len(whole) // 2]}.get(harm, b""))
        if harm == "middle":
            path.write_bytes(whole[:2000] + b"\xff" * 20_000 + whole[22_000:])
    assert Archive(root).histories("ptt", "Hate") == before


def test_parts_that_another_process_wrote_or_dropped_are_seen(root: Path) -> None:
    reader, writer = Archive(root), Archive(root)
    assert len(reader.histories("ptt", "Hate")) == NIGHTS
    writer.append([capture("M.new", "new", 500)])
    assert reader.history("ptt", "Hate", "article", "M.new") is not None
    writer.forget("ptt", "Hate", ["M.3"], "asked")
    assert reader.history("ptt", "Hate", "article", "M.3") is None
    writer.compact("ptt", "Hate")
    assert len(reader.histories("ptt", "Hate")) == NIGHTS
    assert reader.verify("ptt", "Hate") == []


def test_a_reader_goes_on_while_parts_are_merged_and_forgotten(root: Path) -> None:
    reading = Archive(root).latest("ptt", "Hate")
    seen = {next(reading).key}
    other = Archive(root)
    other.compact("ptt", "Hate")
    other.forget("ptt", "Hate", ["M.7", "M.30"], "asked")
    seen |= {one.key for one in reading}
    assert seen >= {f"M.{night}" for night in range(NIGHTS)} - {"M.7", "M.30"}


def test_what_was_forgotten_stands_in_no_file_of_the_index(root: Path) -> None:
    archive = Archive(root)
    archive.append([capture("M.secret.id", "text", 900)])
    archive.forget("ptt", "Hate", ["M.secret.id"], "asked")
    holding = [path for path in root.rglob("*") if path.is_file() and b"M.secret.id" in path.read_bytes()]
    assert [path.parent.name for path in holding] == ["tombstones"]


def test_a_look_at_a_board_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    assert Archive(tmp_path).histories("ptt", "Nowhere") == {}
    assert list(tmp_path.iterdir()) == []


def test_the_meaning_of_a_board_is_what_its_histories_say(tmp_path: Path) -> None:
    rng, archive = random.Random(22), Archive(tmp_path)
    outcomes = [Outcome.OK, Outcome.OK, Outcome.GONE, Outcome.GONE, Outcome.PARSE_INCOMPLETE]
    for look in range(300):
        one = capture(f"M.{rng.randrange(40)}", f"version {rng.randrange(3)}", look // 2)
        archive.append([replace(one, outcome=rng.choice(outcomes))])
    index = archive.index("ptt", "Hate")
    said = {(kind, key): meaning for kind, key, meaning in index.meanings()}
    assert said == {
        (kind, key): "gone" if history.gone else history.whole.sha256
        for kind, key, history in index.histories()
        if history.whole
    }
    assert "gone" in said.values() and len(set(said.values())) > 3


def test_what_a_list_names_is_found_by_its_row(root: Path) -> None:
    """By its part alone, forgetting in a board of two million captures took a minute of CPU, and now three seconds."""
    Archive(root).index("ptt", "Hate")
    plan = sqlite3.connect(root / "ptt" / "Hate" / NAME).execute(
        "EXPLAIN QUERY PLAN SELECT 1 FROM named WHERE part = 1 AND row = 1"
    )
    assert "part=? AND row=?" in plan.fetchone()[3]
