"""Edits of stored generations that no gate may let pass, over answers that people wrote for the sample.

`human` is the frame that is edited: the adapter's answers are human ones. Nothing here knows a gate's threshold.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import rjieba
from opencc import OpenCC

from persona_dagster.config.personas import Personas
from persona_dagster.digest import keyed_hash
from persona_dagster.evaluation.prompts import MixRow
from persona_dagster.models.chat_format import with_persona
from persona_dagster.records import GENERATION_SCHEMA
from persona_dagster.sample.voice_examples import written_answers

Control = Callable[[pl.DataFrame, random.Random], pl.DataFrame]

START, END = "\x02", "\x03"
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


STOCK = {
    "mentor": (
        "關於{}，先別急著怪自己，給心一點時間。",
        "我懂{}帶來的累，今晚先好好睡一覺吧。",
        "抱抱你，{}不會一直這樣，慢慢會好的。",
        "也許可以先把{}放下，跟信任的人聊聊。",
        "{}讓人很難受，你願意說出來已經很勇敢了。",
    ),
    "mouthpiece": (
        "{}也敢拿出來講，臉皮真厚。",
        "笑死，{}是在演哪齣，導演喊卡了啦。",
        "聽到{}我血壓都上來了，快逃。",
        "{}這種等級的，直接送他離開不送。",
        "傻眼，{}還要我們鼓掌嗎，下一位。",
    ),
    "assistant": (
        "{}是自然語言處理裡常見的做法，重點是先看資料。",
        "要理解{}，可以從輸入、輸出和損失三方面來看。",
        "簡單說，{}會影響模型的效果，建議先做小實驗。",
        "{}沒有標準答案，要看任務和資料量來決定。",
        "實務上，{}常和其他方法一起用，再比較結果。",
    ),
}


@dataclass(frozen=True)
class Sample:
    """Human answers of the sample, by part; no question stands in two. `again`: another human answer to a test
    question, by row."""

    train: list[MixRow]
    validation: list[MixRow]
    test: list[MixRow]
    again: dict[str, str]


def sample(personas: Personas, seed: int, per_voice: int = 20) -> Sample:
    """`per_voice` questions a voice for test and for validation, one answer each, and all others for train."""
    by_voice: dict[str, dict[str, list[str]]] = {}
    for voice, question, answer in written_answers():
        by_voice.setdefault(voice, {}).setdefault(question[:200], []).append(answer)
    parts: dict[str, list[MixRow]] = {"test": [], "validation": [], "train": []}
    again = {}
    for voice, asked in by_voice.items():
        held = min(per_voice, len(asked) // 3)
        questions = sorted(asked, key=lambda question: keyed_hash(str(seed), question))
        for place, question in enumerate(questions):
            part = "test" if place < held else "validation" if place < 2 * held else "train"
            if part == "test" and len(asked[question]) > 1:
                again[f"{voice}-{part}-{place}-0"] = asked[question][1]
            for number, answer in enumerate(asked[question][: 1 if part != "train" else None]):
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                messages = with_persona(turns, personas.personas[voice], tagged=True)
                parts[part].append(MixRow(f"{voice}-{part}-{place}-{number}", voice, messages))
    return Sample(**parts, again=again)


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
        return _said(frame, lambda row: change(str(row["answer"])))

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


def chained(made: Sample, order: int) -> Control:
    """A Markov chain of the characters of the asked voice's train answers; each is told by the `order` before it."""

    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        after: dict[str, dict[str, list[str]]] = {}
        for row in made.train:
            text = f"{START * order}{row.answer}{END}"
            for place in range(order, len(text)):
                after.setdefault(row.persona, {}).setdefault(text[place - order : place], []).append(text[place])

        def say(row: dict[str, object]) -> str:
            said = START * order
            while len(said) < len(str(row["answer"])) + order or said[-1] not in f"。！？{END}":
                char = rng.choice(after[str(row["asked"])][said[-order:]])
                said += START * order if char == END else char  # a short one goes on with another
                if char == END and len(said.replace(START, "")) >= 0.7 * len(str(row["answer"])):
                    break
            return said.replace(START, "")

        return _said(frame, say)

    return run


def _clauses(text: str) -> list[str]:
    """The clauses of a text, each with its mark."""
    return [clause for clause in re.split(r"(?<=[，。！？；：\n])", text) if clause]


def grafted(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """Every second clause is that of the next answer in the same voice."""
    following: dict[str, list[str]] = {}
    by_voice: dict[str, list[str]] = {}
    for row in frame.filter(pl.col("model") == "adapter").to_dicts():
        by_voice.setdefault(row["asked"], []).append(row["answer"])
    for answers in by_voice.values():
        for answer, after in zip(answers, answers[1:] + answers[:1], strict=True):
            following[answer] = _clauses(after)

    def say(row: dict[str, object]) -> str:
        own, other = _clauses(str(row["answer"])), following[str(row["answer"])]
        return "".join(
            other[place % len(other)] if place % 2 or len(own) == 1 else clause for place, clause in enumerate(own)
        )

    return _said(frame, say)


def stock_pool(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
    """One of five stock sentences of the voice, the question's longest word put in."""

    def say(row: dict[str, object]) -> str:
        words = rjieba.cut(str(row["messages"][-1]["content"]), False)  # type: ignore[index]
        return rng.choice(STOCK[str(row["asked"])]).format(max(words, key=len))

    return _said(frame, say)


def typos(made: Sample) -> Control:
    """15 % of the Chinese characters are others, drawn from the train answers."""
    pool = [char for row in made.train for char in row.answer if "\u4e00" <= char <= "\u9fff"]

    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        def say(row: dict[str, object]) -> str:
            return "".join(
                rng.choice(pool) if "\u4e00" <= char <= "\u9fff" and rng.random() < 0.15 else char
                for char in str(row["answer"])
            )

        return _said(frame, say)

    return run


def said_again(made: Sample) -> Control:
    """What another person answered, where one did; the other prompts fall away."""

    def run(frame: pl.DataFrame, rng: random.Random) -> pl.DataFrame:
        kept = frame.filter(pl.col("prompt_id").is_in(list(made.again)))
        return _said(kept, lambda row: made.again[str(row["prompt_id"])])

    return run


half = edit(lambda text: text[: len(text) // 2])
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


def made_up(made: Sample) -> dict[str, Control]:
    """Answers that a program made up; they have to be red too."""
    return {
        "a chain of characters": chained(made, 1),
        "a chain of pairs of characters": chained(made, 2),
        "five stock sentences a voice": stock_pool,
    }


def damaged(made: Sample) -> dict[str, Control]:
    """Answers that are half of what they ought to be; never green."""
    return {
        "first halves": half,
        "every second clause another's": grafted,
        "15 % wrong characters": typos(made),
    }


NEVER_GREEN: dict[str, Control] = {
    "the few-shot base": of_model("fewshot"),
    "the untuned base": of_model("base"),
    "a voice at random": random_voice,
}
