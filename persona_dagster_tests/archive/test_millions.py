"""A board of two million captures: what a pass, a forgetting and a week's merging cost then."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.archive.parts import row_of
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome

CAPTURES, SOAK_CAPTURES = 8_000, 2_000_000
PART, LISTED, A_NIGHT = 20_000, 20, 600
BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
MOST_CPU, MOST_FORGETTING, MOST_BYTES = 2.0, 5.0, 300 << 20

# In a process of its own, whose memory is its own: prints CPU seconds, imports included, and the peak (bytes).
MEASURE = """
import json, re, sys, time
from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.crawl.fetcher import Pass, open_frontier
from persona_dagster.crawl.lease import lease
from persona_dagster.crawl.transport import Transport
from pathlib import Path
what, root, key = sys.argv[1:]
if what == "pass":
    site = load_sources(Path(root) / "none", "live").ptt
    site = site.model_copy(update={"pace": site.pace.model_copy(update={"requests_per_second": 1000.0})})
    with lease("nowhere", Path(root) / "leases") as held:
        work = Pass("ptt", "Big", site=site, archive=Archive(root), transport=Transport({"https://www.ptt.cc":
                    "http://127.0.0.1:9"}), lease=held, log=lambda _: None)
        assert work.history("article", key), key
        work.ask("https://www.ptt.cc/bbs/Big/index.html", tries=1)
elif what == "rebuild":
    open_frontier(Archive(root), "ptt", "Big").close()
elif what == "forget":
    dropped = Archive(root).forget("ptt", "Big", [key], "asked")
    assert dropped >= 2, "the article and the page that lists it"
elif what == "merge":
    Archive(root).compact("ptt", "Big")
elif what == "digest":
    Archive(root).digest("ptt", "Big")
# Not ru_maxrss, which a child takes over from the process that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps([time.process_time(), peak]))
"""


def key_of(number: int) -> str:
    return f"M.{1_500_000_000 + number}.A.{number % 4096:03X}"


def capture(kind: str, key: str, number: int, body: str, names: tuple[str, ...] = ()) -> Capture:
    sent = body.encode()
    return Capture(
        "ptt", "Big", kind, key, f"https://www.ptt.cc/bbs/Big/{key}.html", BEGAN + timedelta(seconds=60 * number), 200,
        Outcome.OK, {"content-type": "text/html"}, sent, sha256(sent), names,
    )  # fmt: skip


def captures(first: int, count: int) -> list[Capture]:
    """Articles, one in five seen twice, and a listing page for every twenty."""
    found: list[Capture] = []
    for number in range(first, first + count):
        if number % LISTED == 0:
            names = tuple(key_of(n) for n in range(number, number + LISTED))
            found.append(capture("listing", f"index{number // LISTED}", number, " ".join(names), names))
        else:
            body = f"{number % 5 and number} 今天的第 {number // 5} 篇。" * 4
            found.append(capture("article", key_of(number), number, body))
    return found


def build(root: Path, count: int) -> None:
    """As years of merging leave it: parts of 20,000 rows. Written past `append`, which would look every capture up."""
    archive = Archive(root)
    (root / "ptt" / "Big").mkdir(parents=True)  # without it the index would stay in memory
    index, known = archive.index("ptt", "Big"), set[str]()
    for first in range(0, count, PART):
        rows = []
        for one in captures(first, min(PART, count - first)):
            rows.append(row_of(one, one.sha256 in known))
            known.add(one.sha256)
        index.add(archive._write("ptt", "Big", rows), rows)


def measured(what: str, root: Path, key: str = "") -> tuple[float, int]:
    made = subprocess.run(
        [sys.executable, "-c", MEASURE, what, str(root), key], capture_output=True, text=True, check=False, timeout=1800
    )
    assert made.returncode == 0, made.stderr[-2000:]
    cpu, peak = json.loads(made.stdout.splitlines()[-1])
    print(f"{what}: {cpu:.2f} CPU-s, {peak / 1e6:.0f} MB at most")
    return cpu, peak


@pytest.mark.timeout(7200)
def test_two_million_captures(tmp_path: Path, soak: bool) -> None:
    count = SOAK_CAPTURES if soak else CAPTURES
    build(tmp_path, count)
    some = count // 2 + 1
    measured("rebuild", tmp_path)  # of a frontier that was lost: once, and no part of a pass
    cpu, peak = measured("pass", tmp_path, key_of(some))
    assert (cpu < MOST_CPU or not soak) and peak < MOST_BYTES
    cpu, peak = measured("forget", tmp_path, key_of(some))
    assert (cpu < MOST_FORGETTING or not soak) and peak < MOST_BYTES
    archive = Archive(tmp_path)
    assert archive.history("ptt", "Big", "article", key_of(some)) is None
    assert archive.history("ptt", "Big", "article", key_of(some + 1)) is not None
    spent = []
    for week, nights in enumerate((7, 14) if soak else (1, 2)):
        following = count + week * 100_000
        for night in range(nights):
            for batch in range(0, A_NIGHT, LISTED):
                archive.append(captures(following + night * A_NIGHT + batch, LISTED))
        cpu, peak = measured("merge", tmp_path)
        spent.append(cpu)
        assert peak < MOST_BYTES
    if soak:  # seconds of a processor hold on an idle machine alone
        assert spent[1] < 3 * spent[0] + 1, "twice the captures, about twice the work"
        measured("digest", tmp_path)
        assert spent[0] < 20, "of the week, not of the years"
