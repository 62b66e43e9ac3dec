"""Every fault that a scenario can ask for, met by a real client on a real socket."""

import gzip
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content
from persona_dagster.sample.faults import FAULTS, Rule, Scenario
from persona_dagster.sample.replica import BESIDE, Replica, serve
from persona_dagster.sites.dcard.pages import listed, post_of
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

PTT, THREADS, DCARD = "https://www.ptt.cc", "https://www.threads.com", "https://www.dcard.tw"
INDEX = "/bbs/Boy-Girl/index.html"
CONTENT = Content(
    {"Boy-Girl": [ptt_item(n, day=n // 3) for n in range(50)]},
    {"mood": [dcard_item(1)]},
    {"失戀": [threads_item(1)]},
)


@contextmanager
def with_fault(*rules: Rule) -> Iterator[tuple[Replica, Callable[..., httpx.Response]]]:
    with serve(CONTENT, Clock(), Scenario(rules)) as replica, httpx.Client(timeout=5) as client:
        yield replica, lambda url=PTT + INDEX: client.get(replica.url(url))


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ("403", 403, "403 - Forbidden."),
        ("404", 404, "404 - Not Found."),
        ("410", 410, "410 - Gone."),
        ("429", 429, "429"),
        ("500", 500, "500 - Internal Server Error / Server Too Busy."),
        ("503", 503, "503"),
        ("challenge", 403, "cf-turnstile"),
    ],
)
def test_error_pages(fault: str, status: int, says: str) -> None:
    with with_fault(Rule(fault)) as (_, get):
        answer = get()
        assert answer.status_code == status and says in answer.text
        assert get().status_code == 200, "the rule was for one request"


@pytest.mark.parametrize("value", ["3", "soon", "-1", None])
def test_retry_after_in_every_form(value: str | None) -> None:
    with with_fault(Rule("429", retry_after=value)) as (_, get):
        assert get().headers.get("retry-after") == value


def test_retry_after_as_a_date() -> None:
    with with_fault(Rule("503", retry_after="+120")) as (_, get):
        until = parsedate_to_datetime(get().headers["retry-after"])
        assert 100 < until.timestamp() - time.time() < 130


def test_a_rule_strikes_the_nth_matching_request_only() -> None:
    with with_fault(Rule("503", match="ptt/bbs/Boy-Girl/index2", nth=2, times=2)) as (replica, get):
        assert [get(f"{PTT}/bbs/Boy-Girl/index{n}.html").status_code for n in (2, 1, 2, 2, 1, 2)] == [
            200, 200, 503, 503, 200, 200,
        ]  # fmt: skip
        assert [fault for fault, _ in replica.scenario.struck] == ["503", "503"]
        assert [asked.status for asked in replica.asked] == [200, 200, 503, 503, 200, 200]


def test_a_rule_for_good_and_its_match() -> None:
    with with_fault(Rule("500", match="ptt/", times=None)) as (_, get):
        assert [get().status_code for _ in range(3)] == [500, 500, 500]
        assert get(f"{THREADS}/search?q=失戀").status_code == 200


def test_the_gate_closes_again() -> None:
    with with_fault(Rule("over18")) as (_, get):
        assert get().headers["location"].startswith("/ask/over18?from=")
        assert get().status_code == 200


def test_the_gate_may_stand_in_a_script_alone() -> None:
    content = Content({"Hate": [ptt_item(1)]}, {}, {})
    rules = Scenario([Rule("over18_script", times=None)])
    with serve(content, Clock(), rules) as replica, httpx.Client() as client:
        answer = client.get(replica.url(PTT + "/bbs/Hate/index.html"))
        assert answer.status_code == 200 and "r-ent" in answer.text
        assert "/ask/over18?from=" in answer.text


def test_pages_shift_between_two_requests() -> None:
    with with_fault(Rule("shift", nth=2)) as (_, get):
        before, after = get(f"{PTT}/bbs/Boy-Girl/index2.html"), get(f"{PTT}/bbs/Boy-Girl/index2.html")
        first, second = ([row.article_id for row in parse_listing(page.content).rows] for page in (before, after))
        assert first[7:] == second[: len(first) - 7], "seven rows expired, so every page begins seven later"


def test_an_empty_list_with_status_200() -> None:
    with with_fault(Rule("empty", times=None)) as (_, get):
        assert get().status_code == 200 and "r-ent" not in get().text
        assert '"edges":[]' in get(f"{THREADS}/search?q=失戀").text


def test_a_huge_article_is_cut_by_the_site() -> None:
    file = parse_listing(httpx_listing()).rows[0].article_id
    with with_fault(Rule("huge")) as (_, get):
        page = get(f"{PTT}/bbs/Boy-Girl/{file}.html").text
        assert "檔案過大！部分文章無法顯示" in page and len(page) > 300_000


def httpx_listing() -> bytes:
    with serve(CONTENT) as replica:
        return httpx.get(replica.url(PTT + INDEX)).content


def test_a_log_in_wall() -> None:
    with with_fault(Rule("login_wall", times=None)) as (replica, get):
        assert get(f"{THREADS}/search?q=失戀").headers["location"].startswith("/login")
        answer = httpx.post(replica.url(f"{THREADS}/graphql/query"), data={"query": "失戀", "after": "0"})
        assert answer.status_code == 401 and answer.json()["require_login"] is True


def test_a_redirect_to_a_private_address() -> None:
    with with_fault(Rule("private"), Rule("private", nth=2, location="http://10.0.0.1/")) as (_, get):
        assert get().headers["location"].startswith("http://169.254.169.254/")
        assert get().headers["location"] == "http://10.0.0.1/"


def test_a_bomb_is_small_on_the_wire_and_huge_unpacked() -> None:
    with with_fault(Rule("gzip_bomb", size=32 << 20)) as (replica, _):
        with httpx.stream("GET", replica.url(PTT + INDEX)) as answer:
            packed = b"".join(answer.iter_raw())
        assert len(packed) < 64 << 10 and len(gzip.decompress(packed)) == 32 << 20


def test_a_page_beyond_every_limit() -> None:
    with with_fault(Rule("large", size=9 << 20)) as (_, get):
        assert len(get().content) > 9 << 20


def test_a_slow_drip_and_a_hang() -> None:
    with with_fault(Rule("slow", seconds=0.6), Rule("hang", nth=2, seconds=0.6)) as (replica, get):
        start = time.monotonic()
        with httpx.stream("GET", replica.url(PTT + INDEX)) as answer:
            headers_at = time.monotonic() - start
            answer.read()
        took = time.monotonic() - start
        assert took >= 0.6 and headers_at < took / 2, "the drip begins at once and takes its time"
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(replica.url(PTT + INDEX), timeout=0.2)
        assert get().status_code == 200


def test_a_reset_in_mid_body() -> None:
    with with_fault(Rule("reset")) as (replica, get):
        place = urlsplit(replica.url(PTT + INDEX))
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(f"GET {INDEX} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = b""
            with pytest.raises(ConnectionResetError):
                while chunk := connection.recv(65536):
                    got += chunk
                    time.sleep(0.05)
        assert b"200 OK" in got or not got
        assert get().status_code == 200


def test_a_content_length_that_is_too_long() -> None:
    with with_fault(Rule("length")) as (_, get):
        with pytest.raises(httpx.RemoteProtocolError):
            get()
        assert get().status_code == 200


def test_faults_of_a_site_come_together() -> None:
    """More deleted rows than two pages hold, and old articles below the newest page's."""
    with with_fault(Rule("deleted", times=None), Rule("pinned", times=None)) as (_, get):
        newest = parse_listing(get().content)
        assert sum(row.pinned for row in newest.rows) == 3
        pages = [parse_listing(get(f"{PTT}/bbs/Boy-Girl/index{number}.html").content) for number in (1, 2, 3, 4, 5)]
    rows = [key for page in pages for key in page.positions]
    assert (len(rows), rows.count(None)) == (95, 45)
    assert pages[-1].older == 4


def test_pages_may_name_other_hosts() -> None:
    headers = {"sec-fetch-mode": "navigate"}
    with serve(CONTENT, scenario=Scenario([Rule("assets", times=None)])) as running:
        text = httpx.get(running.url(f"{DCARD}/f/mood"), headers=headers).text
        named = [running.rewrites[name] for name in BESIDE.values()]
        assert all(f'src="{name}' in text for name in named)
        assert {urlsplit(name).hostname for name in named} == {"127.0.0.2"}, "no site is there"


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no fault named 'lightning'; known: over18"):
        Rule("lightning")


def test_dcard_renders_its_first_page_as_reported_for_2026(packaged: Content) -> None:
    """Not observed by us: SITES.md names the reports."""
    headers = {"sec-fetch-mode": "navigate"}
    with serve(packaged, scenario=Scenario([Rule("rendered", "dcard/f/", times=None)])) as running:
        forum = httpx.get(running.url("https://www.dcard.tw/f/mood"), headers=headers).text
        found = listed(forum, "mood")
        post = httpx.get(running.url(f"https://www.dcard.tw/f/mood/p/{found[0][0]}"), headers=headers).text
    assert len(found) == 15
    assert all(at is not None for _, at in found)
    assert post_of(post, found[0][0], "mood").text_raw


def test_every_fault_is_tried_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [fault for fault in FAULTS if f'"{fault}"' not in text] == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /bbs/%ff%fe/index.html HTTP/1.1",
        b"GET /bbs/Boy-Girl/../../etc/passwd HTTP/1.1",
        b"GET /bbs/Boy-Girl/index\xe4.html HTTP/1.1",
        b"GET /ask/over18?from=%00 HTTP/1.1",
        b"POST /ask/over18 HTTP/1.1\r\nContent-Length: many",
        b"POST /ask/over18 HTTP/1.1\r\nContent-Length: 99999999999",
        b"GET / HTTP/1.1\r\nCookie: \x00=;;=",
    ],
)
def test_odd_requests_get_an_answer_and_the_server_lives_on(
    request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with with_fault() as (replica, get):
        place = urlsplit(replica.url(PTT + "/"))
        with socket.create_connection((place.hostname, place.port), timeout=5) as connection:
            connection.sendall(request_line + b"\r\nConnection: close\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 ")
        assert get().status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_numbers_that_are_none_do_not_break_the_payloads() -> None:
    with with_fault() as (replica, _):
        graph = replica.rewrites["https://graph.threads.net"] + "/v1.0/keyword_search"
        query = {"q": "失戀", "access_token": "replica-token"}
        for odd in ({"limit": "x"}, {"after": "-1"}, {"limit": "9" * 40}):
            assert httpx.get(graph, params=query | odd).status_code == 200
        assert httpx.get(graph, params=query | {"since": "soon"}).json()["error"]["code"] == 100
