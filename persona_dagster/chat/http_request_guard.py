"""What stands before the page and the API: the few routes that are needed, whole requests in time, own files only.

Gradio serves some sixty routes, several of which take a path or an address from the caller. A browser needs a dozen
of them; the rest do not exist here. A file can be named only by the session that uploaded it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import threading
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

COOKIE = "persona_session"
LARGEST_BODY = 262_144  # bytes; an upload may have `LARGEST_UPLOAD`
LARGEST_UPLOAD = 5_000_000  # an export of 4 MB and the form around it
BODY_S = 20.0  # for the whole body to arrive
HEAD_S = 10.0  # for the whole head to arrive
MOST_AT_ONCE = 64  # requests of one caller that are being answered: a lab behind one address; a page holds two open
MOST_SESSIONS, MOST_FILES = 2_000, 20  # remembered; files are of one session
UPLOAD, JOIN, FILE = "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/file="
EXPORT = re.compile(r"capybara-chat-[0-9\-]+\.jsonl")
# Method and path of all that a browser and a client of the API ask for.
NEEDED = (
    ("GET", re.compile(r"/v1/models(?:/[^/]+)?")),
    ("POST", re.compile(r"/v1/chat/completions")),
    ("GET", re.compile(r"/(?:config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout)?/?")),
    ("GET", re.compile(r"/(?:assets|static|svelte)/[^?]*")),
    ("GET", re.compile(r"/gradio_api/(?:heartbeat/\w+|queue/data|upload_progress|startup-events|theme\.css|app_id)/?")),
    ("GET", re.compile(r"/gradio_api/(?:user|login_check|token)/?")),
    ("GET", re.compile(re.escape(FILE) + ".+")),
    ("GET", re.compile(r"/(?:user|login_check|token|app_id)/?")),
    ("POST", re.compile(r"/(?:login/?|gradio_api/(?:queue/join|upload|reset|cancel)/?)")),
)


class RefusedError(Exception):
    """A request that is not answered; in OpenAI's shape, as its clients expect."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    def response(self) -> JSONResponse:
        kind = {429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return JSONResponse(
            {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}, self.status
        )


class Uploads:
    """Which files each session uploaded; the sessions seen last are remembered."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, list[str]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, session: str, paths: list[str]) -> None:
        with self._lock:
            files = self._files.setdefault(session, [])
            files += [str(Path(path).resolve()) for path in paths]
            del files[:-MOST_FILES]
            self._files.move_to_end(session)
            while len(self._files) > MOST_SESSIONS:
                self._files.popitem(last=False)

    def holds(self, session: str | None, path: str) -> bool:
        with self._lock:
            return bool(session) and str(Path(path).resolve()) in self._files.get(str(session), ())


class Guard:
    """An ASGI application around the page and the API."""

    def __init__(self, app: ASGIApp, uploads: Uploads) -> None:
        self.app, self.uploads = app, uploads
        self._open: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller, begun = (scope.get("client") or ("", 0))[0], False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and message["status"] >= 500 and _untyped(message):
                # Events run in the queue, not in the request that joins it: what fails here is what was sent.
                raise RefusedError(400, "the page cannot take that", "invalid_value")
            begun |= message["type"] == "http.response.start"
            await send(message)

        self._open[caller] = self._open.get(caller, 0) + 1
        try:
            await self._checked(scope, receive, sending, self._open[caller])
        except RefusedError as error:
            await error.response()(scope, receive, send)
        except Exception:
            if not begun and scope["path"].startswith("/gradio_api/"):
                await RefusedError(400, "the page cannot take that", "invalid_value").response()(scope, receive, send)
                return
            log.exception("a request failed: %s %s", scope["method"], scope["path"])
            if begun:
                raise
            await RefusedError(500, "the server failed; its log says why", "internal_error").response()(
                scope, receive, send
            )
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    async def _checked(self, scope: Scope, receive: Receive, send: Send, at_once: int) -> None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if at_once > MOST_AT_ONCE and path != "/":
            raise RefusedError(
                429, f"{MOST_AT_ONCE} requests of yours are being answered already", "rate_limit_exceeded"
            )
        if method == "HEAD":
            method = "GET"
        api = path.startswith("/v1/")
        if not any(method == verb and route.fullmatch(path) for verb, route in NEEDED):
            raise RefusedError(404, "there is nothing here", "not_found")
        _same_origin(headers)
        session = _session(headers)
        if path.startswith(FILE):
            self._may_read(session, unquote(path.removeprefix(FILE)))
        if method == "POST":
            body = await _body(receive, LARGEST_UPLOAD if path.startswith(UPLOAD) else LARGEST_BODY)
            if path.startswith(JOIN):
                self._own_files(session, body)
            receive = _replayed(body, receive)
        if path.startswith(UPLOAD):
            if session is None:
                raise RefusedError(403, "open the page first", "no_session")
            send = _listening(send, lambda paths: self.uploads.add(session, paths))
        elif session is None and not api:
            send = _with_cookie(send)
        await self.app(scope, receive, send)

    def _may_read(self, session: str | None, path: str) -> None:
        """A session's own uploads, and exports: their folder is named by content."""
        import gradio.utils

        cache = Path(gradio.utils.get_upload_folder()).resolve()
        wanted = Path(path)
        exported = EXPORT.fullmatch(wanted.name) and wanted.resolve().is_relative_to(cache)
        if not exported and not self.uploads.holds(session, path):
            raise RefusedError(404, "there is no such file", "not_found")

    def _own_files(self, session: str | None, body: bytes) -> None:
        """Whatever in an event looks like a file must be one that this session uploaded."""
        try:
            event = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, "the body is no JSON", "invalid_value") from error
        if not isinstance(event, dict) or not isinstance(event.get("data"), list):
            raise RefusedError(400, "`data` must be a list", "invalid_value")
        if not isinstance(event.get("fn_index"), int) or not isinstance(event.get("session_hash"), str):
            raise RefusedError(400, "`fn_index` and `session_hash` are needed", "invalid_value")
        for path in _paths(event["data"]):
            if not self.uploads.holds(session, path):
                raise RefusedError(403, "that file was not uploaded in this session", "foreign_file")


