"""The whole graph on real data: 245 k forum rows, two folders of notes, 1.2 k dialogues; nothing is scraped.

    PERSONA_SHARED=../shared/data PERSONA_PROFILE=tiny python benchmarks/real_corpus.py [RECIPE]

The profile decides the model alone: tiny walks the whole graph in minutes, sample trains SmolLM2. Puts links to the
data into a fresh home, then walks the graph as `make demo` does, on the partition `import` alone. Prints counts and
seconds a step; the peak memory is that of this process.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
from real_data import real_data
from rich.console import Console

from persona_dagster.commands.progress_display import Display
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.demo import BY_RECIPE
from persona_dagster.defs.materialize_in_process import Walk
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

CORPUS = ("notes_raw", "capybara_raw", "notes", "posts", "personas_config", "dialogues", "capybara_dialogues", "split")


def prepare(home: Path, shared: Path) -> None:
    """A home whose imports and notes are links to the real data."""
    (home / "imports").mkdir(parents=True)
    (home / "imports" / "forum_posts.jsonl.gz").symlink_to(shared / "corpus" / "forum_posts.jsonl.gz")
    (home / "imports" / "capybara.jsonl").symlink_to(shared / "chat" / "capybara_shape.jsonl")
    (home / "notes").symlink_to(shared / "notes_zhtw")
    (home / "dagster").mkdir()


def main() -> None:
    shared = real_data().resolve()
    recipe = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=os.environ.get("PERSONA_BENCH_DIR")) as folder:
        home = Path(folder) / "home"
        prepare(home, shared)
        settings = Settings(home=home, hardware="cpu", profile="own")
        started = time.monotonic()
        with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
            walk = Walk(build_defs(settings), instance, Display(Console(soft_wrap=True)))
            for source in FORUMS:
                walk.step(f"{source}_raw", "import")
                walk.step(f"{source}_posts", "import")
            for asset in CORPUS:
                walk.step(asset)
            for asset in BY_RECIPE if recipe else ():
                walk.step(asset, recipe)
            print(walk.numbers("posts"), walk.numbers("dialogues"), walk.numbers("split"), sep="\n")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{time.monotonic() - started:.0f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
