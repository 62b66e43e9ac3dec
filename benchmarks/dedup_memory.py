"""How much memory the comparison of a large corpus takes: the real one, cleaned and repeated, read from Parquet.

    python benchmarks/dedup_memory.py [ROWS] [CLEANED.jsonl.zst]

The claim: ten million rows under 4 GB, the rows that are read and the marks that come out included. The file is written
by a process of its own, so that the peak is that of the comparison.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from corpus_growth import cleaned, read

from persona_dagster.corpus.dedup import find_duplicates


def write(target: Path, rows: int, source: Path | None) -> None:
    """The cleaned corpus again and again, each time under other ids, a file each."""
    with tempfile.TemporaryDirectory() as folder:
        frame = read(source or cleaned(Path(folder)))
    for copy in range(-(-rows // len(frame))):
        left = frame.head(rows - copy * len(frame))
        left.with_columns(pl.col("post_id") + f"-{copy}").write_parquet(target / f"{copy:04}.parquet")


def peak_gb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


def compare(folder: Path) -> None:
    before, cpu = peak_gb(), time.process_time()
    dup_of, matches = find_duplicates(pl.scan_parquet(folder / "*.parquet"))
    causes = dict(matches["cause"].value_counts().iter_rows())
    print(f"{len(dup_of):,} rows, {dup_of.count():,} copies ({causes}), {time.process_time() - cpu:.0f} CPU-s")
    print(f"peak {peak_gb():.2f} GB ({before:.2f} before the first row was read)")


def main(rows: int = 10_000_000, source: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", "compare"):
            subprocess.run([sys.executable, __file__, step, folder, str(rows), str(source or "")], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", folder, rows, source]:
            write(Path(folder), int(rows), Path(source) if source else None)
        case ["compare", folder, _, _]:
            compare(Path(folder))
        case given:
            main(*(kind(value) for kind, value in zip((int, Path), given, strict=False)))
