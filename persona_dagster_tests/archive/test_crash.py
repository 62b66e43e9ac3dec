"""SIGKILL at any moment of a crawl, then again: the archive ends as after an undisturbed pass."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import Capture, Source
from persona_dagster.sample.replica import Replica, serve

KILLS, SOAK_KILLS, KILLS_A_CRAWL = 3, 50, 5
BOARD = "Boy-Girl"
# A process that has imported the crawler hands each round a fork of itself: 0.05 s in place of 1.5 s.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "polars", "pyarrow.parquet"])


def crawl_once(root: Path, rewrites: dict[str, str], source: Source, board: str) -> None:
    """One pass whose pages may not be asked for again within the next quarter of an hour."""
    sources = load_sources(root / "none", "tiny")
    site = sources.site(source)
    pace = site.pace.model_copy(update={"cache_minutes": 15.0, "requests_per_second": 200.0})
    sources = sources.model_copy(update={source: site.model_copy(update={"pace": pace})})
    report = crawl_board(source, board, sources, Archive(root), transport=Transport(rewrites), log=lambda _: None)
    assert report.complete, report.why


def start(root: Path, replica: Replica, source: Source = "ptt", board: str = BOARD) -> BaseProcess:
    process = CONTEXT.Process(target=crawl_once, args=(root, dict(replica.rewrites), source, board))
    process.start()
    return process


def finish(process: BaseProcess) -> int | None:
    process.join(timeout=120)
    return process.exitcode


def acknowledged(root: Path, source: Source = "ptt", board: str = BOARD) -> set[tuple[str, str]]:
    """What is on the disk: in parts, and written down for the next one."""
    archive = Archive(root)
    written: list[Capture] = archive.journal(source, board).read()
    return set(archive.histories(source, board)) | {(capture.kind, capture.key) for capture in written}


def asked(replica: Replica, since: int) -> list[str]:
    return [item.target for item in list(replica.asked)[since:]]


def test_sigkill_loses_nothing_and_repeats_nothing(tmp_path: Path, soak: bool) -> None:
    rng, kills, rounds, landed, again = random.Random(9), 0, 0, 0, 0
    with serve() as replica:
        began = time.monotonic()
        assert finish(start(tmp_path / "undisturbed", replica)) == 0
        whole, lasts = len(replica.asked), time.monotonic() - began
        expected = Archive(tmp_path / "undisturbed").digest("ptt", BOARD)
        everything = acknowledged(tmp_path / "undisturbed")
        while kills < (SOAK_KILLS if soak else KILLS):
            root, first = tmp_path / f"crawl-{rounds}", len(replica.asked)
            rounds += 1
            for _ in range(min(KILLS_A_CRAWL, (SOAK_KILLS if soak else KILLS) - kills)):
                before, at = acknowledged(root), len(replica.asked)
                left = max(2, whole - len(before))
                target, deadline = at + rng.randrange(1, left), time.monotonic() + rng.random() * lasts
                running = start(root, replica)
                while running.is_alive() and len(replica.asked) < target and time.monotonic() < deadline:
                    time.sleep(0.0005)
                time.sleep(rng.random() * 0.01)
                running.kill()
                running.join()
                landed += running.exitcode != 0
                kills += 1
                assert before <= acknowledged(root), "a kill took back what was acknowledged"
                names = {Path(target).stem for target in asked(replica, at)}
                assert not {key for _, key in before} & names, "fetched again within its cache time"
                assert Archive(root).verify("ptt", BOARD) == [], "only whole parts have a name"
            assert finish(start(root, replica)) == 0
            archive = Archive(root)
            assert archive.digest("ptt", BOARD) == expected
            assert acknowledged(root) == everything
            posts = Counter(capture.key for capture in archive.latest("ptt", BOARD) if capture.kind == "article")
            assert set(posts.values()) == {1}
            # Beside what was acknowledged only the page in flight at a kill may be asked for twice.
            twice = sum(Counter(asked(replica, first)).values()) - len(set(asked(replica, first)))
            again += twice
            assert twice <= KILLS_A_CRAWL
    print(f"{kills} kills, {landed} of them in mid-crawl, {rounds} archives; {again} pages in flight asked again")
    assert landed >= kills / 2, "most kills hit a crawl that was under way"


@pytest.mark.soak
@pytest.mark.browser
def test_a_browser_crawl_survives_its_kills(tmp_path: Path) -> None:
    """The same with a Chromium in tow: Dcard and Threads, five kills each."""
    rng = random.Random(10)
    with serve() as replica:
        for source, board in (("dcard", "mood"), ("threads", "閨蜜")):
            began = time.monotonic()
            assert finish(start(tmp_path / source, replica, source, board)) == 0  # type: ignore[arg-type]
            lasts = time.monotonic() - began
            root = tmp_path / f"{source}-killed"
            for _ in range(5):
                running = start(root, replica, source, board)  # type: ignore[arg-type]
                running.join(rng.random() * lasts)
                running.kill()
                running.join()
                assert Archive(root).verify(source, board) == []
            assert finish(start(root, replica, source, board)) == 0  # type: ignore[arg-type]
            assert Archive(root).digest(source, board) == Archive(tmp_path / source).digest(source, board)  # type: ignore[arg-type]
