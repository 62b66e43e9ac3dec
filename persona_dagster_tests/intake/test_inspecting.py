"""`persona parse` on what operators hand in: listings, refusals, and pages as browsers and archives keep them."""

from __future__ import annotations

import gzip
import quopri
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.intake.inspect_saved_page import parse_file
from persona_dagster.sample.faults import Rule as Fault
from persona_dagster.sample.faults import answer, please_wait
from persona_dagster.sample.http_messages import Response
from persona_dagster.sample.ptt_pages import gate_page

Look = Callable[[str, bytes], dict[str, Any]]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def parse(name: str, body: bytes) -> dict[str, Any]:
        (tmp_path / name).write_bytes(body)
        found = parse_file(tmp_path / name)
        assert orjson.loads(orjson.dumps(found))["file"].endswith(name), "it prints as JSON"
        return found

    return parse


def mhtml(page: bytes) -> bytes:
    head = b"From: <Saved by Blink>\r\nSubject: =?utf-8?Q?x?=\r\nMIME-Version: 1.0\r\n"
    head += b'Content-Type: multipart/related;\r\n\ttype="text/html";\r\n\tboundary="--b--"\r\n\r\n'
    part = b"----b--\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head + part + quopri.encodestring(page).replace(b"\n", b"\r\n") + b"\r\n----b----\r\n"


def har(page: bytes) -> bytes:
    def entry(url: str, kind: str, text: str) -> dict[str, Any]:
        return {"request": {"url": url}, "response": {"content": {"mimeType": kind, "text": text}}}

    entries = [
        entry("https://www.ptt.cc/bbs/Boy-Girl/x.html", "text/html", page.decode("utf-8", "replace")),
        entry("https://cdn.example/x.js", "text/javascript", "1"),
        {"request": {}},
    ]
    return orjson.dumps({"log": {"entries": entries}})


def stored(archive: Archive, source: str, board: str, kind: str) -> bytes:
    return next(one.body for one in archive.latest(source, board) if one.kind == kind)  # type: ignore[arg-type]


def test_rows_of_listings(look: Look, scraped: Archive) -> None:
    found = look("index.html", stored(scraped, "ptt", "Boy-Girl", "listing"))
    assert (found["source"], found["kind"], found["outcome"]) == ("ptt", "listing", "ok")
    assert found["posts"] == 0, "a listing names posts and holds none"
    assert not found["complete"]
    row = found["listed"][0]
    assert set(row) == {"post_id", "title", "date", "pushes", "mark", "flags"}
    assert row["post_id"].startswith("M.") and row["title"]
    found = look("list.json", stored(scraped, "dcard", "mood", "list"))
    assert (found["source"], found["kind"], len(found["listed"])) == ("dcard", "list", 15)
    assert set(found["listed"][0]) == {"post_id", "board", "title", "excerpt", "created_at", "comments", "score"}


def test_every_real_listing(look: Look, shared_data: Path) -> None:
    rows = [row for path in (shared_data / "pages/ptt_html/index").iterdir() for row in parse_file(path)["listed"]]
    assert len(rows) == 451
    assert sum("deleted" in row["flags"] for row in rows) == 14
    assert all(row["title"] and row["date"] for row in rows)
    assert all((row["post_id"] is None) == ("deleted" in row["flags"]) for row in rows)
    boards = [
        row["board"] for path in (shared_data / "pages/ptt_html/boards").iterdir() for row in parse_file(path)["listed"]
    ]
    assert len(boards) > 100 and all(boards)


