"""Twelve boards cleaned into the tables, two at once against one after the other: seconds of wall time, and the ratio.

    python benchmarks/boards.py [ROWS_A_BOARD] [DUMP.jsonl.gz]

The claim: boards have no single writer, so two cores clean two boards in well under twice the time of one. Boards are
those of new_day.py: the sample's pages with the words of real rows.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # a core a board: what is measured is boards side by side

from new_day import PUSHES, article, words
from real_data import real_data

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.incremental_cleaning import BoardCleaner
from persona_dagster.corpus.tables import Tables
from persona_dagster.records import POST_SCHEMA

BOARDS = 12


def clean(home: Path, kept: Path, board: str) -> int:
    """One board, from its captures to its file in the tables; returns the rows written."""
    cleaner = BoardCleaner("ptt", Archive(home / "raw"), load_sources(home, "sample"), {}, str, kept / "cache")
    frame = cleaner.clean([board])[0].frame
    Tables(kept / "tables").write("ptt_posts", board, frame, POST_SCHEMA)
    return frame.height


def main(rows: int = 4_000, path: Path | None = None) -> None:
    text, seconds = words(path or real_data("corpus", "forum_posts.jsonl.gz")), {}
    boards, articles = [f"Board{number}" for number in range(BOARDS)], rows // (PUSHES + 1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for number, board in enumerate(boards):
            own = range(number * articles, (number + 1) * articles)
            Archive(home / "raw").append(article(one, PUSHES, text, board) for one in own)
        for workers in (1, 2):
            kept = home / str(workers)
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                list(pool.map(clean, *zip(*((home, home / "warm", board) for board in boards[:workers]), strict=True)))
                start = time.perf_counter()
                written = sum(pool.map(clean, itertools.repeat(home), itertools.repeat(kept), boards))
                seconds[workers] = time.perf_counter() - start
            there = Tables(kept / "tables").query("SELECT count(*) AS rows FROM ptt_posts")["rows"][0]
            print(
                f"{workers} at once: {written:,} rows of {BOARDS} boards in {seconds[workers]:.1f} s ({there:,} there)"
            )
    print(f"ratio {seconds[1] / seconds[2]:.2f}")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, Path), sys.argv[1:], strict=False)))
