"""Dcard's and Threads' payloads, of the replica and of the real sites."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.intake.inspect_saved_page import parse_file
from persona_dagster.records import Outcome
from persona_dagster.sites.dcard.payloads import parse_dcard
from persona_dagster.sites.threads.payloads import code_of, parse_threads

POST = {
    "id": 1, "title": "題", "excerpt": "短", "content": "內文", "createdAt": "2026-09-01T00:00:00.000Z",
    "updatedAt": "2026-09-01T00:00:00.000Z", "commentCount": 2, "likeCount": 3, "forumAlias": "mood",
}  # fmt: skip
COMMENT = {
    "id": 2, "postId": 1, "createdAt": "2026-09-01T01:12:00.000Z", "floor": 1, "content": "嗨", "likeCount": 4,
    "hidden": False, "gender": "F",
}  # fmt: skip


def dcard(value: object):
    return parse_dcard(orjson.dumps(value), board="mood", author_key=lambda author: f"key of {author}")


def test_dcard_rows() -> None:
    parsed = dcard([{**POST, "withNickname": True, "department": "nick.name"}, COMMENT])
    post, comment = parsed.posts
    assert (post.post_id, post.text_raw, post.score, post.author_key) == ("1", "內文", 3, "key of @nick.name")
    assert (comment.text_raw, comment.parent_id, comment.thread_id) == ("B1 嗨 9月1日 09:12", "1", "1")
    assert comment.author_key is None, "a lone school names nobody"


def test_a_hidden_comment_keeps_its_floor() -> None:
    hidden = {key: value for key, value in COMMENT.items() if key not in ("content", "likeCount", "gender")}
    parsed = dcard([COMMENT, {**hidden, "id": 3, "floor": 3, "hidden": True}])
    assert parsed.posts[1].flags == ["hidden"]
    assert parsed.posts[1].text_raw == ""
    assert "floor_gaps" in parsed.flags
    assert not parsed.complete


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ([], Outcome.EMPTY_OR_FILTERED),
        ({"widgets": [], "nextKey": None}, Outcome.EMPTY_OR_FILTERED),
        ([{key: value for key, value in POST.items() if key != "content"}], Outcome.OK),
        ([{key: value for key, value in POST.items() if key != "createdAt"}], Outcome.PARSE_INCOMPLETE),
        ([{**POST, "createdAt": "yesterday"}], Outcome.PARSE_INCOMPLETE),
        ([POST, POST], Outcome.PARSE_INCOMPLETE),
        ([{**COMMENT, "content": None, "likeCount": "4"}], Outcome.PARSE_INCOMPLETE),
        ({"message": "error"}, Outcome.PARSE_INCOMPLETE),
        (7, Outcome.PARSE_INCOMPLETE),
    ],
)
def test_dcard_outcomes(value: object, outcome: Outcome) -> None:
    assert dcard(value).outcome is outcome


def test_an_excerpt_is_never_a_text() -> None:
    parsed = dcard([{key: value for key, value in POST.items() if key != "content"}])
    assert parsed.posts == []
    assert parsed.flags == ["listed"]


def test_a_key_named_twice_is_a_splice() -> None:
    assert parse_dcard(b'[{"id": 1, "id": 2}]', board="x", author_key=str).outcome is Outcome.PARSE_INCOMPLETE


@pytest.mark.parametrize("depth", [100, 5_000, 200_000])
def test_deep_nesting_is_a_typed_outcome(depth: int) -> None:
    for body in (b"[" * depth, b"[" * depth + b"]" * depth, b'{"items":' * depth + b"[]" + b"}" * depth):
        assert not parse_dcard(body, board="x", author_key=str).usable
        assert not parse_threads(body, board="x", author_key=str).usable


def test_threads_codes_are_numbers() -> None:
    assert code_of("3877274894497645456") == "DXO2PlPEoOQ"


def test_the_sample_gives_dialogue(scraped: Archive) -> None:
    posts = parse_board(scraped.latest("threads", "失戀"), str).posts
    roots = {post.post_id for post in posts if post.kind == "post"}
    replies = [post for post in posts if post.kind == "reply"]
    assert roots and replies
    assert all(reply.thread_id in roots and reply.parent_id for reply in replies)
    posts = parse_board(scraped.latest("dcard", "mood"), str).posts
    assert {post.kind for post in posts} >= {"post", "comment"}
    assert len({(post.board, post.post_id) for post in posts}) == len(posts)


def test_every_real_payload(shared_data: Path) -> None:
    pages = shared_data / "pages"
    found = {path.name: parse_file(path) for site in ("dcard", "threads") for path in sorted(pages.glob(f"{site}/*/*"))}
    assert len(found) == 11
    assert {row["outcome"] for row in found.values()} == {"ok"}, [row["why"] for row in found.values()]
    assert found["leVirve_posts.json"]["posts"] == 30
    assert found["leVirve_posts.json"]["comments"] == 70
    threads = found["vfil_threads_post_zuck_DPCXhCwkqEe.html"]
    assert (threads["posts"], threads["comments"]) == (1, 20), "five strangers' related posts are left out"
    assert found["azuma_relay_kanisleo_DXO2PlPEoOQ.json"]["comments"] == 11
