"""The page that says what is in a corpus: its counts are those of the rows, and nothing in it breaks out of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl

from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.data_card import card_name, funnel_of, write_data_card
from persona_dagster.corpus.funnel import Funnel


def test_the_card_counts_rows_by_board_length_and_year(frame_of, tmp_path):
    frame = frame_of([""] * 12).with_columns(
        text=pl.Series(["字" * n for n in range(12)]),
        created_at=pl.Series([datetime(2019 + n % 3, 1, 1, tzinfo=UTC) for n in range(12)]),
        lang=pl.lit("zh-Hant"),
    )
    numbers = json.loads((write_data_card(frame, Funnel(), None, tmp_path) / "data_card.json").read_text("utf-8"))
    assert numbers["boards"] == [
        {"source": "ptt", "board": "Boy-Girl", "rows": 12, "usable": 11, "copies": 0, "personal_data": 0, "tokens": 53}
    ]
    assert numbers["lengths"] == [["0-5", 5], ["5-10", 5], ["10-20", 1]]
    assert numbers["years"] == [["2019", 4], ["2020", 4], ["2021", 4]]


def test_examples_are_escaped_and_unlisted_boards_stand_on_it(frame_of, tmp_path):
    funnel = Funnel(rows_in=1, rows_out=1)
    funnel.trace.note("links", pl.Series(["<script>alert(1)</script>`|"]), pl.Series(["`"]))
    funnel.unknown_labels["<b>C_Chat</b>"] += 1
    write_data_card(frame_of(["好"]), funnel, None, tmp_path)
    page = (tmp_path / "data_card.html").read_text("utf-8")
    assert "<script>" not in page and "<b>C_Chat" not in page and "&lt;b&gt;C_Chat" in page
    assert "`<script>alert(1)</script>ˋ¦` → `ˋ`" in (tmp_path / "data_card.md").read_text("utf-8")


def test_the_card_of_the_whole_corpus_adds_up_those_of_its_boards(frame_of, sources, tmp_path):
    cleaned = {}
    for board in ("Boy-Girl", "Hate"):
        texts = ["看 https://x.tw/a 這個連結喔", "打給我 0912345678 好嗎", f"{board} 的一句話 https://x.tw"]
        cleaned[board] = clean_posts(frame_of(texts, board=board), "ptt", sources)
        write_data_card(cleaned[board].frame, cleaned[board].funnel, None, tmp_path / card_name("ptt", [board]))
    whole = pl.concat([part.frame for part in cleaned.values()])
    funnel = funnel_of(whole, tmp_path)
    assert funnel.trace.rules["links"].rows == 4
    assert len(funnel.trace.rules["links"].examples) == 4
    assert funnel.rows_in == 6
    numbers = json.loads(
        (write_data_card(whole, funnel, None, tmp_path / "posts") / "data_card.json").read_text("utf-8")
    )
    assert numbers["personal_data"] == [["PHONE", 2, 2]]
    assert {board["board"]: board["personal_data"] for board in numbers["boards"]} == {"Boy-Girl": 1, "Hate": 1}
    assert "links" in (tmp_path / "posts" / "data_card.html").read_text("utf-8")
