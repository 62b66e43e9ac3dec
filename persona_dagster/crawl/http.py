"""Plain HTTP for the bulk: one connection kept open, nothing followed or decoded without a bound.

urllib3 under our own rules: about 0.6 ms of CPU a page, against 1.9 for httpx and 139 for a navigation.
"""

from __future__ import annotations

import socket
import threading
import time
import weakref
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, SSLError, TimeoutError
from urllib3.util import parse_url

from persona_dagster.crawl.outcomes import Fetched, classify
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import ForbiddenUrlError, UrlPolicy
from persona_dagster.records import Outcome

CONNECT, READ, TOTAL = 10.0, 20.0, 60.0  # seconds
HOPS = 5
CHUNK = 64 << 10
REDIRECTS = frozenset([301, 302, 303, 307, 308])


class TooLargeError(ValueError):
    """More bytes than a page may have, on the wire or decoded."""


class HttpFetcher:
    """Fetches canonical URLs; cookies are those that the browser handed over, answers set none."""

    def __init__(self, policy: UrlPolicy, transport: Transport, max_bytes: int, *, total: float = TOTAL):
        self.policy, self.transport, self.max_bytes, self.total = policy, transport, max_bytes, total
        self.cookies: dict[str, str] = {}
        timeout = urllib3.Timeout(connect=min(CONNECT, total), read=min(READ, total))
        proxy = transport.proxy_server()
        self.pool = (
            urllib3.ProxyManager(proxy.server, proxy_headers=proxy.headers, retries=False, timeout=timeout, maxsize=2)
            if proxy
            else urllib3.PoolManager(retries=False, timeout=timeout, maxsize=2)
        )
        self.deadline = Deadline()
        self.deadline.watch(self.pool)

    def close(self) -> None:
        self.pool.clear()

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> Fetched:
        """The answer to a GET, redirects followed within the policy. Never raises on what a server does."""
        started = time.monotonic()
        self.deadline.begin(self.total)
        try:
            fetched = self._follow(url, headers or {}, started)
        except ForbiddenUrlError as error:
            fetched = Fetched(url, Outcome.BLOCKED, why=f"redirected: {error}")
        except TooLargeError as error:
            fetched = Fetched(url, Outcome.TOO_LARGE, why=str(error))
        except IncompleteRead as error:
            fetched = Fetched(url, Outcome.TRUNCATED, why=f"the body ended early: {error}")
        except (TimeoutError, TimeoutPassedError) as error:
            fetched = Fetched(url, Outcome.TIMEOUT, why=str(error))
        except (ProtocolError, zlib.error) as error:
            fetched = Fetched(url, Outcome.TRUNCATED, why=f"the connection broke: {error}")
        except SSLError as error:
            fetched = Fetched(url, Outcome.BLOCKED, why=f"TLS: {error}")
        except (HTTPError, OSError) as error:
            fetched = Fetched(url, Outcome.TIMEOUT, why=f"no answer: {error}")
        if self.deadline.end() and not fetched.ok:
            fetched = Fetched(url, Outcome.TIMEOUT, why=f"not complete after {self.total:g} s")
        fetched.seconds = time.monotonic() - started
        return fetched

    def _follow(self, url: str, headers: Mapping[str, str], started: float) -> Fetched:
        actual = self.policy.actual(url)
        for _ in range(HOPS):
            answer = self.pool.request(
                "GET", actual, headers=self._headers(headers), redirect=False, preload_content=False,
                decode_content=False,
            )  # fmt: skip
            whole = False
            try:
                location = answer.headers.get("location")
                if answer.status in REDIRECTS and location:
                    actual = self._target(actual, location)
                    if self.transport.canonical(actual).split("?")[0].endswith("/ask/over18"):
                        return Fetched(self.transport.canonical(actual), Outcome.GATE, answer.status, why="over 18?")
                    continue  # its body is not read: a redirect's may be endless
                body = self._body(answer, started)
                whole = True
            finally:
                # A connection with bytes left in it would hand them to the next request.
                answer.release_conn() if whole else answer.close()
            names = {name.lower(): value for name, value in answer.headers.items()}
            canonical = self.transport.canonical(actual)
            outcome, why = classify(canonical, answer.status, names, body)
            return Fetched(canonical, outcome, answer.status, names, body, why)
        return Fetched(url, Outcome.BLOCKED, why=f"more than {HOPS} redirects")

    def _target(self, actual: str, location: str) -> str:
        """Where a redirect leads, within the policy. Raises `ForbiddenUrlError`."""
        try:
            target = urljoin(actual, location)
            parsed = parse_url(target)
        except (ValueError, HTTPError) as error:
            raise ForbiddenUrlError(f"{location[:200]!r} is no URL") from error
        self.policy.check(target)
        # What is checked and what is asked are read by two parsers: they must agree.
        if parsed.host != urlsplit(target).hostname or parsed.auth or not target.isprintable():
            raise ForbiddenUrlError(f"{location[:200]!r} is no plain URL")
        return target

    def _headers(self, extra: Mapping[str, str]) -> dict[str, str]:
        ours = {"User-Agent": self.transport.user_agent, "Accept-Encoding": "gzip", "Accept-Language": "zh-TW"}
        headers = {**ours, **extra}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return headers

    def _body(self, answer: urllib3.BaseHTTPResponse, started: float) -> bytes:
        """The decoded body, with a bound on the bytes of the wire, on the decoded ones, and on the time."""
        encoding = answer.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", "gzip", "x-gzip", ""):
            raise ProtocolError(f"content-encoding {encoding}, which was not offered")
        decoder = zlib.decompressobj(31) if "gzip" in encoding else None
        wire, body = 0, bytearray()
        while chunk := answer.read1(CHUNK):
            wire += len(chunk)
            while chunk:
                body += decoder.decompress(chunk, self.max_bytes + 1 - len(body)) if decoder else chunk
                chunk = decoder.unconsumed_tail if decoder else b""
                if len(body) > self.max_bytes or wire > self.max_bytes:
                    raise TooLargeError(f"more than {self.max_bytes} bytes")
            if time.monotonic() - started > self.total:
                raise TimeoutPassedError(f"not complete after {self.total:.0f} s")
        if decoder and not decoder.eof:
            raise ProtocolError("the gzip stream ended early")
        return bytes(body)


