"""Who answers whom, with faults planted: wrong floors, circles, deleted parents, crowds, vitamins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_dagster.conversation.builders import build_dialogues
from persona_dagster.conversation.graph import reply_graph
from persona_dagster.records import Post, posts_frame
from persona_dagster.sites.threads.payloads import page_payloads, posts_from_payloads
from persona_dagster_tests.conversation.made import Words, post, posts
from persona_dagster_tests.conversation.test_builders import one


def comment(floor: int, text: str, **fields: object) -> Post:
    base = {"kind": "comment", "parent_id": "1", "thread_id": "1", "floor": floor}
    return post("dcard", "mood", f"c{floor}", text, text_raw=f"B{floor} {text} 11月2日 09:12", **base | fields)


def edges(*rows: Post) -> dict[str, tuple[str | None, str]]:
    """By post id of the child: the parent's, and the evidence."""
    found = reply_graph(posts(*rows)).filter(pl.col("rank") == 1)
    return {
        row["doc_id"].split(":")[-1]: ((row["parent_doc"] or "").split(":")[-1] or None, row["evidence"])
        for row in found.iter_rows(named=True)
    }


ROOT = post("dcard", "mood", "1", "分手三個月還是放不下", title="好難過", author_key="host")


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        ("B2 你說得對", "c2"),
        ("b2\n你說得對", "c2"),
        ("你說得對 B2", "c2"),
        ("Ｂ２ 你說得對", "c2"),
        ("#2 你說得對", "c2"),
        ("回2樓 你說得對", "c2"),
        ("B2 B1 你們都對", "c2"),
        ("B0 加油", "1"),
        ("樓上說得對", "c3"),
        ("原po加油，慢慢來", "1"),
        ("我在3樓上課，電梯要等很久", "1"),  # a building's floor, in running text
        ("B9 那是以後的樓", "1"),  # a floor that comes after this one
        ("每天吃一顆 B12 有幫助", "1"),
        ("B2 維他命要飯後吃", "1"),
        ("30度2樓熱死了啦真的", "1"),
    ],
)
def test_floors_are_answered_where_they_are_addressed(text: str, parent: str) -> None:
    others = [comment(number, f"第{number}個人說話") for number in (1, 2, 3)]
    assert edges(ROOT, *others, comment(4, text))["c4"][0] == parent


def test_further_floors_and_ranges_are_edges_too() -> None:
    rows = [ROOT, *(comment(number, "有人說話") for number in range(1, 6)), comment(6, "B2~B4 謝謝你們")]
    found = reply_graph(posts(*rows)).filter(doc_id="dcard:mood:c6").sort("rank")
    assert [doc.split(":")[-1] for doc in found["parent_doc"]] == ["c2", "c3", "c4"]


def test_a_deleted_parent_is_named_as_gone_and_makes_no_dialogue() -> None:
    rows = [ROOT, comment(1, "第一個人說話"), comment(4, "B3 你說得太好了，抱抱")]
    assert edges(*rows)["c4"] == (None, "floor_gone")
    built = build_dialogues(posts(*rows), one({"builder": "top_comments", "sources": ["dcard"]}), Words())
    assert not any("dcard:mood:c4" in docs for docs in built.frame["doc_ids"].to_list())


def test_rows_that_name_each_other_in_a_circle_answer_nobody() -> None:
    ring = [
        post("threads", "失戀", name, "繞一圈", kind="reply", parent_id=parent, thread_id="a")
        for name, parent in (("a", "c"), ("b", "a"), ("c", "b"))
    ]
    tail = post("threads", "失戀", "d", "我接在圈上", kind="reply", parent_id="a", thread_id="a")
    found = edges(*ring, tail)
    assert {found[name] for name in "abc"} == {(None, "circle")}
    assert found["d"] == ("a", "site")


def test_a_crowd_under_one_floor_keeps_its_edges_and_the_cap_its_dialogues() -> None:
    crowd = [comment(number, f"B1 第{number}個人抱抱你，慢慢來") for number in range(2, 502)]
    rows = posts(ROOT, comment(1, "我也好難過，怎麼辦"), *crowd)
    found = reply_graph(rows).filter(evidence="floor")
    assert found.height == 500
    assert set(found["parent_doc"]) == {"dcard:mood:c1"}
    built = build_dialogues(rows, one({"builder": "top_comments", "sources": ["dcard"], "per_question": 3}), Words())
    assert sum(docs[0] == "dcard:mood:c1" for docs in built.frame["doc_ids"].to_list()) == 3


def test_the_posters_own_replies_are_turns_and_the_answerer_goes_on() -> None:
    rows = posts(
        ROOT,
        comment(1, "抱抱你，先好好睡一覺", author_key="friend"),
        comment(2, "B1 可是我睡不著，一直想他", author_key="host"),
        comment(3, "B2 那就先把手機放遠一點，抱抱", author_key="friend"),
        comment(4, "B3 謝謝你，我試試看", author_key="host"),
    )
    built = build_dialogues(rows, one({"builder": "top_comments", "sources": ["dcard"]}), Words()).frame
    assert [[turn["content"] for turn in turns] for turns in built["messages"].to_list()] == [
        [
            "好難過\n分手三個月還是放不下",
            "抱抱你，先好好睡一覺",
            "B1 可是我睡不著，一直想他",
            "B2 那就先把手機放遠一點，抱抱",
        ]
    ]
    assert built["doc_ids"].to_list() == [[f"dcard:mood:{name}" for name in ("1", "c1", "c2", "c3")]]


