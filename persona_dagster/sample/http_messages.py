"""Requests and answers of the replica, without sockets: what a site reads and what it gives back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query, as sent
    headers: Mapping[str, str]  # lower-case names
    body: bytes = b""

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def number(self, name: str, default: int) -> int:
        """A number of the query; the default where it is missing or no number."""
        value = self.query.get(name, "")
        return int(value) if value.isdecimal() and len(value) < 16 else default

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        try:
            return {name: morsel.value for name, morsel in SimpleCookie(self.headers.get("cookie", "")).items()}
        except CookieError:
            return {}

    @property
    def from_browser(self) -> bool:
        """True for a real browser's requests: it says where they come from, which plain HTTP clients do not."""
        return "sec-fetch-mode" in self.headers


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class SiteServer(Protocol):
    """One of the replica's sites. `faults`: some of the site's own ways to misbehave."""

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response: ...


def page(html: str, status: int = 200, **headers: str) -> Response:
    return Response(status, html.encode(), headers={name.replace("_", "-"): value for name, value in headers.items()})


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value), "application/json; charset=utf-8")


def redirect(location: str, cookie: str | None = None) -> Response:
    return Response(302, headers={"Location": location} | ({"Set-Cookie": cookie} if cookie else {}))


def plain(text: str, status: int = 200) -> Response:
    return Response(status, text.encode(), "text/plain; charset=utf-8")