@pytest.mark.parametrize(
    ("keep", "name"),
    [
        (lambda page: page.replace(b"\n", b"\r\n"), "windows.html"),
        (lambda page: b"\xef\xbb\xbf" + page, "bom.html"),
        (lambda page: page.decode().encode("utf-16"), "notepad.html"),
        (gzip.compress, "page.html.gz"),
        (lambda page: page + b"\n<!--\n FILE ARCHIVED ON 01:02:03 -->\n<!-- playback timings -->\n", "wayback.html"),
        (lambda page: b"<!-- saved from url=(0041)https://www.ptt.cc/bbs/x.html -->\n" + page, "saved.html"),
        (mhtml, "page.mhtml"),
        (har, "recording.har"),
    ],
)
def test_a_page_however_it_was_kept(look: Look, scraped: Archive, keep: Callable[[bytes], bytes], name: str) -> None:
    served = stored(scraped, "ptt", "Boy-Girl", "article")
    plain, kept = look("plain.html", served), look(name, keep(served))
    assert plain["complete"]
    assert kept["complete"], kept["why"]
    same = ("kind", "title", "text_raw", "floor", "created_at")
    assert [[row[key] for key in same] for row in kept["rows"]] == [[row[key] for key in same] for row in plain["rows"]]
    cut = look(f"cut-{name}", keep(served[: len(served) // 2]))
    assert not cut["complete"], "a page that was cut first is damaged in any wrapping"
    assert cut["outcome"] != "ok"


def of(response: Response | None) -> bytes:
    assert response is not None
    return response.body


@pytest.mark.parametrize(
    ("name", "body", "source", "outcome"),
    [
        ("over18.html", gate_page("/bbs/x").encode(), "ptt", "gate"),
        ("challenge.html", of(answer(Fault("challenge"))), None, "challenge"),
        ("404.html", of(answer(Fault("404"))), "ptt", "gone"),
        ("410.html", of(answer(Fault("410"))), "ptt", "gone"),
        ("429.html", of(answer(Fault("429"))), "ptt", "rate_limited"),
        ("500.html", of(answer(Fault("500"))), "ptt", "server_busy"),
        ("503.html", of(answer(Fault("503"))), "ptt", "server_busy"),
        ("502.html", b"<title>502 Bad Gateway</title>nginx", None, "server_busy"),
        ("522.html", b"<title>www.ptt.cc | 522: Connection timed out</title>", "ptt", "server_busy"),
        ("1020.html", b"<title>Access denied | www.dcard.tw used Cloudflare</title>", "dcard", "blocked"),
        ("login.html", "<!DOCTYPE html><title>Threads • Log in</title></html>".encode(), "threads", "login_wall"),
        ("wait.json", please_wait().body, "threads", "login_wall"),
        ("token.json", b'{"error":{"message":"Session expired","code":190}}', "threads", "login_wall"),
        ("limit.json", b'{"error":{"message":"limit reached","code":4}}', "threads", "rate_limited"),
        ("nothing.json", b'{"data":[]}', "threads", "empty_or_filtered"),
        ("gone.json", b'{"error":404,"message":"Not Found"}', "dcard", "gone"),
        ("often.json", b'{"statusCode":429,"message":"Too Many Requests"}', "dcard", "rate_limited"),
        ("ban.json", b'{"widgets":[],"nextKey":null}', None, "empty_or_filtered"),
        ("empty.html", b"", None, "truncated"),
        ("noise.bin", bytes(range(256)), None, "parse_incomplete"),
        ("other.html", b"<html><body>hello</body></html>", None, "parse_incomplete"),
        ("cut.json", b'[{"forumAlias":"mood","id":1,', "dcard", "parse_incomplete"),
    ],
)  # fmt: skip
def test_what_stands_in_a_pages_place(look: Look, name: str, body: bytes, source: str | None, outcome: str) -> None:
    found = look(name, body)
    assert (found["source"], found["outcome"]) == (source, outcome), found["why"]
    assert found["why"]
    assert not found["complete"]
    assert found["rows"] == []


def test_a_missing_file_is_a_line_too(tmp_path: Path) -> None:
    found = parse_file(tmp_path / "none.html")
    assert (found["kind"], found["outcome"]) == ("unreadable", "truncated")


def test_ptts_own_feeds_and_polls(look: Look) -> None:
    address = "https://www.ptt.cc/bbs/Hate/M.1583567480.A.C6D.html"
    feed = f'<?xml version="1.0"?>\n<feed><entry><title>[x] y</title><link href="{address}"/></entry></feed>'
    found = look("Hate.xml", feed.encode())
    assert (found["kind"], found["listed"]) == (
        "feed",
        [{"post_id": "M.1583567480.A.C6D", "board": "Hate", "title": "[x] y"}],
    )
    assert look("cut.xml", feed[:-8].encode())["outcome"] == "parse_incomplete"
    push = (
        '<div class="push"><span class="hl push-tag">推 </span><span class="f3 hl push-userid">reader22</span>'
        '<span class="f3 push-content">: 好</span><span class="push-ipdatetime"> 03/07 16:00\n</span></div>'
    )
    poll = {"success": True, "contentHtml": push, "pollUrl": "/poll/Hate/M.1583567480.A.C6D.html?offset=2"}
    found = look("poll.json", orjson.dumps(poll))
    assert (found["kind"], found["posts"], found["comments"]) == ("poll", 0, 1)
    assert found["rows"][0]["created_at"].year == 2020
    assert not found["complete"], "the pushes before them are not in it"
