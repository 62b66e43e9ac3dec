"""Crawl, merging and forgetting on one board at once, with kills: nothing is lost, and nothing forgotten comes back."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.archive.lock import ArchiveBusyError, board_lock
from persona_dagster_tests.archive.test_archive import capture

ROUNDS, SOAK_ROUNDS = 4, 1000
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "polars", "pyarrow.parquet"])


def crawl(root: Path, first: int, count: int) -> None:
    """As a pass does it: written down one by one, stored in small batches."""
    archive = Archive(root)
    archive.recover("ptt", "Hate")
    journal, waiting = archive.journal("ptt", "Hate"), []
    for number in range(first, first + count):
        one = capture(f"M.{number}", f"words of {number}", number)
        journal.add(one)
        waiting.append(one)
        if len(waiting) == 3:
            archive.append(waiting)
            journal.clear()
            waiting = []
    archive.append(waiting)
    journal.clear()
    journal.close()


def merge(root: Path) -> None:
    archive = Archive(root)
    for _ in range(5):
        archive.compact("ptt", "Hate")
        time.sleep(0.01)


def forget(root: Path, keys: list[str]) -> None:
    Archive(root).forget("ptt", "Hate", keys, "asked")


def there(root: Path) -> set[str]:
    archive = Archive(root)
    written = {one.key for one in archive.journal("ptt", "Hate").read()} - archive.tombstones("ptt", "Hate")
    return {key for _, key in archive.histories("ptt", "Hate")} | written


def test_captures_that_are_stored_during_a_forgetting_stay(tmp_path: Path) -> None:
    crawl(tmp_path, 0, 60)
    threads = [threading.Thread(target=crawl, args=(tmp_path, 100, 60))]
    threads += [threading.Thread(target=forget, args=(tmp_path, [f"M.{n}", f"M.{100 + n}"])) for n in range(0, 40, 4)]
    threads += [threading.Thread(target=merge, args=(tmp_path,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gone = {f"M.{n}" for n in range(0, 40, 4)} | {f"M.{100 + n}" for n in range(0, 40, 4)}
    everything = {f"M.{n}" for n in [*range(60), *range(100, 160)]}
    assert there(tmp_path) == everything - gone
    assert Archive(tmp_path).verify("ptt", "Hate") == []


def test_random_interleavings_with_kills_lose_nothing(tmp_path: Path, soak: bool) -> None:
    rng = random.Random(22)
    rounds = SOAK_ROUNDS if soak else ROUNDS
    kept, gone, following = set[str](), set[str](), 0
    for number in range(rounds):
        root = tmp_path / str(number // 20)  # twenty rounds an archive
        if number % 20 == 0:
            kept, gone, following = set(), set(), 0
        forgetting = rng.sample(sorted(kept), min(len(kept), 2))
        work = [
            CONTEXT.Process(target=crawl, args=(root, following, 12)),
            CONTEXT.Process(target=merge, args=(root,)),
            CONTEXT.Process(target=forget, args=(root, forgetting)),
        ]
        rng.shuffle(work)
        for process in work:
            process.start()
            time.sleep(rng.random() * 0.02)
        victim = rng.choice([None, *work])
        if victim:
            time.sleep(rng.random() * 0.15)
            victim.kill()
        for process in work:
            process.join(60)
        gone |= set(forgetting)
        forget(root, forgetting)  # cut short, it is repeated
        found = there(root)
        assert kept - gone <= found, f"round {number}: lost {sorted(kept - gone - found)[:5]}"
        assert not gone & found, f"round {number}: back {sorted(gone & found)[:5]}"
        assert Archive(root).verify("ptt", "Hate") == []
        assert not any(
            f"words of {key.removeprefix('M.')}".encode() == one.body
            for key in forgetting
            for one in Archive(root).every("ptt", "Hate")
        )
        kept, following = found, following + 12
        if number % 100 == 99:
            print(f"{number + 1} interleavings: nothing lost, nothing back", flush=True)


def test_a_lock_that_is_held_for_too_long_is_named(tmp_path: Path) -> None:
    with board_lock(tmp_path, "x"):
        other = board_lock(tmp_path, "x")
        other.timeout = 0.1
        with pytest.raises(ArchiveBusyError, match="held by another process"):
            other.acquire()


def test_readers_never_wait(tmp_path: Path) -> None:
    crawl(tmp_path, 0, 6)
    with Archive(tmp_path).lock("ptt", "Hate"):
        assert len(list(Archive(tmp_path).latest("ptt", "Hate"))) == 6


def test_a_redaction_survives_merging_and_restores_nothing(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append([capture("a", "before SECRET after"), capture("b", "two")])
    archive.append([capture("a", "before SECRET after", 5)])  # a reference to the same bytes
    old = archive.newest("ptt", "Hate", "article", "a").sha256
    assert archive.redact("ptt", "Hate", {old: b"before  after"}, {"spans": [[7, 13]], "why": "asked"}) == 2
    for n in range(6):
        archive.append([capture(f"c{n}", f"more {n}", 10 + n)])
    archive.compact("ptt", "Hate")
    found = Archive(tmp_path).newest("ptt", "Hate", "article", "a")
    assert found.body == b"before  after"
    assert archive.redactions("ptt", "Hate")[found.sha256]["old"] == old
    assert not any(b"SECRET" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert archive.verify("ptt", "Hate") == []
