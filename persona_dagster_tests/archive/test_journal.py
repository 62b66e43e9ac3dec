"""What a killed pass had written down is stored by the next one, once, and without secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from persona_dagster.archive.archive import Archive
from persona_dagster.records import Outcome
from persona_dagster_tests.archive.test_archive import capture


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    journal = Archive(tmp_path).journal("ptt", "Hate")
    written = [replace(capture(f"k{n}", "字" * n, n), headers={"content-type": "text/html"}) for n in range(5)]
    for one in written:
        journal.add(one)
    assert Archive(tmp_path).journal("ptt", "Hate").read() == written
    journal.clear()
    assert journal.read() == []
    journal.close()
    assert not (tmp_path / "ptt" / "Hate" / ".journal").exists()


def test_a_record_that_was_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    journal = Archive(tmp_path).journal("ptt", "Hate")
    journal.add(capture("a", "one"))
    assert journal.path is not None
    first = journal.path.stat().st_size
    journal.add(capture("b", "two"))
    data = journal.path.read_bytes()
    for cut in range(first, len(data)):
        journal.path.write_bytes(data[:cut])
        assert [one.key for one in journal.read()] == ["a"]
    journal.path.write_bytes(data[:-70] + bytes([data[-70] ^ 1]) + data[-69:])
    assert [one.key for one in journal.read()] == ["a"], "a flipped bit is no record either"


def test_recovery_stores_each_once_also_after_a_second_kill(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    journal = archive.journal("ptt", "Hate")
    both = [capture("a", "one"), capture("b", "two", 1, Outcome.GONE)]
    for one in both:
        journal.add(one)
    archive.append(both)  # killed after the part was there and before the journal was gone
    assert Archive(tmp_path).recover("ptt", "Hate") == 0
    for one in [*both, capture("c", "three", 2)]:
        journal = Archive(tmp_path).journal("ptt", "Hate")
        journal.add(one)
    assert Archive(tmp_path).recover("ptt", "Hate") == 1
    histories = Archive(tmp_path).histories("ptt", "Hate")
    assert {key: len(history.sightings) for (_, key), history in histories.items()} == {"a": 1, "b": 1, "c": 1}


def test_forgetting_reaches_the_journal(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append([capture("a", "one")])
    archive.journal("ptt", "Hate").add(capture("b", "a secret of b", 1))
    archive.forget("ptt", "Hate", ["b"], "asked for")
    assert not any(b"a secret of b" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [one.key for one in archive.every("ptt", "Hate")] == ["a"]


def test_an_object_store_keeps_none(tmp_path: Path) -> None:
    journal = Archive(f"memory://{tmp_path}").journal("ptt", "Hate")
    journal.add(capture("a", "one"))
    assert journal.read() == []
