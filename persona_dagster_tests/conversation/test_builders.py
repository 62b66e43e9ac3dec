"""Who answers whom: one small thread a site, and what may not become a dialogue."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import yaml

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.conversation.builders import build_dialogues, persona_yield
from persona_dagster_tests.conversation.made import START, Words, post, posts

WARM = "抱抱你，真的辛苦了，慢慢來，也許先好好睡一覺，難過的情緒會過去的。"
SHARP = "笑死，這種人到底憑什麼啊？快逃，下一位！"


def persona(*feeds: dict[str, object], **fields: object) -> dict[str, object]:
    return {
        "tag": "[測試人格]",
        "title": "test",
        "system_prompt": "你是測試人格。",
        "feeds": list(feeds),
        "examples": [["測試？", "測試"]] * 5,
        "questions": ["測試？"],
        "probes": ["測試？"],
        "color": "#123456",
        **fields,
    }


def one(*feeds: dict[str, object], **fields: object) -> Personas:
    return Personas.model_validate({"personas": {"tester": persona(*feeds, **fields)}})


def said(frame: pl.DataFrame, column: str = "messages") -> list[tuple[str, ...]]:
    return sorted(tuple(turn["content"] for turn in messages) for messages in frame[column].to_list())


def test_re_articles_answer_what_they_quote_else_the_original() -> None:
    frame = posts(
        post("ptt", "Hate", "M.1", "同事又把鍋甩給我，好煩。", title="[抱怨] 甩鍋"),
        post("ptt", "Hate", "M.2", "這就是有病，離職吧。", title="Re: [抱怨] 甩鍋", day=1, quoted="同事又把鍋甩給我"),
        post("ptt", "Hate", "M.3", "蒐證然後往上報就好。", title="Re: [抱怨] 甩鍋", day=2),
        post("ptt", "Hate", "M.4", "這篇回的是很久以前的同名文章。", title="Re: [抱怨] 甩鍋", day=400),
        post("ptt", "Hate", "M.5", "原文不在的回文沒有問題可答。", title="Re: [抱怨] 不存在", day=2),
    )
    built = build_dialogues(
        frame, one({"builder": "re_article", "sources": ["ptt"], "answer_chars": [4, 100]}), Words()
    )
    assert said(built.frame) == [
        ("同事又把鍋甩給我", "這就是有病，離職吧。"),
        ("甩鍋\n同事又把鍋甩給我，好煩。", "蒐證然後往上報就好。"),
    ]
    assert set(built.frame["thread_id"]) == {"ptt:Hate:M.1"}
    by_answer = {docs[-1]: docs for docs in built.frame["doc_ids"].to_list()}
    assert by_answer["ptt:Hate:M.3"] == ["ptt:Hate:M.1", "ptt:Hate:M.3"]


def thread() -> pl.DataFrame:
    comment = {"kind": "comment", "parent_id": "1", "thread_id": "1"}
    return posts(
        post("dcard", "mood", "1", "分手三個月還是放不下", title="好難過", author_key="a"),
        post("dcard", "mood", "c1", WARM, **comment, score=30, author_key="b"),
        post("dcard", "mood", "c2", "辛苦了，" + WARM, **comment, score=50, author_key="c"),
        post("dcard", "mood", "c3", "陪你，" + WARM, **comment, score=5),
        post("dcard", "mood", "c4", "推", **comment, score=99),
        post("dcard", "mood", "c5", WARM + "但沒人按讚", **comment, score=0),
    )


def test_the_best_liked_comments_answer_up_to_a_cap() -> None:
    feed = {"builder": "top_comments", "sources": ["dcard"], "min_score": 3, "per_question": 2}
    built = build_dialogues(thread(), one(feed), Words())
    question = "好難過\n分手三個月還是放不下"
    assert said(built.frame) == sorted([(question, WARM), (question, "辛苦了，" + WARM)])
    assert built.report.feeds.select("candidates", "of_length", "liked", "in_voice", "kept").row(0) == (4, 4, 3, 3, 2)
    assert "| tester | top_comments |" in built.report.markdown()
    assert built.frame["urls"].to_list()[0][0].endswith("/mood/1")


def test_threads_replies_by_others_answer() -> None:
    reply = {"kind": "reply", "parent_id": "t1", "thread_id": "t1"}
    frame = posts(
        post("threads", "失戀", "t1", "曖昧對象已讀不回三天", author_key="me"),
        post("threads", "失戀", "t2", SHARP, **reply, author_key="you"),
        post("threads", "失戀", "t3", "補充一下，他還按我限動讚。", **reply, author_key="me"),
    )
    built = build_dialogues(frame, one({"builder": "thread_replies", "sources": ["threads"]}), Words())
    assert said(built.frame) == [("曖昧對象已讀不回三天", SHARP)]


def test_notes_are_asked_for_in_words() -> None:
    frame = posts(
        post("notes", "nlp", "a", "注意力讓每個詞看見其他詞。", title="注意力機制"),
        post("notes", "nlp", "b", "因為只訓練低秩矩陣。", title="微調 › LoRA 為什麼省記憶體？"),
        post("notes", "nlp", "c", "訓練快，權重小。", title="8 微調 › 8.2 LoRA › 優點："),
    )
    built = build_dialogues(frame, one({"builder": "qa_notes", "sources": ["notes"]}), Words())
    asked = {answer: question for question, answer in said(built.frame)}
    assert asked["因為只訓練低秩矩陣。"] == "LoRA 為什麼省記憶體？"
    assert "微調 › LoRA › 優點" in asked["訓練快，權重小。"]
    assert "注意力機制" in asked["注意力讓每個詞看見其他詞。"] != "注意力機制"


def test_one_pair_goes_to_the_persona_whose_voice_it_has() -> None:
    feed = {"builder": "top_comments", "sources": ["dcard"]}
    warm, sharp = persona(feed), persona(feed, tag="[另一人格]")
    frame = posts(
        post("dcard", "mood", "1", "他又已讀不回", title="好煩"),
        post("dcard", "mood", "c1", WARM, kind="comment", parent_id="1", thread_id="1"),
        post("dcard", "mood", "c2", SHARP, kind="comment", parent_id="1", thread_id="1"),
        post("dcard", "mood", "c3", "昨天去吃飯所以沒看到訊息", kind="comment", parent_id="1", thread_id="1"),
    )
    built = build_dialogues(
        frame,
        Personas.model_validate({"personas": {"warm": warm, "sharp": sharp}}),
        Words(warm="抱抱|辛苦", sharp="笑死"),
    )
    chosen = {m[-1]["content"]: name for m, name in built.frame.select("messages", "persona").iter_rows()}
    assert chosen == {WARM: "warm", SHARP: "sharp"}


def test_where_the_source_is_the_voice_no_encoder_reads() -> None:
    frame = posts(post("notes", "nlp", "a", "注意力讓每個詞看見其他詞。", title="注意力機制"))
    deaf = Words(tester="not in the answer")
    sure = {"builder": "qa_notes", "sources": ["notes"], "hint": 4}
    assert build_dialogues(frame, one(sure), deaf).frame.height == 1
    assert build_dialogues(frame, one(sure | {"hint": 1}), deaf).frame.is_empty()


def test_duplicates_follow_the_twin_and_unusable_rows_stay_silent() -> None:
    comment = {"kind": "comment", "thread_id": "2", "parent_id": "2"}
    frame = posts(
        post("dcard", "mood", "1", "分手三個月還是放不下", title="好難過"),
        post("dcard", "mood", "2", "分手三個月還是放不下！", title="好難過", dup_of="dcard:mood:1"),
        post("dcard", "mood", "c1", WARM, **comment),
        post("dcard", "mood", "c2", "這是廣告，加我的 LINE 領好康喔", **comment, flags=["template"]),
    )
    feed = one({"builder": "top_comments", "sources": ["dcard"]})
    spoken = ~pl.col("flags").list.contains("template") & pl.col("dup_of").is_null()
    built = build_dialogues(frame, feed, Words(), usable=spoken)
    assert built.frame["doc_ids"].to_list() == [["dcard:mood:1", "dcard:mood:c1"]]
    assert built.frame["thread_id"].to_list() == ["dcard:mood:1"]


def test_names_follow_from_the_posts_and_not_from_their_words() -> None:
    feed = one({"builder": "top_comments", "sources": ["dcard"]})
    before = build_dialogues(thread(), feed, Words()).frame
    edited = thread().with_columns(
        text=pl.col("text") + "（編輯）", created_at=pl.col("created_at") + timedelta(days=1)
    )
    after = build_dialogues(edited.sample(fraction=1, shuffle=True, seed=3), feed, Words()).frame
    assert before["pair_id"].to_list() == after["pair_id"].to_list()
    assert before["messages"].to_list() != after["messages"].to_list()
    assert START.year == 2026


def test_a_fourth_persona_needs_one_file(tmp_path: Path) -> None:
    """One file beside the packaged ones, under the operator's config folder: no code knows the persona."""
    value = persona(
        {"builder": "top_comments", "sources": ["dcard"], "boards": ["food"]},
        tag="[深夜廚房主廚]",
    )
    (tmp_path / "personas").mkdir()
    (tmp_path / "personas" / "chef.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    frame = posts(
        post("dcard", "food", "1", "滷肉怎麼滷才入味？", title="求救"),
        post("dcard", "food", "c1", "先炒糖色，再加醬油，小火滷一小時。", kind="comment", parent_id="1"),
        post("dcard", "food", "c2", "巷口那家比較好吃啦別滷了。", kind="comment", parent_id="1"),
    )
    four = load_personas(tmp_path)
    built = build_dialogues(frame, four, Words(assistant="？？", mentor="？？", mouthpiece="？？", chef="小火|鹽|醬油"))
    assert built.frame["persona"].to_list() == ["chef"]
    table = persona_yield(built.frame, four)
    assert dict(table.select("persona", "dialogues").iter_rows()) == {
        "assistant": 0,
        "mentor": 0,
        "mouthpiece": 0,
        "chef": 1,
    }
    assert set(table["verdict"]) == {"too few"}


def test_an_empty_corpus_gives_an_empty_frame() -> None:
    built = build_dialogues(posts(), load_personas(PACKAGED), Words())
    assert built.frame.is_empty() and built.report.feeds["kept"].sum() == 0
