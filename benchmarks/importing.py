"""Rows of ../shared's corpus from the file to `posts` and the reply graph, in its own process: seconds and peak memory
a stage; and the row ledger, whose buckets must sum to the rows.

    python benchmarks/importing.py [ROWS] [FILE] [HOME]

The claim: 66 k rows under 90 s on two cores, 245 k under five minutes, under 1 GB.
"""

from __future__ import annotations

import gzip
import itertools
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.config.personas import load_personas
from persona_dagster.config.sources import load_sources
from persona_dagster.conversation.graph import imported_rows, reply_graph
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.dedup import mark_duplicates
from persona_dagster.corpus.ledger import row_ledger
from persona_dagster.corpus.ledger_page import stages
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.digest import author_key
from persona_dagster.intake.take_in import places_of, read_ledger, take_in, write_lost
from persona_dagster.records import FORUMS, posts_frame
from persona_dagster.settings import Settings

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus" / "forum_posts.jsonl.gz"
LIMITS = {66_000: 90, 244_805: 300}  # seconds by rows
MEMORY = 1000  # MB


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def build(settings: Settings) -> float:
    """All that lies in the imports folder to tables; returns the seconds, and prints a line a stage."""
    start = last = time.perf_counter()

    def told(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        print(f"{stage}: {now - last:.1f} s, CPU {time.process_time():.0f} s in all, {megabytes()} MB", flush=True)
        last = now

    sources, personas = load_sources(settings.config_dir, "own"), load_personas(settings.config_dir).personas
    archive, tables = Archive(settings.raw_dir), settings.tables_dir
    done = take_in(settings, archive, denied=sources.denied_boards)
    told(f"taken in, {done.fates.total():,} rows")
    places = places_of(settings.intake_dir)
    for source in FORUMS:
        parsed = parse_board(archive.latest(source, "import"), partial(author_key, b"key", source), places)
        write_lost(parsed.lost, settings.intake_dir / "lost" / f"{source}.parquet")
        frame = posts_frame(parsed.posts)
        del parsed
        told(f"{source} parsed")
        cleaned = clean_posts(frame, source, sources, personas=personas).frame
        write_parquet(cleaned, tables / f"{source}_posts" / "import.parquet")
        del frame, cleaned
        told(f"{source} cleaned")
    found = pl.concat([pl.read_parquet(tables / f"{source}_posts" / "import.parquet") for source in FORUMS])
    posts = mark_duplicates(found, settings.dedup_dir).frame
    write_parquet(posts, tables / "posts" / "all.parquet")
    del found
    told("posts, without copies")
    write_parquet(reply_graph(posts, imported_rows(settings.intake_dir)), tables / "reply_graph" / "all.parquet")
    told("reply graph")
    return time.perf_counter() - start


def main(rows: int = 66_000, path: Path = CORPUS, home: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=home or Path(folder))
        settings.imports_dir.mkdir(parents=True)
        with gzip.open(path) as file, (settings.imports_dir / "dump.jsonl").open("wb") as out:
            out.writelines(itertools.islice(file, rows))
        seconds = build(settings)
        memory = megabytes()
        cpu = time.process_time()  # of all threads: what it would take on one core that does nothing else
        print(f"in all {seconds:.1f} s (limit {LIMITS.get(rows, '–')}), CPU {cpu:.0f} s, {memory} MB (limit {MEMORY})")
        brought, ledger = read_ledger(settings.intake_dir), row_ledger(settings)
        assert ledger.filter(pl.col("part") < 1000).height == brought.height, "a row is lost or stands twice"
        assert not ledger.select("file", "row", "part").is_duplicated().any()
        assert sum(one["rows"] for one in stages(ledger)) == ledger.height
        print(
            f"ledger: {brought.height:,} rows in, each in one bucket; further posts {ledger.height - brought.height:,}"
        )
        for one in stages(ledger):
            print(f"  {one['stage']}, {one['bucket']} {one['why']}: {one['rows']:,}")
        assert memory < MEMORY and seconds < LIMITS.get(rows, 1e9), "the claim does not hold"


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, Path, Path), sys.argv[1:], strict=False)))