class Deadline:
    """Ends a request that is not over in time, wherever it drips: status line, headers, chunks or a redirect.

    A read may be late by itself; a drip is not, and no time-out of a socket sees it. One thread looks five times a
    second whether the request under way is too old, and shuts its connections, which ends any read.
    """

    LOOK = 0.2  # seconds

    def __init__(self) -> None:
        self.at: float | None = None
        self.passed = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def watch(self, pool: urllib3.PoolManager) -> None:
        """Take note of every connection that the pool opens."""
        deadline = self

        def watched(base: Any) -> Any:
            class Connection(base):
                def _new_conn(self) -> socket.socket:
                    made = super()._new_conn()
                    self.twin = made.dup()  # TLS takes the original over; shutting the twin shuts both
                    deadline._sockets.add(self.twin)
                    return made

                def close(self) -> None:
                    super().close()
                    if twin := self.__dict__.pop("twin", None):
                        twin.close()

            return Connection

        pool.pool_classes_by_scheme = {
            scheme: type(base.__name__, (base,), {"ConnectionCls": watched(vars(base)["ConnectionCls"])})
            for scheme, base in pool.pool_classes_by_scheme.items()
        }

    def begin(self, seconds: float) -> None:
        self.passed, self.at = False, time.monotonic() + seconds
        if self._thread is None:
            self._thread = threading.Thread(target=_look, args=(weakref.ref(self),), daemon=True)
            self._thread.start()

    def end(self) -> bool:
        """True when the request was ended by us."""
        self.at = None
        return self.passed

    def look(self) -> None:
        if self.at is not None and time.monotonic() > self.at:
            self.passed = True
            for one in list(self._sockets):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


def _look(of: weakref.ref[Deadline]) -> None:
    while (deadline := of()) is not None:
        deadline.look()
        del deadline
        time.sleep(Deadline.LOOK)


class TimeoutPassedError(RuntimeError):
    """The answer drips: no single read is late, but the whole is."""
