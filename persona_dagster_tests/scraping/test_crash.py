"""SIGKILL at any moment of a crawl, then again: the archive ends as after an undisturbed pass."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from persona_dagster.sample.replica import Replica, serve
from persona_dagster.scraping.archive import Archive

KILLS, SOAK_KILLS, KILLS_A_CRAWL = 3, 50, 3
BOARD = "Boy-Girl"
PROGRAM = """
import json, sys
from pathlib import Path
from persona_dagster.config.sources import load_sources
from persona_dagster.scraping.archive import Archive
from persona_dagster.scraping.crawl import crawl_board
from persona_dagster.scraping.transport import Transport
root, rewrites = sys.argv[1], json.loads(sys.argv[2])
sources = load_sources(Path(root) / "none", "tiny")
pace = sources.ptt.pace.model_copy(update={"cache_minutes": 15.0, "requests_per_second": 200.0})
sources = sources.model_copy(update={"ptt": sources.ptt.model_copy(update={"pace": pace})})
report = crawl_board("ptt", "Boy-Girl", sources, Archive(root), transport=Transport(rewrites), log=lambda _: None)
assert report.complete, report.why
"""


def crawl(root: Path, replica: Replica) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(root), json.dumps(dict(replica.rewrites))])


def articles(archive: Archive) -> set[str]:
    return {key for kind, key in archive.histories("ptt", BOARD) if kind == "article"}


def test_sigkill_loses_nothing_and_repeats_nothing(tmp_path: Path, soak: bool) -> None:
    rng, kills, rounds, landed = random.Random(9), 0, 0, 0
    with serve() as replica:
        assert crawl(tmp_path / "undisturbed", replica).wait(timeout=60) == 0
        expected = Archive(tmp_path / "undisturbed").digest("ptt", BOARD)
        whole = len(replica.asked)
        while kills < (SOAK_KILLS if soak else KILLS):
            root = tmp_path / f"crawl-{rounds}"
            rounds += 1
            for _ in range(KILLS_A_CRAWL):
                before = articles(Archive(root))
                start = len(replica.asked)
                target = start + rng.randrange(1, whole)
                running = crawl(root, replica)
                while running.poll() is None and len(replica.asked) < target:
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.01)
                running.kill()
                landed += running.wait() != 0
                kills += 1
                asked = {item.target.rsplit("/", 1)[-1].removesuffix(".html") for item in list(replica.asked)[start:]}
                assert not before & asked, "an acknowledged article was fetched again within its cache time"
                assert Archive(root).verify("ptt", BOARD) == [], "only whole parts have a name"
            assert crawl(root, replica).wait(timeout=60) == 0
            archive = Archive(root)
            assert archive.digest("ptt", BOARD) == expected
            latest = [capture.key for capture in archive.latest("ptt", BOARD) if capture.kind == "article"]
            assert len(latest) == len(set(latest)) == len(articles(Archive(tmp_path / "undisturbed")))
    assert landed >= kills // 2, "most kills hit a crawl that was under way"
