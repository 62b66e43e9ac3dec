"""An OpenAI-compatible API for other clients: `/v1/models` and `/v1/chat/completions`, streaming too.

A model's name is an adapter and a voice: `persona-v2:mentor`, `persona-v2:auto`, `base:model`. A persona's own
system message is the only one it gets: a caller's is heard where no persona is asked for.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal

import anyio
from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from persona_dagster.chat.adapters import Adapter, find_adapters
from persona_dagster.chat.conversation import AUTO, MODEL
from persona_dagster.chat.engine import Answer, Ask, Engine, Sampling
from persona_dagster.chat.routing import Route, Router
from persona_dagster.config.personas import Persona
from persona_dagster.models.chat_format import Message
from persona_dagster.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST_BODY = 262_144  # bytes
LONGEST_CONVERSATION = 32_000  # characters: four windows' worth, the oldest of which are dropped anyway
MOST_MESSAGES = 200
MOST_WAITING = 64  # questions in line for the one model; beyond, 429
MOST_A_MINUTE = 240  # requests of one caller


class ApiError(Exception):
    """Answered in OpenAI's shape, so that its clients raise their own error for it."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def response(self) -> JSONResponse:
        kind = (
            "invalid_request_error"
            if self.status < 429
            else "rate_limit_error"
            if self.status == 429
            else "server_error"
        )
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {"Retry-After": "2"} if self.status == 429 else None
        return JSONResponse({"error": error}, self.status, headers=headers)


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Said(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class Completion(BaseModel):
    """The part of OpenAI's request that means something here; what else a client sends is ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(max_length=200)
    messages: list[Said] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool = False
    n: int = Field(1, ge=1, le=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    seed: int | None = Field(None, ge=0, lt=2**63)

    def sampling(self) -> Sampling:
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens,
            "seed": self.seed,
        }
        return Sampling(**{name: value for name, value in given.items() if value is not None})


def build_api(settings: Settings, engine: Engine, router: Router, key: str | None = None) -> FastAPI:
    """The API; without `key` it takes requests for loopback names alone, so that no web page can reach it by DNS."""
    api = FastAPI(title="PersonaLlama", docs_url=None, redoc_url=None, openapi_url=None)
    if key is None:
        api.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]", "testserver"])
    rate = Rate(MOST_A_MINUTE)

    @api.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if not request.url.path.startswith("/v1/"):
            return await go_on(request)
        try:
            _check_key(request, key)
            rate.count(request.client.host if request.client else "")
            await _check_size(request)
        except ApiError as error:
            return error.response()
        return await go_on(request)

    @api.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return error.response()

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"] if step != "body")
        return ApiError(400, f"{where or 'body'}: {first['msg']}", "invalid_value", where or None).response()

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        names = [f"{a.name}:{voice}" for a in find_adapters(settings) for voice in _voices(a, router)]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "persona"} for name in names],
        }

    @api.post("/v1/chat/completions")
    async def complete(asked: Completion) -> Any:
        if sum(len(said.text) for said in asked.messages) > LONGEST_CONVERSATION:
            raise ApiError(
                400,
                f"the conversation is longer than {LONGEST_CONVERSATION} characters",
                "context_length_exceeded",
                "messages",
            )
        messages, question = _conversation(asked.messages)
        adapter, voice = _named(asked.model, find_adapters(settings), router)
        route = router.route(question) if voice == AUTO else None
        name = route.persona if route else None if voice == MODEL else voice
        persona = router.personas.personas[name] if name else None
        if engine.waiting >= MOST_WAITING:
            raise ApiError(429, f"{MOST_WAITING} questions are waiting already; try again soon", "rate_limit_exceeded")
        answer = engine.answer(Ask(_heard(messages, persona), adapter, persona, asked.sampling()))
        reply = Reply(asked.model, answer, name, route)
        if asked.stream:
            return StreamingResponse(
                reply.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        return await reply.whole()

    return api


class Reply:
    """An answer in OpenAI's shapes; `persona_dagster` beside them says who spoke, why, and what was filtered."""

    def __init__(self, model: str, answer: Answer, persona: str | None, route: Route | None) -> None:
        self.answer = answer
        self.about: dict[str, Any] = {"persona": persona}
        if route is not None:
            self.about |= {"means": route.means, "why": list(route.why), "sure": round(route.sure, 4)}
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    async def whole(self) -> dict[str, Any]:
        try:
            async for _ in _pieces(self.answer):
                pass
        except RuntimeError as error:
            raise ApiError(503, str(error), "model_unavailable") from error
        message = {"role": "assistant", "content": self.answer.text}
        choice = {"index": 0, "message": message, "finish_reason": _reason(self.answer), "logprobs": None}
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(),
            "persona_dagster": {**self.about, "removed": [piece.kind for piece in self.answer.removed]},
        }

    async def events(self) -> AsyncIterator[str]:
        yield self._event({"role": "assistant", "content": ""}, None, persona_dagster=self.about)
        try:
            async for piece in _pieces(self.answer):
                yield self._event({"content": piece}, None)
        except RuntimeError as error:
            body = json.loads(bytes(ApiError(503, str(error), "model_unavailable").response().body))
            yield f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
            return
        yield self._event({}, _reason(self.answer), usage=self._usage())
        yield "data: [DONE]\n\n"

    def _event(self, delta: dict[str, str], reason: str | None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        body = {**self.head, "object": "chat.completion.chunk", "choices": [choice], **more}
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def _usage(self) -> dict[str, int]:
        asked, said = self.answer.prompt_tokens, self.answer.tokens
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


class Rate:
    """At most `most` requests of a caller in any minute."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._seen: dict[str, deque[float]] = {}

    def count(self, caller: str) -> None:
        now = time.monotonic()
        if len(self._seen) > 10_000:
            self._seen.clear()  # many callers at once: forgetting them is cheaper than remembering an attack
        seen = self._seen.setdefault(caller, deque())
        while seen and now - seen[0] > 60:
            seen.popleft()
        if len(seen) >= self.most:
            raise ApiError(429, f"more than {self.most} requests a minute", "rate_limit_exceeded")
        seen.append(now)


async def _pieces(answer: Answer) -> AsyncIterator[str]:
    """The pieces without blocking the loop; a caller who hangs up stops the model."""
    # Each waiting answer holds a thread: a limiter of their own, or 40 of them would block all else.
    iterator, limiter = iter(answer), anyio.CapacityLimiter(1)
    try:
        while (
            piece := await to_thread.run_sync(next, iterator, None, limiter=limiter, abandon_on_cancel=True)
        ) is not None:
            yield piece
    finally:
        answer.stop()


def _check_key(request: Request, key: str | None) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if key is not None and not secrets.compare_digest(given.encode(), key.encode()):
        raise ApiError(401, "wrong or no API key", "invalid_api_key")


async def _check_size(request: Request) -> None:
    """Reads the body, and no more of it than is allowed: a length may be absent or a lie."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > LARGEST_BODY:
            raise ApiError(413, f"the request is larger than {LARGEST_BODY} bytes", "request_too_large")
    request._body = bytes(read)  # where Starlette keeps a body that was read once


def _conversation(messages: Sequence[Said]) -> tuple[list[Message], str]:
    """The messages as the engine takes them, and the last question."""
    last = messages[-1]
    if last.role != "user" or not last.text.strip():
        raise ApiError(400, "the last message must be the user's, and say something", "invalid_value", "messages")
    said = [{"role": "system" if m.role == "developer" else m.role, "content": m.text} for m in messages]
    return said, last.text


def _heard(messages: list[Message], persona: Persona | None) -> list[Message]:
    """What the model hears: turns, and, with no persona asked for, one system message of the caller in front."""
    system = "\n".join(message["content"] for message in messages if message["role"] == "system").strip()
    turns = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": system}, *turns] if system and persona is None else turns


def _named(model: str, adapters: Sequence[Adapter], router: Router) -> tuple[Adapter, str]:
    name, _, voice = model.partition(":")
    for adapter in adapters:
        if adapter.name == name:
            voices = _voices(adapter, router)
            if not voice or voice in voices:
                return adapter, voice or voices[0]
    raise ApiError(404, f"no model {model!r}; GET /v1/models lists them", "model_not_found", "model")


def _voices(adapter: Adapter, router: Router) -> list[str]:
    """The first is what the adapter's bare name means."""
    named = [*router.personas.personas]
    taught = adapter.folder is not None and not adapter.name.startswith("capybara")
    return [AUTO, *named, MODEL] if taught else [MODEL, AUTO, *named]


def _reason(answer: Answer) -> str:
    return "length" if answer.finish == "length" else "stop"
