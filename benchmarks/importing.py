"""Rows of ../shared's corpus from the file to `posts`, in its own process: seconds a stage, peak memory.

    python benchmarks/importing.py [ROWS] [FILE]

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

from persona_dagster.archive.archive import Archive
from persona_dagster.config.personas import load_personas
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.digest import author_key
from persona_dagster.intake.take_in import places_of, take_in
from persona_dagster.records import FORUMS, posts_frame
from persona_dagster.settings import Settings

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "corpus" / "forum_posts.jsonl.gz"


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def main(rows: int = 66_000, path: Path = CORPUS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        settings.imports_dir.mkdir()
        with gzip.open(path) as file:
            lines = b"".join(itertools.islice(file, rows))
        (settings.imports_dir / "dump.jsonl").write_bytes(lines)
        del lines
        sources, personas = load_sources(Path(folder), "sample"), load_personas(Path(folder)).personas
        archive, start = Archive(settings.raw_dir), time.perf_counter()
        done = take_in(settings, archive, denied=sources.denied_boards)
        print(f"taken in: {done.fates.total():,} rows in {time.perf_counter() - start:.1f} s, {megabytes()} MB")
        places = places_of(settings.intake_dir)
        for source in FORUMS:
            started = time.perf_counter()
            found = parse_board(archive.latest(source, "import"), partial(author_key, b"key", source), places).posts
            frame = posts_frame(found)
            del found
            parsed = time.perf_counter()
            clean_posts(frame, source, sources, personas=personas)
            cleaned = time.perf_counter()
            print(f"{source}: parsed {parsed - started:.1f} s, cleaned {cleaned - parsed:.1f} s, {megabytes()} MB")
        print(f"in all {time.perf_counter() - start:.1f} s, {megabytes()} MB")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, Path), sys.argv[1:], strict=False)))
