"""Labels in whatever spelling come out in one, and a label that nobody knows is not guessed."""

from __future__ import annotations

import polars as pl
import pytest

from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.canonical_names import standardise_boards, standardise_label
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.intake.schema import standardise_source


@pytest.mark.parametrize(
    "spelt", ["[人格:NLP助教]", "【NLP 技術助教】", "NLP助教", "［ＮＬＰ　技術助教］", "nlp_技術助教"]
)
def test_a_persona_has_one_tag(spelt, tmp_path):
    personas = load_personas(tmp_path).personas
    assert standardise_label(spelt, personas) == "[NLP 技術助教]"
    assert standardise_label("[寫詩機]", personas) is None


def test_texts_that_begin_with_a_label_begin_with_the_tag(frame_of, sources, tmp_path):
    personas = load_personas(tmp_path).personas
    texts = [
        "[人格:NLP助教] 什麼是梯度",
        "【感性感情導師】別難過",
        "[人格:寫詩機] 明月",
        "[閒聊] 今天好冷",
        "一般的一句話",
    ]
    cleaned = clean_posts(frame_of(texts, source="notes"), "notes", sources, personas=personas)
    assert cleaned.frame["text"].to_list() == ["[NLP 技術助教] 什麼是梯度", "[感性感情導師]別難過", *texts[2:]]
    assert cleaned.funnel.unknown_labels == {"人格:寫詩機": 1}
    again = clean_posts(cleaned.frame.with_columns(text_raw="text"), "notes", sources, personas=personas).frame
    assert again["text"].equals(cleaned.frame["text"])


def test_sources_and_boards():
    assert [standardise_source(name) for name in ("PTT", "www.dcard.tw ", "Ｔhreads", "plurk")] == [
        *("ptt", "dcard", "threads"),
        None,
    ]


def test_boards_are_spelt_as_listed_and_the_others_are_counted():
    boards = pl.Series("board", ["ｂoy-girl ", "Boy-Girl", None, "Ｃ_Chat", "C_Chat", "BOY-GIRL"])
    spelt, unlisted = standardise_boards(boards, ("Boy-Girl", "Hate"))
    assert spelt.to_list() == ["Boy-Girl", "Boy-Girl", None, "C_Chat", "C_Chat", "Boy-Girl"]
    assert unlisted == {"C_Chat": 2}
    nothing, nobody = standardise_boards(boards.clear(), ())
    assert (len(nothing), nobody) == (0, {})
