"""Which of two answers to one prompt is preferred: by the local judge, by people, by a language model elsewhere.

A preference is 1 for the first answer, 0 for the second, 0.5 for neither. People vote blind (`persona judge`), a
language model is asked in both orders and counts only where it says the same twice. Agreement is Cohen's kappa with a
bootstrap interval (Cohen 1960); the local judge counts as a gate where its lower end against people reaches `TRUSTED`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bootstrap import LEAST, ROUNDS, Interval

MARGIN = 0.05  # of the score: nearer than that, neither is better
TRUSTED = 0.4
LEAST_VOTES = 200

Vote = Literal["left", "right", "tie"]
VOTE_SCHEMA = pl.Schema(
    {
        "pair_id": pl.String,
        "recipe": pl.String,
        "generations": pl.String,  # digest of the generations: the lineage of both answers
        "suite": pl.String,
        "prompt_id": pl.String,
        "left": pl.String,  # model whose answer stood left
        "right": pl.String,
        "vote": pl.String,  # left | right | tie
        "judge": pl.String,  # who voted
        "voted_at": pl.String,  # UTC, ISO
    }
)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, in the order that they are shown in."""

    pair_id: str
    suite: str
    prompt_id: str
    asked: str
    question: str
    left: str  # model
    right: str
    left_answer: str
    right_answer: str


def make_pairs(generations: pl.DataFrame, ours: str = "adapter", theirs: str = "fewshot") -> list[Pair]:
    """The prompts that both models answered, sides drawn by hash: blind and the same for everybody."""
    keys = ["suite", "prompt_id"]
    left = generations.filter(pl.col("model") == ours)
    right = generations.filter(pl.col("model") == theirs).select(*keys, other="answer")
    pairs = []
    for row in left.join(right, on=keys).sort(keys).to_dicts():
        pair_id = text_digest(row["suite"], row["prompt_id"], row["answer"], row["other"])
        sides = [(ours, row["answer"]), (theirs, row["other"])]
        if int(pair_id[:8], 16) % 2:
            sides.reverse()
        question = next((turn["content"] for turn in reversed(row["messages"]) if turn["role"] == "user"), "")
        (first, first_answer), (second, second_answer) = sides
        pairs.append(
            Pair(
                pair_id,
                row["suite"],
                row["prompt_id"],
                row["asked"],
                question,
                first,
                second,
                first_answer,
                second_answer,
            )
        )
    random.Random(0).shuffle(pairs)
    return pairs


def every_pair(generations: pl.DataFrame) -> dict[str, Pair]:
    """By id, the pairs that a judge may be held against people on: those of the gate first, then the other two models'.
    Two answers that are the same are no pair."""
    found: dict[str, Pair] = {}
    for ours, theirs in (("adapter", "fewshot"), ("adapter", "base"), ("fewshot", "base")):
        for pair in make_pairs(generations, ours, theirs):
            if pair.left_answer.strip() != pair.right_answer.strip():
                found.setdefault(pair.pair_id, pair)
    return found


def local_score(rows: pl.DataFrame) -> pl.Series:
    """What the local judge makes of an answer, 0-1: nothing where it has a flaw; else the asked voice and the question
    count alike."""
    clear = rows["clarity"].fill_null(0.0) if "clarity" in rows.columns else pl.Series([0.5] * rows.height)
    near = rows["relevance"].fill_null(0.5)
    return ((clear + near) / 2 * rows["flaw"].is_null().cast(pl.Float64)).alias("score")


def preferred(rows: pl.DataFrame, ours: str = "adapter", theirs: str = "fewshot") -> pl.DataFrame:
    """suite, prompt_id, question and `preferred` for every prompt that both models answered."""
    keys = ["suite", "prompt_id"]
    scored = rows.with_columns(local_score(rows))
    left = scored.filter(pl.col("model") == ours).select(*keys, "question", "score")
    both = left.join(scored.filter(pl.col("model") == theirs).select(*keys, other="score"), on=keys).sort(keys)
    lead = pl.col("score") - pl.col("other")
    value = pl.when(lead > MARGIN).then(1.0).when(lead < -MARGIN).then(0.0).otherwise(0.5)
    return both.select(*keys, "question", preferred=value)


def kappa(first: Sequence[str], second: Sequence[str], seed: int = 0) -> Interval:
    """Cohen's kappa of two judges over the same pairs, with its 95 % bootstrap interval."""
    if not first:
        return Interval(None, None, None, 0, False)
    names = sorted({*first, *second})
    left = np.array([names.index(name) for name in first])
    right = np.array([names.index(name) for name in second])

    def of(rows: np.ndarray) -> float:
        agreed = float(np.mean(left[rows] == right[rows]))
        chance = sum(float(np.mean(left[rows] == k)) * float(np.mean(right[rows] == k)) for k in range(len(names)))
        return (agreed - chance) / (1 - chance) if chance < 1 else 1.0

    everything = np.arange(len(left))
    drawn = np.random.default_rng(seed).integers(0, len(left), size=(ROUNDS // 4, len(left)))
    low, high = np.quantile([of(rows) for rows in drawn], [0.025, 0.975])
    return Interval(of(everything), float(low), float(high), len(left), len(left) >= LEAST)


def read_votes(paths: Iterable[Path]) -> pl.DataFrame:
    """The votes in JSONL files, as VOTE_SCHEMA; the newest of a judge on a pair counts."""
    rows = [
        json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    frame = pl.DataFrame(rows, schema=VOTE_SCHEMA) if rows else pl.DataFrame(schema=VOTE_SCHEMA)
    return frame.sort("voted_at").unique(["pair_id", "judge"], keep="last", maintain_order=True)


def vote_row(pair: Pair, vote: Vote, *, recipe: str, generations: str, judge: str, at: str) -> dict[str, Any]:
    """A line of a vote file: ids and the vote, no text."""
    kept = {name: value for name, value in asdict(pair).items() if name in VOTE_SCHEMA}
    return {**kept, "recipe": recipe, "generations": generations, "vote": vote, "judge": judge, "voted_at": at}


def agreement(votes: pl.DataFrame, rows: pl.DataFrame) -> Interval:
    """Kappa of people's votes and the local judge on the pairs of these very answers (left, right, tie)."""
    votes = votes.filter(~pl.col("judge").str.starts_with("llm:"))
    pairs = every_pair(rows)
    scored = rows.select("suite", "prompt_id", "model", local_score(rows))
    scores = {(suite, prompt_id, model): score for suite, prompt_id, model, score in scored.rows()}
    people, judge = [], []
    for vote in votes.to_dicts():
        if (pair := pairs.get(vote["pair_id"])) is None:
            continue
        left, right = (scores[pair.suite, pair.prompt_id, side] for side in (pair.left, pair.right))
        people.append(vote["vote"])
        judge.append("tie" if abs(left - right) <= MARGIN else "left" if left > right else "right")
    return kappa(people, judge)


def trusted(found: Interval) -> bool:
    """Whether the local judge may decide a gate."""
    return found.low is not None and found.n >= LEAST_VOTES and found.low >= TRUSTED
