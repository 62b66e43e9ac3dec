"""Small frames for the tests of this room: posts of a thread, dialogues of any number and persona."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.digest import text_digest
from persona_dagster.records import DIALOGUE_SCHEMA, Post, posts_frame

START = datetime(2026, 3, 1, tzinfo=UTC)


def personas() -> Personas:
    return load_personas(PACKAGED)


def recipe(name: str = "persona_v2", **mix: Any) -> Recipe:
    """A packaged recipe without overlays, with the given fields of its mix changed."""
    loaded = load_recipe(name, PACKAGED, "live", "gpu_12gb")
    free = {"max_train_rows": None, "max_test_rows": None, "replay_share": 0.0}
    return loaded.model_copy(update={"mix": loaded.mix.model_copy(update=free | mix)})


def post(source: str, board: str, post_id: str, text: str, **fields: Any) -> Post:
    day = fields.pop("day", 0)
    named = {"kind": "post", "url": f"https://example.test/{source}/{board}/{post_id}", "text": text, "text_raw": text}
    return Post(source=source, board=board, post_id=post_id, created_at=START + timedelta(days=day), **named | fields)  # type: ignore[arg-type]


def posts(*rows: Post) -> pl.DataFrame:
    return posts_frame(list(rows))


def dialogue(name: str, persona: str = "mentor", **fields: Any) -> dict[str, Any]:
    """A dialogue whose words follow from its name, unlike those of any other name."""
    words = [text_digest(name, str(i))[:12] for i in range(12)]
    question, answer = fields.pop("question", " ".join(words[:5])), fields.pop("answer", " ".join(words[5:]))
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    raw = [messages[0], {**messages[1], "content": f"{answer} 推 噓 --"}]
    return {
        "pair_id": text_digest(name),
        "builder": "top_comments",
        "persona": persona,
        "source": "dcard",
        "board": "mood",
        "thread_id": f"dcard:mood:{name}",
        "doc_ids": [f"dcard:mood:{name}", f"dcard:mood:{name}-a"],
        "urls": [f"https://example.test/{name}", f"https://example.test/{name}#a"],
        "answer_author": None,
        "messages_raw": raw,
        "messages": messages,
        "score": 0.8,
        **fields,
    }


def dialogues(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=DIALOGUE_SCHEMA)


def many(**sizes: int) -> pl.DataFrame:
    """So many dialogues of each persona."""
    return dialogues(dialogue(f"{name}-{i}", name) for name, size in sizes.items() for i in range(size))


class Words:
    """A judge for tests: an answer has a voice as far as it holds one of the voice's words (all have the rest)."""

    def __init__(self, **words: str) -> None:
        self.words = words

    def scores(self, questions: Sequence[str], answers: Sequence[str], hints: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame(
            {
                name: [float(any(word in answer for word in self.words.get(name, "").split("|"))) for answer in answers]
                for name in hints.columns
            },
            schema=dict.fromkeys(hints.columns, pl.Float64),
        )

    def threshold(self, persona: str) -> float:
        return 0.5
