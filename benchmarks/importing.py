"""How fast a dump comes in: rows a CPU-second of `read_dump` and `parse_import`, against plain `json` on the same file.

python benchmarks/importing.py DUMP [ROWS]    # by default the real corpus beside the checkout
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from real_data import real_data

from persona_dagster.digest import author_key
from persona_dagster.intake.dumps import open_dump, parse_import, read_dump
from persona_dagster.records import FORUMS


def cpu(task: Callable[[], int]) -> tuple[int, float]:
    """(what the task counted, CPU seconds)."""
    start = time.process_time()
    count = task()
    return count, time.process_time() - start


def main(path: Path, rows: int | None) -> None:
    with TemporaryDirectory() as folder:
        if rows is not None:  # the first rows are of one site only: take them from the whole file
            part = Path(folder) / "part.jsonl.gz"
            with open_dump(path) as source, gzip.open(part, "wb", compresslevel=1) as target:
                target.writelines(islice(source, 0, None, max(1, 244_805 // rows)))
            path = part
        key = partial(author_key, b"benchmark", "ptt")
        read, read_seconds = cpu(lambda: sum(1 for source in FORUMS for _ in read_dump(path, source)))
        captures = [capture for source in FORUMS for capture in read_dump(path, source)]
        posts, parse_seconds = cpu(lambda: sum(len(parse_import(capture, key).posts) for capture in captures))

        def plain() -> int:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return sum(1 for line in file if json.loads(line))

        plain_rows, plain_seconds = cpu(plain)
    print(f"read_dump     {read:>8} rows   {read / read_seconds:>9.0f} rows/CPU-s (three sources, a pass each)")
    print(f"parse_import  {posts:>8} posts  {read / parse_seconds:>9.0f} rows/CPU-s")
    print(f"both          {read:>8} rows   {read / (read_seconds + parse_seconds):>9.0f} rows/CPU-s")
    print(f"gzip + json   {plain_rows:>8} rows   {plain_rows / plain_seconds:>9.0f} rows/CPU-s, making no posts")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else real_data("corpus", "forum_posts.jsonl.gz"),
        int(sys.argv[2]) if len(sys.argv) > 2 else None,
    )
