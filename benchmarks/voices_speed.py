"""Seconds to score the candidates of a corpus: the first time, again with 1 % new, and the reply graph of its rows.

    python benchmarks/voices_speed.py HOME [--pairs 74000] [--rows 66081]

HOME: where a corpus was imported and built (`persona import …; persona build --until posts`). The vectors' cache is a
fresh one. Prints load, threads, and how many texts the encoder had to read.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import polars as pl

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.builders import candidates
from persona_dagster.conversation.graph import GRAPH_SCHEMA, reply_graph
from persona_dagster.conversation.voice_classifier import Voices
from persona_dagster.corpus.quality import usable
from persona_dagster.corpus.tables import WHOLE, Tables
from persona_dagster.models.embedding_cache import Vectors
from persona_dagster.records import POST_SCHEMA
from persona_dagster.settings import Settings


def scored(pairs: pl.DataFrame, folder: Path, settings: Settings) -> str:
    """By a process' first look at the encoder and whatever cache lies in `folder`."""
    personas = load_personas(PACKAGED)
    voices = Voices(personas, Vectors(settings.voice_encoder, settings.models_dir, folder))
    hints = pairs.select(pl.col(f"hint_{name}").alias(name) for name in personas.personas)
    start = time.monotonic()
    found = voices.scores(pairs["question"].to_list(), pairs["answer"].to_list(), hints)
    seconds = time.monotonic() - start
    return f"{pairs.height:,} pairs, {found.drop_nulls().height:,} of them read by the encoder: {seconds:.1f} s"


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--pairs", type=int, default=74_000)
    parser.add_argument("--rows", type=int, default=66_081)
    options = parser.parse_args()
    settings = Settings(home=options.home, profile="own")
    tables = Tables(settings.tables_dir)
    posts = tables.read("posts", POST_SCHEMA, [WHOLE])
    print(time.strftime("%Y-%m-%d"), f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads")
    some = posts.head(options.rows)
    start = time.monotonic()
    edges = reply_graph(some)
    print(f"graph of {some.height:,} rows, {edges.height:,} edges: {time.monotonic() - start:.1f} s")
    known = tables.read("reply_graph", GRAPH_SCHEMA, [WHOLE])
    found = candidates(posts, load_personas(PACKAGED), usable=usable(), edges=known)
    pairs = pl.concat([part for name, part in found.items() if name != "qa_notes"])
    pairs = pairs.unique(["question", "answer"], keep="first", maintain_order=True)
    pairs = pairs.sample(min(options.pairs, pairs.height), shuffle=True, seed=0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERSONA_BENCH_DIR")) as folder:
        print(
            "99 % of them, the first time:",
            scored(pairs.head(pairs.height * 99 // 100), Path(folder), settings),
            flush=True,
        )
        print("with the last 1 % new:", scored(pairs, Path(folder), settings))


if __name__ == "__main__":
    main()
