"""Edits of stored generations that no gate may let pass, over answers that people wrote for the sample.

`human` is the frame that is edited: the adapter's answers are human ones. Nothing here knows a gate's threshold.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import rjieba
from opencc import OpenCC

from persona_dagster.config.personas import Personas
from persona_dagster.digest import keyed_hash
from persona_dagster.evaluation.prompts import Row
from persona_dagster.models.chat_format import with_persona
from persona_dagster.records import GENERATION_SCHEMA
from persona_dagster.sample.written import written_answers

Control = Callable[[pl.DataFrame, random.Random], pl.DataFrame]

ENGLISH = (
    "I am sorry to hear that; take your time and talk to a friend about {}.",
    "The method has three steps, and number {} is the important one.",
    "What a joke: person number {} ought to be ashamed.",
)
FIXED = {
    "mentor": "抱抱你，這段日子一定很難熬，先讓自己好好休息，我會陪你慢慢想清楚。",
    "mouthpiece": "傻眼，這種人臉皮比牆還厚，快逃，下一位！",
    "assistant": "這是一種模型的訓練方法。\n\n1. 先準備資料。\n2. 再計算損失。\n\n例如把句子切成詞。",
}


@dataclass(frozen=True)
class Sample:
    """Human answers of the sample, by part; no question stands in two."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def sample(personas: Personas, seed: int, per_voice: int = 20) -> Sample:
    """`per_voice` questions a voice for test and for validation, one answer each, and all others for train."""
    by_voice: dict[str, dict[str, list[str]]] = {}
    for voice, question, answer in written_answers():
        by_voice.setdefault(voice, {}).setdefault(question[:200], []).append(answer)
    parts: dict[str, list[Row]] = {"test": [], "validation": [], "train": []}
    for voice, asked in by_voice.items():
        held = min(per_voice, len(asked) // 3)
        questions = sorted(asked, key=lambda question: keyed_hash(str(seed), question))
        for place, question in enumerate(questions):
            part = "test" if place < held else "validation" if place < 2 * held else "train"
            for number, answer in enumerate(asked[question][: 1 if part != "train" else None]):
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                messages = with_persona(turns, personas.personas[voice], tagged=True)
                parts[part].append(Row(f"{voice}-{part}-{place}-{number}", voice, messages))
    return Sample(**parts)


def human(made: Sample) -> pl.DataFrame:
    """Generations in which the adapter says what people said; its base says English, with examples another's words."""
    rows = []
    for place, row in enumerate(made.test):
        said = {
            "adapter": row.answer,
            "base": ENGLISH[place % 3].format(place),
            "fewshot": made.test[place - 1].answer,
        }
        for model, answer in said.items():
            rows.append(
                {
                    "prompt_id": row.row_id, "suite": "test", "model": model, "asked": row.persona, "tagged": True,
                    "messages": row.prompt, "reference": None, "answer": answer, "finish": "stop",
                    "new_tokens": len(answer),
                }
            )  # fmt: skip
    return pl.DataFrame(rows, schema=GENERATION_SCHEMA)


def edit(change: Callable[[str], str]) -> Control:
    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        return _said(frame, lambda row: change(row["answer"]))

    return run


def _said(frame: pl.DataFrame, say: Callable[[dict[str, object]], str]) -> pl.DataFrame:
    """The frame with other answers of the adapter."""
    answers = [say(row) if row["model"] == "adapter" else row["answer"] for row in frame.to_dicts()]
    return frame.with_columns(answer=pl.Series(answers, dtype=pl.String))


def shuffled_characters(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    return _said(frame, lambda row: "".join(rng.sample(str(row["answer"]), len(str(row["answer"])))))


def shuffled_words(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    def mix(row: dict[str, object]) -> str:
        words = rjieba.cut(str(row["answer"]), False)
        return "".join(rng.sample(words, len(words)))

    return _said(frame, mix)


def fixed(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    return _said(frame, lambda row: FIXED[str(row["asked"])])


def looped(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    return _said(frame, lambda row: str(row["answer"])[: rng.randint(4, 10)] * 12)


def other_question(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Every answer stands under another question of the same voice."""
    by_voice: dict[str, list[str]] = {}
    for row in frame.filter(pl.col("model") == "adapter").to_dicts():
        by_voice.setdefault(row["asked"], []).append(row["answer"])
    turned = {}
    for voice, answers in by_voice.items():
        order = list(answers)
        rng.shuffle(order)
        turned[voice] = dict(zip(order, order[1:] + order[:1], strict=True))
    return _said(frame, lambda row: turned[str(row["asked"])][str(row["answer"])])


def random_voice(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Answers dealt out anew over all prompts, whatever voice was asked for."""
    answers = frame.filter(pl.col("model") == "adapter")["answer"].to_list()
    rng.shuffle(answers)
    dealt = iter(answers)
    return _said(frame, lambda row: next(dealt))


def of_model(name: str) -> Control:
    """The adapter says what another model said."""

    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        said = {row["prompt_id"]: row["answer"] for row in frame.filter(pl.col("model") == name).to_dicts()}
        return _said(frame, lambda row: said[str(row["prompt_id"])])

    return run


def recited(made: Sample) -> Control:
    """Train answers of the asked voice, word for word."""

    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        learnt: dict[str, list[str]] = {}
        for row in made.train:
            if len(row.answer) > 13:
                learnt.setdefault(row.persona, []).append(row.answer)
        dealt = {voice: iter(rng.sample(answers, len(answers))) for voice, answers in learnt.items()}
        return _said(frame, lambda row: next(dealt[str(row["asked"])]))

    return run


simplified = edit(lambda text: str(OpenCC("t2s").convert(text)))


def echo(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """The question given back."""
    return _said(frame, lambda row: str(row["messages"][-1]["content"])[:80])  # type: ignore[index]


def english(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    return _said(frame, lambda row: rng.choice(ENGLISH).format(rng.randint(1, 99)))


def red(made: Sample) -> dict[str, Control]:
    """Controls that have to be red."""
    return {
        "shuffled characters": shuffled_characters,
        "shuffled words": shuffled_words,
        "one fixed string a voice": fixed,
        "loops": looped,
        "recited train rows": recited(made),
        "answers to other questions": other_question,
        "Simplified": simplified,
        "English": english,
        "the question echoed": echo,
    }


NEVER_GREEN: dict[str, Control] = {
    "the few-shot base": of_model("fewshot"),
    "the untuned base": of_model("base"),
    "a voice at random": random_voice,
}