def _untyped(start: Message) -> bool:
    return not Headers(raw=start["headers"]).get("content-type", "").startswith("application/json")


def _paths(value: Any, depth: int = 0) -> list[str]:
    if depth > 20:
        raise RefusedError(400, "nested too deep", "invalid_value")
    if isinstance(value, dict):
        own = (
            [str(value[key]) for key in ("path", "url", "name") if value.get(key) is not None]
            if _is_file(value)
            else []
        )
        return [path for path in own if not path.startswith(("http://", "https://")) or "path" not in value] + [
            path for item in value.values() for path in _paths(item, depth + 1)
        ]
    return [path for item in value for path in _paths(item, depth + 1)] if isinstance(value, list) else []


def _is_file(value: dict[str, Any]) -> bool:
    return "path" in value or "orig_name" in value or (isinstance(value.get("meta"), dict) and "_type" in value["meta"])


def _same_origin(headers: Headers) -> None:
    """A page elsewhere in the same browser may not ask here: its origin would be another one."""
    origin = headers.get("origin")
    if origin and (origin == "null" or urlsplit(origin).netloc != headers.get("host", "")):
        raise RefusedError(403, "requests from other sites are not answered", "foreign_origin")


def _session(headers: Headers) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found and re.fullmatch(r"[A-Za-z0-9_\-]{22,64}", found.value) else None


async def _body(receive: Receive, largest: int) -> bytes:
    """The whole body, within its time and size: a length may be absent or a lie."""
    read = bytearray()

    async def whole() -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the request was cut off", "cut_off")
            read.extend(message.get("body", b""))
            if len(read) > largest:
                raise RefusedError(413, f"the request is larger than {largest} bytes", "request_too_large")
            if not message.get("more_body"):
                return

    try:
        await asyncio.wait_for(whole(), BODY_S)
    except TimeoutError as error:
        raise RefusedError(408, f"the body took longer than {BODY_S:.0f} s", "timeout") from error
    return bytes(read)


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _listening(send: Send, uploaded: Any) -> Send:
    """Passes the answer on; the paths in it are noted once it is whole."""
    status, parts = 0, bytearray()

    async def sending(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.extend(message.get("body", b""))
            if not message.get("more_body") and status == 200:
                uploaded(json.loads(bytes(parts)))
        await send(message)

    return sending


def _with_cookie(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append(
                "set-cookie", f"{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Strict"
            )
        await send(message)

    return sending


class Patient(H11Protocol):
    """uvicorn's protocol with an end to its patience: a head that does not arrive whole in `HEAD_S` closes the line."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_S, self._give_up)

    def _arrived(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()
