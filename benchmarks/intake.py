"""Files to `posts` and the reply graph, by the steps of the graph's assets: seconds and peak memory a stage, with the
processes that it starts; and the row ledger, whose buckets must sum to the rows.

    python benchmarks/intake.py              # the three claims below, a process each
    python benchmarks/intake.py ROWS [FILE]  # so many rows of ../shared's corpus, or of FILE
    python benchmarks/intake.py gigabyte     # 1 GiB of JSON lines, made here, into the archive

The claims, on two cores: 66 k rows under 90 s, 245 k under five minutes, both under 1 GB; 1 GiB streams under 0.5 GB.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.config.personas import load_personas
from persona_dagster.config.sources import IMPORT_BOARD, load_sources
from persona_dagster.conversation.graph import imported_rows, reply_graph
from persona_dagster.corpus.dedup import mark_duplicates
from persona_dagster.corpus.incremental_cleaning import BoardCleaner
from persona_dagster.corpus.ledger import row_ledger
from persona_dagster.corpus.ledger_page import stages
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.digest import author_key
from persona_dagster.intake.import_to_archive import places_of, read_ledger, take_in, write_lost
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus" / "forum_posts.jsonl.gz"
ALL = 244_805
LIMITS = {66_000: 90, ALL: 300}  # seconds by rows
MEMORY, STREAMED = 1000, 512  # MB


class Stages:
    """A line a stage: seconds by the clock, CPU seconds of all processes, the most memory since the stage before.

    Memory is that of this process alone, whose peak the kernel keeps, or with those that it started, whichever is more.
    """

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.cpu, self.peak, self.together = cpu_seconds(), 0, 0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        while True:
            if started := active_children():
                all_of_us = sum(proportional(process) for process in (os.getpid(), *(child.pid for child in started)))
                self.together = max(self.together, all_of_us)
            time.sleep(0.1)

    def told(self, stage: str) -> None:
        now, cpu, (own, held) = time.perf_counter(), cpu_seconds(), megabytes()
        peak, self.together = max(own, self.together), 0
        print(f"{stage}: {now - self.last:.1f} s, CPU {cpu - self.cpu:.1f} s, peak {peak} MB, then {held}", flush=True)
        self.last, self.cpu, self.peak = now, cpu, max(self.peak, peak)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


def cpu_seconds() -> float:
    """Of this process and of those that it started and that ended."""
    return sum(os.times()[:4])


def proportional(pid: int | None) -> int:
    """MB of a process, its share of what several processes map."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) // 1000 for line in lines if line.startswith("Pss:"))
    return 0


def megabytes() -> tuple[int, int]:
    """The most that this process held since the last call, and what it holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return int(status["VmHWM"].split()[0]) // 1000, int(status["VmRSS"].split()[0]) // 1000


def build(settings: Settings) -> Stages:
    """All that lies in the imports folder to tables."""
    done = Stages()
    sources, personas = load_sources(settings.config_dir, "own"), load_personas(settings.config_dir).personas
    archive, tables = Archive(settings.raw_dir), settings.tables_dir
    taken = take_in(settings, archive, denied=sources.denied_boards)
    done.told(f"taken in, {taken.fates.total():,} rows")
    places = places_of(settings.intake_dir)
    for source in FORUMS:
        key = partial(author_key, b"key", source)
        cleaner = BoardCleaner(source, archive, sources, personas, key, settings.cleaned_dir)
        cleaned, tally = cleaner.clean([IMPORT_BOARD], places)
        write_lost(tally.lost, settings.intake_dir / "lost" / f"{source}.parquet")
        write_parquet(cleaned.frame, tables / f"{source}_posts" / "import.parquet")
        del cleaned
        done.told(f"{source} parsed and cleaned")
    found = pl.concat([pl.read_parquet(tables / f"{source}_posts" / "import.parquet") for source in FORUMS])
    write_parquet(mark_duplicates(found, settings.dedup_dir).frame, tables / "posts" / "all.parquet")
    del found
    done.told("posts, without copies")
    posts = pl.scan_parquet(tables / "posts" / "all.parquet")
    edges = reply_graph(posts, imported_rows(settings.intake_dir), settings.cleaned_dir)
    write_parquet(edges, tables / "reply_graph" / "all.parquet")
    done.told("reply graph")
    return done


def rows(number: int, path: Path = CORPUS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        settings.imports_dir.mkdir(parents=True)
        with gzip.open(path) as file, (settings.imports_dir / "dump.jsonl").open("wb") as out:
            out.writelines(itertools.islice(file, number))
        done = build(settings)
        seconds, limit, cpu = done.seconds, LIMITS.get(number, 1e9), cpu_seconds()
        print(f"{number:,} rows: {seconds:.1f} s (limit {limit}), CPU {cpu:.0f} s, {done.peak} MB (limit {MEMORY})")
        brought, ledger = read_ledger(settings.intake_dir), row_ledger(settings)
        assert ledger.filter(pl.col("part") < 1000).height == brought.height, "a row is lost or stands twice"
        assert not ledger.select("file", "row", "part").is_duplicated().any()
        assert sum(one["rows"] for one in stages(ledger)) == ledger.height
        print(f"ledger: {brought.height:,} rows in, each in one bucket; further posts {ledger.height - brought.height}")
        for one in stages(ledger):
            print(f"  {one['stage']}, {one['bucket']} {one['why']}: {one['rows']:,}")
    assert done.peak < MEMORY and seconds < limit, "the claim does not hold"


def gigabyte(size: int = 1 << 30) -> None:
    """Posts of 1,400 characters that nobody wrote."""
    drawn = random.Random(1)
    blocks = ["".join(chr(drawn.randrange(0x4E00, 0x59B8)) for _ in range(200)) for _ in range(400)]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        settings.imports_dir.mkdir(parents=True)
        with (settings.imports_dir / "gigabyte.jsonl").open("wb") as out:
            for number in itertools.count():
                row = {"source": "ptt", "kind": "post", "board": "Hate", "id": f"M.{1600000000 + number}.A.ABC"}
                text = "".join(drawn.choices(blocks, k=7))
                out.write(json.dumps(row | {"text": text}, ensure_ascii=False).encode() + b"\n")
                if out.tell() > size:
                    break
        done = Stages()
        taken = take_in(settings, Archive(settings.raw_dir))
        assert taken.fates == {"stored": number + 1}
        done.told(f"{size / 1e9:.2f} GB, {number + 1:,} rows into the archive (limit {STREAMED} MB)")
    assert done.peak < STREAMED, "the claim does not hold"


def main(what: str | None = None, *more: str) -> None:
    if what is None:
        each = (*map(str, LIMITS), "gigabyte")
        codes = [subprocess.run([sys.executable, __file__, one], check=False).returncode for one in each]
        sys.exit(any(codes))
    print(time.strftime("%Y-%m-%d %H:%M"), f"load {os.getloadavg()[0]:.1f}")
    if what == "gigabyte":
        gigabyte(*map(int, more))
    else:
        rows(int(what), *map(Path, more))


if __name__ == "__main__":
    main(*sys.argv[1:])
