"""How likely a language model that was not trained here finds a text, in nats a character.

The reader is a base of its own (the recipe's `evaluation.reader`), or the run's untuned base. It reads the beginning
of a text without its question: what is measured is whether this is language, not whether it answers. Scores are kept
in a file below the models, named by the reader, by text, so that human answers are read once for all reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from persona_dagster.config.recipes import Base
from persona_dagster.digest import json_digest, text_digest
from persona_dagster.evaluation.loss import IGNORED, batch_nats

CHARS = 48  # of a text that are read: enough to tell order from salad, and a large vocabulary costs a second a line
BATCH = 8
VERSION = 1  # raise when the same text would have another score: what was stored is then read anew

Read = Callable[[Sequence[str]], list[float]]


class Reader:
    """`base` with a memory: nats a character of the first `CHARS` characters, by text."""

    def __init__(self, base: Base, models_dir: Path) -> None:
        self.base, self.models_dir = base, models_dir
        plain = "".join(char if char.isalnum() else "-" for char in base.model)
        name = json_digest([VERSION, CHARS, base.meaning(), base.hub_revision])[:8]
        self.path = models_dir / f"read-{plain}-{name}.jsonl"
        self._model: Any = None

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """A score a text; infinite for one without characters. The model is loaded when a text is new."""
        known = self._known()
        begun = [text.strip()[:CHARS] for text in texts]
        fresh = sorted({text for text in begun if text and text_digest(text) not in known}, key=len)
        if fresh:
            self.models_dir.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                for start in range(0, len(fresh), BATCH):
                    batch = fresh[start : start + BATCH]
                    for text, nats in zip(batch, self._nats(batch), strict=True):
                        known[text_digest(text)] = nats / len(text)
                        file.write(json.dumps([text_digest(text), round(nats / len(text), 6)]) + "\n")
        return [known[text_digest(text)] if text else float("inf") for text in begun]

    def _known(self) -> dict[str, float]:
        if not self.path.is_file():
            return {}
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return dict(json.loads(line) for line in lines if line.endswith("]"))  # a line cut short is read again

    def _nats(self, texts: list[str]) -> list[float]:
        from persona_dagster.models.base_model import for_asking, load_base

        if self._model is None:
            model, tokenizer = load_base(self.base.model_copy(update={"dtype": "float32"}), self.models_dir)
            for_asking(model)
            self._model = (model.eval(), tokenizer)
        model, tokenizer = self._model
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        ids = [[first, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
        labels = [[IGNORED, *row[1:]] for row in ids]
        return [nats for nats, _ in batch_nats(model, ids, labels, tokenizer.pad_token_id)]
