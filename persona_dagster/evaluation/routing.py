"""Does the model know when to use which voice? Untagged prompts, and tags that contradict their topic.

Accuracy in 0-1 by the judge of `fidelity`: chance is one over the number of voices. For an untagged prompt the
right voice is the one that its topic calls for; for a contradicting tag it is the tag's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from persona_dagster.evaluation.fidelity import Judge


@dataclass(frozen=True)
class Heard:
    """One answer and what the judge heard in it."""

    prompt_id: str
    asked: str
    heard: str

    @property
    def right(self) -> bool:
        return self.asked == self.heard


def question_of(messages: Sequence[Mapping[str, str]]) -> str:
    """The last thing the user said."""
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")


def listen(frame: pl.DataFrame, judge: Judge) -> list[Heard]:
    """The judge over rows of GENERATION_SCHEMA, in their order; rows of voices it never learnt are left out."""
    known = frame.filter(pl.col("asked").is_in(list(judge.voices)))
    questions = [question_of(messages) for messages in known["messages"].to_list()]
    heard = judge.hear(known["answer"].to_list(), questions)
    return [Heard(*row) for row in zip(known["prompt_id"].to_list(), known["asked"].to_list(), heard, strict=True)]


def accuracy(heard: Sequence[Heard]) -> float | None:
    return sum(one.right for one in heard) / len(heard) if heard else None
