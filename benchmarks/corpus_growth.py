"""How the comparison of all posts grows with the corpus, and what one per cent of new rows costs on a stored index.

    python benchmarks/corpus_growth.py [CLEANED.jsonl.zst] [--times 0.25 0.5 1 3 10] [--plot TARGET.png]

CLEANED is what `persona clean` wrote; by default the real corpus is cleaned first. Below 1x: rows of it, by chance.
Above: copies of it with edits; in 5 rows of 6 every second character is another, in the sixth one, which makes a twin.
So what two texts share by accident, and the share of copies, grow as they do in the corpus itself; with each sixth
character edited a text met six times as many.
Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # CPU-seconds, not wall: threads would only add their overhead

import numpy as np
import polars as pl
from real_data import real_data

from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.corpus.dedup import mark_duplicates
from persona_dagster.records import POST_SCHEMA

FRESH = 100  # one row in so many is new


def edited(texts: pl.Series, seed: int) -> pl.Series:
    """The texts with characters replaced by others of the corpus."""
    chance = np.random.default_rng(seed)
    lengths = texts.str.len_chars().to_numpy().astype(np.int64)
    units = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).copy()
    share = np.where(chance.random(len(texts)) < 5 / 6, 1 / 2, np.minimum(1 / np.maximum(lengths, 1), 1 / 6))
    chosen = chance.random(len(units)) < np.repeat(share, lengths)
    units[chosen] = chance.choice(units, chosen.sum())
    joined, ends = units.tobytes().decode("utf-32-le"), np.cumsum(lengths).tolist()
    return pl.Series([joined[a:b] for a, b in zip([0, *ends], ends, strict=False)], dtype=pl.String)


def read(source: Path) -> pl.DataFrame:
    rows = pl.read_ndjson(source, infer_schema_length=None)
    given = [name for name in rows.columns if name in POST_SCHEMA and POST_SCHEMA[name] == rows.schema[name]]
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in POST_SCHEMA.items() if name not in given]
    frame = rows.select(*given, *absent).select(list(POST_SCHEMA))
    return frame.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("post_id"), pl.lit("").alias("text_raw"))


def grown(frame: pl.DataFrame, times: float) -> pl.DataFrame:
    if times < 1:
        return frame.sample(fraction=times, shuffle=True, seed=1)
    copies = [
        frame.with_columns(edited(frame["text"], seed).alias("text"), pl.col("post_id") + f"-{seed}")
        for seed in range(1, int(times))
    ]
    return pl.concat([frame, *copies], rechunk=True)


def measured(frame: pl.DataFrame, index: Path | None = None) -> tuple[float, pl.DataFrame]:
    start = time.process_time()
    marked = mark_duplicates(frame, index).frame
    return time.process_time() - start, marked


def one_size(source: Path, times: float) -> dict[str, float]:
    frame = grown(read(source), times)
    whole, marked = measured(frame)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = marked["dup_of"].count()
    with tempfile.TemporaryDirectory() as folder:
        stored, _ = measured(frame.filter(pl.int_range(pl.len()) % FRESH != 0), Path(folder))
        more, again = measured(frame, Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.npy")) / 1e6
    return {
        "rows": len(frame), "copies": found, "whole": whole, "stored": stored, "more": more, "peak_gb": peak,
        "index_mb": size, "equal": again.equals(marked),
    }  # fmt: skip


def plot(sizes: list[dict[str, float]], target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), dpi=110, layout="constrained")
    rows = [size["rows"] / 1e6 for size in sizes]
    panels = (("CPU-seconds", "whole", "all rows"), ("peak GB", "peak_gb", "all rows"))
    for axes, (label, key, name) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.plot(rows, [size[key] for size in sizes], "o-", color="#2563eb", label=name)
        if key == "whole":
            axes.plot(rows, [size["more"] for size in sizes], "s-", color="#f97316", label="1 % new, stored index")
        axes.set(xlabel="million rows", ylabel=label, xlim=0, ylim=0)
        axes.legend(fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)


def cleaned(folder: Path) -> Path:
    """The real corpus as `persona clean` writes it."""
    target = folder / "cleaned.jsonl.zst"
    clean_file(real_data("corpus", "forum_posts.jsonl.gz"), target, load_sources(folder, "live"))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--times", type=float, nargs="+", default=[0.25, 0.5, 1, 3, 10])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.source is None:
        with tempfile.TemporaryDirectory() as folder:
            grow(cleaned(Path(folder)), arguments.times, arguments.plot)
    elif arguments.only:
        print(json.dumps(one_size(arguments.source, arguments.only)))
    else:
        grow(arguments.source, arguments.times, arguments.plot)


def grow(source: Path, times_of: list[float], picture: Path | None) -> None:
    """Every size in turn, a row of the table each; the plot anew after each."""
    print(time.strftime("%Y-%m-%d"), f"load {os.getloadavg()[0]:.1f}; CPU-seconds on one thread")
    print("| times | rows | copies | all rows | 1 % new, stored index | share | equal | peak GB | index MB |")
    sizes = []
    for times in times_of:
        command = [sys.executable, __file__, str(source), "--only", str(times)]
        size = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        sizes.append(size)
        print(
            f"| {times:g} | {size['rows']:,} | {size['copies']:,} | {size['whole']:.1f} | {size['more']:.2f} | "
            f"{size['more'] / size['whole']:.1%} | {size['equal']} | {size['peak_gb']:.2f} | {size['index_mb']:.0f} |",
            flush=True,
        )
        if picture:
            plot(sizes, picture)


if __name__ == "__main__":
    main()
