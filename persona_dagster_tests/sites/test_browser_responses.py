"""One parser for what a reader's browser received: as it passed, out of a HAR, or post by post out of Zeeschuimer."""

from __future__ import annotations

import orjson
import pytest

from persona_dagster.intake.saved_pages_and_har import zeeschuimer_item
from persona_dagster.sample.threads_pages import media, thread
from persona_dagster.sites.browser_responses import SAVED, browsed, capture_of, parse_capture
from persona_dagster_tests.sample.conftest import threads_item

AT = threads_item(1).at
ROOT = media(3877274894497645456, "writer", "一句話", AT, 3)
REPLY = media(3877274894497645460, "other", "回你", AT, 0, answers="writer")
RESULT = {"edges": [{"node": thread([one])} for one in (ROOT, REPLY)], "page_info": {"has_next_page": True}}
ME = {"viewer": {"username": "the.operator", "token": "secret-token"}}
ADDRESS = "https://www.threads.com/@writer/post/DXO2PlPEoOQ?igsh=secret"


def page(value: object) -> bytes:
    script = orjson.dumps(value).decode()
    return f'<!DOCTYPE html><script type="application/json" data-sjs>{script}</script></html>'.encode()


ANSWERS = {
    "page": (ADDRESS, "text/html; charset=utf-8", page({"data": RESULT, **ME})),
    "answer": ("https://www.threads.com/graphql/query", "application/json", orjson.dumps({"data": RESULT, **ME})),
    "answer in lines": (
        "https://www.threads.com/api/graphql",
        "text/javascript; charset=utf-8",
        orjson.dumps({"data": RESULT, **ME}) + b"\n" + orjson.dumps({"label": "more", "data": ME}),
    ),
}


@pytest.mark.parametrize("how", ANSWERS)
def test_posts_are_kept_and_the_reader_is_not(how: str) -> None:
    (kept,) = browsed(*ANSWERS[how])
    assert b"secret" not in kept.body + kept.url.encode() and b"the.operator" not in kept.body
    assert "writer" not in kept.url, "addresses name nobody"
    parsed = parse_capture(capture_of("threads", "import", SAVED, "k", kept.url, kept.body), str)
    assert parsed.usable and "more_replies" in parsed.flags
    root, reply = parsed.posts
    assert (root.post_id, root.author_key, reply.parent_id) == ("DXO2PlPEoOQ", "writer", root.post_id)


def test_zeeschuimers_items_read_the_same() -> None:
    (kept,) = browsed(*ANSWERS["answer"])
    whole = parse_capture(capture_of("threads", "import", SAVED, "k", kept.url, kept.body), str).posts
    for raw, post in zip((ROOT, REPLY), whole, strict=True):
        row = {"source_platform": "threads.net", "source_platform_url": ADDRESS, "item_id": raw["pk"], "data": raw}
        (alone,) = parse_capture(zeeschuimer_item(row), str).posts
        assert (alone.post_id, alone.text_raw, alone.author_key) == (post.post_id, post.text_raw, post.author_key)
        assert alone.parent_id is None, "whom it answers is told by the posts beside it"


@pytest.mark.parametrize(
    ("url", "mime", "body"),
    [
        ("https://elsewhere.example/@writer/post/x", "application/json", ANSWERS["answer"][2]),
        ("https://www.threads.com/graphql/query", "image/png", ANSWERS["answer"][2]),
        ("https://www.threads.com/graphql/query", "application/json", b'{"data": {"viewer": {}}}'),
        ("https://www.threads.com/graphql/query", "application/json", b'{"data": [' * 400),
        ("https://www.dcard.tw/f/mood", "text/html", b"<!DOCTYPE html><html><body></body></html>"),
        ("https://www.ptt.cc/bbs/Hate/index.html", "text/html", b"<!DOCTYPE html><html><body></body></html>"),
        ("not a url", "text/html", b"\xff\xfe"),
    ],
)
def test_what_holds_no_posts_passes_by(url: str, mime: str, body: bytes) -> None:
    assert browsed(url, mime, body) == []


def test_dcards_page_gives_its_post_without_its_scripts() -> None:
    body = (
        '<!DOCTYPE html><html><body><article><h1>題</h1><time datetime="2026-09-01T00:00:00Z"></time><div>內文</div>'
        '</article><script>window.me = "secret-token"</script></body></html>'
    ).encode()
    (kept,) = browsed("https://www.dcard.tw/f/mood/p/230000001?cid=secret", "text/html", body)
    assert b"secret" not in kept.body
    (post,) = parse_capture(capture_of("dcard", "import", SAVED, "k", kept.url, kept.body), str).posts
    assert (post.post_id, post.title, post.text_raw) == ("230000001", "題", "內文")
    assert post.url == "https://www.dcard.tw/f/mood/p/230000001"
