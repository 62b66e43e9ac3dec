"""The scorer: what is heard counts, what speaks against it halves, what is avoided silences."""

from __future__ import annotations

import polars as pl
import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Voice, load_personas
from persona_dagster.conversation.voice import voice_score

VOICE = Voice(topics=("分手|失戀",), core=("抱抱",), signals=("你", "慢慢"), against=("笑死",), avoid=("選舉",))


def score(question: str, answer: str, voice: Voice = VOICE) -> float:
    frame = pl.DataFrame({"q": [question], "a": [answer]})
    return float(frame.select(voice_score(pl.col("q"), pl.col("a"), voice)).item())


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("我失戀了", "抱抱你，慢慢來", 1.0),
        ("我失戀了", "抱抱", 4 / 6),
        ("今天吃什麼", "抱抱你", 3 / 6),
        ("我失戀了", "抱抱你，慢慢來，笑死", 0.5),
        ("選舉害我失戀", "抱抱你，慢慢來", 0.0),
        ("我失戀了", "抱抱你，選舉之後慢慢來", 0.0),
        ("今天吃什麼", "吃麵", 0.0),
    ],
)
def test_what_is_heard(question: str, answer: str, expected: float) -> None:
    assert score(question, answer) == pytest.approx(expected)


def test_a_voice_without_patterns_hears_itself_in_everything() -> None:
    assert score("今天吃什麼", "吃麵", Voice()) == 1.0


@pytest.mark.parametrize(
    ("question", "answer", "persona"),
    [
        ("他最近都不太回我訊息，我好難過", "抱抱你，先別難過，慢慢來，會好的。", "mentor"),
        ("室友半夜吵鬧還亂丟垃圾", "有夠沒品，到底憑什麼這麼自私？", "mouthpiece"),
        ("請說明注意力機制。", "注意力是模型為每個詞分配權重的方法，例如：\n- query\n- key", "assistant"),
    ],
)
def test_each_packaged_voice_is_heard_by_its_own_persona(question: str, answer: str, persona: str) -> None:
    known = load_personas(PACKAGED).personas
    heard = {name: score(question, answer, one.voice) for name, one in known.items()}
    assert max(heard, key=lambda name: heard[name]) == persona
