"""Routing: a tag in front, else a classifier learned from example questions and a mix, which explains itself."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.models.persona_classifier import (
    Router,
    example_questions,
    first_sentence,
    questions_of_mix,
    questions_of_pool,
    train_classifier,
)
from persona_dagster.records import MESSAGES


@pytest.fixture
def personas() -> Personas:
    return load_personas(PACKAGED)


QUESTIONS = {
    "assistant": ["什麼是詞向量？", "怎麼微調一個語言模型", "梯度消失是什麼意思", "如何評估摘要模型", "什麼是資料增強"],
    "mentor": ["分手之後好難過", "我是不是不夠好", "他不愛我了嗎", "晚上睡不著一直想他", "好想哭，覺得很孤單"],
    "mouthpiece": ["室友偷吃我的東西", "老闆要我免費加班", "他已讀不回還發限動", "同事搶我功勞", "朋友借錢不還"],
}


@pytest.mark.parametrize(
    ("text", "persona"),
    [("我好像失戀了", "mentor"), ("Transformer", "assistant"), ("主管又甩鍋給我", "mouthpiece")],
)
def test_example_questions_are_enough_to_route(personas: Personas, text: str, persona: str) -> None:
    route = Router(personas).route(text)
    assert (route.persona, route.means) == (persona, "classifier")
    assert route.sure > 1 / 3
    assert sum(route.scores.values()) == pytest.approx(1)


def test_a_tag_in_front_decides(personas: Personas) -> None:
    for tag in ("[極品感情嘴替]", "【極品感情嘴替】", "[人格:感情嘴替] "):
        route = Router(personas).route(f"{tag}什麼是 Transformer")
        assert (route.persona, route.means, route.sure) == ("mouthpiece", "tag", 1.0)


def test_the_classifier_learns_each_question_once_and_explains(personas: Personas) -> None:
    classifier = train_classifier({name: [*texts, texts[0]] for name, texts in QUESTIONS.items()})
    assert classifier is not None
    assert classifier.rows == 15
    assert classifier.voices == ("assistant", "mentor", "mouthpiece")
    router = Router(personas, classifier)
    for text, persona in (
        ("詞向量怎麼用", "assistant"),
        ("想他想到睡不著", "mentor"),
        ("室友借東西不還", "mouthpiece"),
    ):
        route = router.route(text)
        assert route.persona == persona
        assert route.means == "classifier"
        assert set(route.why) <= set(example_questions(personas)[persona])


def test_a_route_names_the_example_questions_that_it_is_like(personas: Personas) -> None:
    router = Router(personas)
    assert router.route("遠距離好累，天天都在想她").why[0] == "遠距離好累，每天都在想他"
    assert router.route("zzz").why == ()


def test_a_long_question_teaches_its_first_sentence_too() -> None:
    assert first_sentence("  室友偷吃我的布丁！他還說是貓。\n真的傻眼") == "室友偷吃我的布丁！"
    assert first_sentence("標題沒有標點\n內文") == "標題沒有標點"
    longer = {"mentor": ["分手了。我好難過"], "mouthpiece": ["老闆很扯。加班沒錢"]}
    classifier = train_classifier(longer)
    assert classifier is not None
    assert classifier.rows == 4


def test_one_voice_needs_no_classifier() -> None:
    assert train_classifier({"mentor": ["分手了"], "assistant": []}) is None
    assert train_classifier({}) is None


def test_the_pool_gives_its_train_half_and_the_mix_its_questions(personas: Personas, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "分手了"}, {"role": "assistant", "content": "抱抱"}]
    rows = [("a", "mentor", turns), ("b", "mentor", turns[:1]), ("c", "general", turns)]
    pool = pl.DataFrame(rows, schema={"pair_id": pl.String, "persona": pl.String, "messages": MESSAGES}, orient="row")
    split = pl.DataFrame({"pair_id": ["a", "b", "c"], "split": ["train", "test", "train"]})
    own = example_questions(personas)
    assert questions_of_pool(pool, split, personas) == own | {"mentor": [*own["mentor"], "分手了"]}
    row = {"persona": "mentor", "messages": turns}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert questions_of_mix(tmp_path, personas)["mentor"] == [*own["mentor"], "分手了"]
