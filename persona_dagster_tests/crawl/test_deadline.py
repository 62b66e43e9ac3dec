"""Whatever a server does with a connection, a request ends in time and within the policy, with a typed outcome."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.robots import Robots, text_of
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import UrlPolicy
from persona_dagster.records import Outcome

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
CHUNKED = b"1\r\nx\r\n" * 10_000
DRIPS = {
    "status": (b"", b"HTTP/1.1 200 OK and a very long reason" + b"." * 10_000),
    "headers": (HEAD, b"X-Slow: 1\r\n" * 10_000),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNKED),
    "body": (HEAD + b"Content-Length: 100000\r\n\r\n", b"x" * 100_000),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
    "redirect": (b"HTTP/1.1 302 Found\r\n", b"X-Slow: 1\r\n" * 10_000),
    "redirect's body": (b"HTTP/1.1 302 Found\r\nContent-Length: 100000\r\n\r\n", b"x" * 100_000),
}
HOSTILE = [
    "http://[::1/", "http://[::1]/", "//evil.example/", "\\\\evil.example\\x", "http://127.0.0.1:1\\@evil.example/",
    "http://user:word@127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "javascript:alert(1)", "data:,x",
    "http://169.254.169.254/latest/", "http://0x7f000001/", "http://2130706433/", "http://127.1/", "http://localhost/",
    "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:abc/", "http:///", "http://", "https://",
    "http://www.ptt.cc.evil.example/", "http://evil.example#@www.ptt.cc/", "http://evil.example?@www.ptt.cc/",
    "http://ptt。cc/", "http://\u2025/", "ht tp://x/", "http://a\x00b/", "http://" + "a" * 70_000, "http://%31%32%37/",
    "http://[fe80::1%25eth0]/", "http://xn--\u00e9/",
]  # fmt: skip


@contextmanager
def server(first: bytes, drip: bytes, pause: float = 0.02) -> Iterator[tuple[str, list[bytes]]]:
    """Answers every request with `first`, then `drip` a few bytes at a time."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def answer(one: socket.socket) -> None:
        with suppress(OSError), one:
            asked.append(one.recv(65_536))
            one.sendall(first)
            for at in range(0, len(drip), 10):
                one.sendall(drip[at : at + 10])
                time.sleep(pause)

    def run() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.close()


def fetch(origin: str, total: float = 0.6) -> Fetched:
    transport = Transport({"https://www.ptt.cc": origin})
    fetcher = HttpFetcher(UrlPolicy(["www.ptt.cc"], transport), transport, 8 << 20, total=total)
    try:
        return fetcher.fetch("https://www.ptt.cc/bbs/x.html")
    finally:
        fetcher.close()


@pytest.mark.parametrize("where", DRIPS)
def test_a_drip_ends_at_the_deadline_wherever_it_is(where: str) -> None:
    with server(*DRIPS[where]) as (origin, _):
        fetched = fetch(origin)
    assert fetched.outcome in (Outcome.TIMEOUT, Outcome.TRUNCATED), fetched
    assert fetched.seconds < 3, "the deadline is 0.6 s; the whole drip takes 20 seconds and more"


def test_nobody_waits_for_the_body_of_a_redirect_that_leads_on() -> None:
    head = b"HTTP/1.1 302 Found\r\nLocation: /bbs/y.html\r\nContent-Length: 100000\r\n\r\n"
    with server(head, b"x" * 100_000) as (origin, asked):
        fetched = fetch(origin, total=20)
    assert (fetched.outcome, len(asked)) == (Outcome.BLOCKED, 5), fetched.why


@pytest.mark.parametrize("location", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_redirect_is_typed_and_leads_nowhere(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up, look_up = set[tuple[object, object]](), socket.getaddrinfo

    def noted(host: str, port: int, *more: int) -> object:
        looked_up.add((host, port))
        return look_up(host, port, *more)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location.encode("utf-8") + b"\r\n\r\n"
    with server(head, b"") as (origin, asked):
        fetched = fetch(origin, total=3)
    assert not fetched.ok
    assert 1 <= len(asked) <= 5, "hops on the allowed host alone"
    assert looked_up == {("127.0.0.1", int(origin.rpartition(":")[2]))}, "nobody else was asked"


def test_robots_with_a_mark_or_too_long_is_still_obeyed() -> None:
    refusing = b"User-agent: *\r\nDisallow: /bbs/Secret/\r\n"
    for body in (b"\xef\xbb\xbf" + refusing, refusing + b"# " + b"x" * 600_000):
        robots = Robots("persona_dagster", lambda body=body: Fetched("", Outcome.OK, 200, body=body))
        assert not robots.allows("https://www.ptt.cc/bbs/Secret/index.html")
        assert robots.allows("https://www.ptt.cc/bbs/Open/index.html")
    assert len(text_of(b"User-agent: *\n" * 100_000)) <= 500 << 10


@pytest.mark.parametrize(
    ("outcome", "status", "allowed"),
    [
        (Outcome.GONE, 404, True), (Outcome.BLOCKED, 403, True), (Outcome.LOGIN_WALL, 401, True),
        (Outcome.BLOCKED, 418, True), (Outcome.SERVER_BUSY, 503, False), (Outcome.TIMEOUT, 0, False),
        (Outcome.RATE_LIMITED, 429, False), (Outcome.CHALLENGE, 403, False),
    ],
)  # fmt: skip
def test_robots_by_its_status(outcome: Outcome, status: int, allowed: bool) -> None:
    robots = Robots("persona_dagster", lambda: Fetched("", outcome, status))
    assert robots.allows("https://www.ptt.cc/bbs/x/index.html") is allowed