def test_a_row_says_from_which_row_of_which_file_it_came() -> None:
    rows = posts(ROOT, comment(1, "抱抱")).with_columns(snapshot=pl.Series(["s0", "s1"]))
    origins = pl.DataFrame({"snapshot": ["s0", "s1"], "origin": ["dump.jsonl:7", "dump.jsonl:9"]})
    assert reply_graph(rows, origins).select("origin", "parent_origin").row(0) == ("dump.jsonl:9", "dump.jsonl:7")


def test_from_files_and_by_way_of_the_disk_the_edges_are_the_same_and_nothing_is_left_there(tmp_path: Path) -> None:
    rows = posts(*(comment(floor, f"B{floor - 1} 說得對") for floor in range(1, 30)))
    rows.write_parquet(tmp_path / "posts.parquet")
    scratch = tmp_path / "cleaned"
    assert reply_graph(pl.scan_parquet(tmp_path / "posts.parquet"), scratch=scratch).equals(reply_graph(rows))
    assert scratch.is_dir() and not list(scratch.iterdir())


def test_replies_of_real_threads_pages_hang_where_their_json_puts_them(shared_data: Path) -> None:
    """By a reading of its own: a reply stands right under the post that it answers, or first under the page's post."""
    right = total = 0
    for path in sorted((shared_data / "pages" / "threads").rglob("*.*")):
        text = path.read_text(encoding="utf-8")
        scripts = re.findall(r"<script type=\"application/json\"[^>]*>(.*?)</script>", text, re.DOTALL) or [text]
        expected: dict[str, str] = {}
        for payload in (json.loads(script) for script in scripts if "thread_items" in script):
            subject, *chains = list(_chains(payload))
            for chain in chains:
                for place, reply in enumerate(chain):
                    if reply["text_post_app_info"].get("is_reply"):
                        expected[reply["code"]] = (chain[place - 1] if place else subject[-1])["code"]
        payloads = page_payloads(text) if text.lstrip().startswith("<") else [json.loads(text)]
        graph = reply_graph(posts_frame(posts_from_payloads(payloads, "threads", str))).filter(pl.col("rank") == 1)
        found = {row["doc_id"].split(":")[-1]: (row["parent_doc"] or "").split(":")[-1] for row in graph.to_dicts()}
        assert len(expected) > 10
        total += len(expected)
        right += sum(found.get(code) == parent for code, parent in expected.items())
    assert right / total >= 0.98, f"{right} of {total}"


def _chains(value: Any) -> Iterator[list[dict[str, Any]]]:
    if isinstance(value, dict):
        if isinstance(value.get("thread_items"), list):
            yield [item["post"] for item in value["thread_items"]]
        for child in value.values():
            yield from _chains(child)
    elif isinstance(value, list):
        for child in value:
            yield from _chains(child)


THREADS = Path(__file__).parent / "threads_with_parents.jsonl"
WRITTEN = [json.loads(line) for line in THREADS.read_bytes().splitlines()]


def turns_of(source: str, *, said: bool) -> list[list[str]]:
    """Ids of the rows in each dialogue of several turns made of the written threads. `said`: whether the site says
    which row is answered, as Threads does; PTT says the post only."""
    first = {row["thread"]: row["id"] for row in WRITTEN if row["parent"] is None}
    rows = []
    for place, row in enumerate(WRITTEN):
        named: dict[str, Any] = {"author_key": row["author"], "title": row.get("title")}
        named["thread_id"] = first[row["thread"]]
        if row["parent"]:
            kind, parent = ("reply", row["parent"]) if said else ("comment", first[row["thread"]])
            named |= {"kind": kind, "parent_id": parent, "floor": None if said else place}
        rows.append(post(source, "x", row["id"], row["text"], **named))
    feed = {"builder": "thread_replies" if said else "top_comments", "sources": [source], "per_question": 9}
    built = build_dialogues(posts(*rows), one(feed | {"answer_chars": [1, 400]}), Words()).frame
    docs = built.filter(pl.col("messages").list.len() > 2)["doc_ids"].to_list()
    return [[doc.split(":")[-1] for doc in one_of_them] for one_of_them in docs]


def test_turns_follow_who_answered_whom_where_the_site_says_it() -> None:
    """60 threads by somebody who had not seen the code, with the parent of each row as a reader of the page sees it."""
    parent = {row["id"]: row["parent"] for row in WRITTEN}
    dialogues = turns_of("threads", said=True)
    steps = [(before, after) for docs in dialogues for before, after in pairwise(docs)]
    right = sum(parent[after] == before for before, after in steps)
    assert len(dialogues) >= 100 and right / len(steps) >= 0.95, (len(dialogues), right, len(steps))


def test_pushes_without_a_word_on_whom_they_answer_stay_single_pairs() -> None:
    """Who speaks again after the poster answers the poster in four of five turns only (of these threads)."""
    assert turns_of("ptt", said=False) == []
