"""An OpenAI-compatible API for other clients: `/v1/models` and `/v1/chat/completions`, streaming too.

A model's name is an adapter and a voice: `persona-v2:mentor`, `persona-v2:auto`, `base:model`. A persona's own
system message is the only one it gets: a caller's is used where no persona is asked for.
"""

from __future__ import annotations

import contextlib
import json
import logging
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
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from persona_dagster.chat.adapters import Adapter, find_adapters
from persona_dagster.chat.conversation import AUTO, MODEL
from persona_dagster.chat.engine import Answer, Ask, Engine, Sampling
from persona_dagster.config.personas import Persona
from persona_dagster.models.chat_format import Message
from persona_dagster.models.persona_classifier import Route, Router
from persona_dagster.settings import Settings

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST_BODY = 262_144  # bytes
LONGEST_CONVERSATION = 32_000  # characters: four windows' worth, the oldest of which are dropped anyway
MOST_MESSAGES = 200
MOST_ANSWERS, MOST_STOPS, LONGEST_STOP = 4, 4, 200  # of one request; characters
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


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    include_usage: bool = False


# What would change the answer and is not done here is refused, so that no client takes it for done. What changes
# nothing (`user`, `store`, `metadata` …) is ignored.
UNSUPPORTED = (
    "tools", "tool_choice", "functions", "function_call", "logprobs", "top_logprobs", "logit_bias", "audio",
    "prediction", "web_search_options", "presence_penalty", "frequency_penalty",
)  # fmt: skip


class Completion(BaseModel):
    """The part of OpenAI's request that means something here."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=MOST_ANSWERS)
    stop: str | list[str] | None = Field(None, max_length=200)
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(None, ge=1, le=4096)
    seed: int | None = Field(None, ge=0, lt=2**63)

    @property
    def stops(self) -> list[str]:
        return [word for word in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if word]

    def refuse_unsupported(self) -> None:
        """Raises `ApiError` for what is asked and not done."""
        asked = self.model_extra or {}
        name = next((name for name in UNSUPPORTED if asked.get(name)), None)
        if self.response_format and self.response_format.get("type") != "text":
            name = "response_format"
        if self.modalities and self.modalities != ["text"]:
            name = "modalities"
        if name:
            raise ApiError(400, f"{name} is not supported here", "unsupported_parameter", name)
        if len(self.stops) > MOST_STOPS or any(len(word) > LONGEST_STOP for word in self.stops):
            raise ApiError(
                400, f"at most {MOST_STOPS} stops of {LONGEST_STOP} characters each", "invalid_value", "stop"
            )

    def sampling(self, number: int = 0) -> Sampling:
        """Of the answer `number`: with a seed, each of several is drawn from its own."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens,
            "seed": None if self.seed is None else (self.seed + number) % 2**63,
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

    @api.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: HTTPException) -> Response:
        return ApiError(error.status_code, str(error.detail), "not_found").response()

    @api.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        log.exception("a request failed", exc_info=error)
        return ApiError(500, "the server failed; its log says why", "internal_error").response()

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        names = [f"{a.name}:{voice}" for a in find_adapters(settings) for voice in _voices(a, router)]
        return {"object": "list", "data": [_model(name) for name in names]}

    @api.get("/v1/models/{name:path}")
    def model(name: str) -> dict[str, Any]:
        _named(name, find_adapters(settings), router)
        return _model(name)

    @api.post("/v1/chat/completions")
    async def complete(asked: Completion) -> Any:
        asked.refuse_unsupported()
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
        if engine.waiting + asked.n > MOST_WAITING:
            raise ApiError(429, f"{MOST_WAITING} questions are waiting already; try again soon", "rate_limit_exceeded")
        given = _given_to(messages, persona)
        answers = [engine.answer(Ask(given, adapter, persona, asked.sampling(number))) for number in range(asked.n)]
        reply = Reply(asked, answers, name, route)
        if asked.stream:
            return StreamingResponse(
                reply.events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        return await reply.whole()

    return api


class Reply:
    """Answers in OpenAI's shapes; `persona_dagster` beside them says who spoke, why, and what was filtered."""

    def __init__(self, asked: Completion, answers: list[Answer], persona: str | None, route: Route | None) -> None:
        self.answers, self.stops = answers, asked.stops
        self.usage_asked = asked.stream_options is not None and asked.stream_options.include_usage
        self.about: dict[str, Any] = {"persona": persona}
        if route is not None:
            self.about |= {"means": route.means, "why": list(route.why), "sure": round(route.sure, 4)}
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}

    async def whole(self) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        try:
            for number, answer in enumerate(self.answers):
                text = "".join([piece async for piece in _until(_pieces(answer), self.stops)])
                message = {"role": "assistant", "content": text}
                choices.append(
                    {"index": number, "message": message, "finish_reason": _reason(answer), "logprobs": None}
                )
        except RuntimeError as error:
            raise ApiError(503, str(error), "model_unavailable") from error
        finally:
            self._stop()
        removed = [piece.kind for answer in self.answers for piece in answer.removed]
        return {
            **self.head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self._usage(),
            "persona_dagster": {**self.about, "removed": removed},
        }

    async def events(self) -> AsyncIterator[str]:
        try:
            for number, answer in enumerate(self.answers):
                yield self._event(number, {"role": "assistant", "content": ""}, None, persona_dagster=self.about)
                async for piece in _until(_pieces(answer), self.stops):
                    yield self._event(number, {"content": piece}, None)
                yield self._event(number, {}, _reason(answer))
        except RuntimeError as error:
            yield f"data: {bytes(ApiError(503, str(error), 'model_unavailable').response().body).decode()}\n\n"
            return
        finally:
            self._stop()
        if self.usage_asked:
            yield self._chunk([], usage=self._usage())
        yield "data: [DONE]\n\n"

    def _stop(self) -> None:
        """Whatever is still in line is not waited for by anybody."""
        for answer in self.answers:
            answer.stop()

    def _event(self, number: int, delta: dict[str, str], reason: str | None, **more: Any) -> str:
        return self._chunk([{"index": number, "delta": delta, "finish_reason": reason, "logprobs": None}], **more)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        body = {**self.head, "object": "chat.completion.chunk", "choices": choices, **more}
        if self.usage_asked:
            body.setdefault("usage", None)
        return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

    def _usage(self) -> dict[str, int]:
        asked, said = self.answers[0].prompt_tokens, sum(answer.tokens for answer in self.answers)
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


async def _until(pieces: AsyncIterator[str], stops: Sequence[str]) -> AsyncIterator[str]:
    """The pieces up to the first of `stops`, which is not among them; what may be the beginning of one is held back."""
    held = ""
    async with contextlib.aclosing(pieces) as open_pieces:  # type: ignore[type-var]
        async for piece in open_pieces:
            held += piece
            if (at := min((found for word in stops if (found := held.find(word)) >= 0), default=-1)) >= 0:
                if at:
                    yield held[:at]
                return
            begun = max(
                (size for word in stops for size in range(1, len(word)) if held.endswith(word[:size])), default=0
            )
            if ready := held[: len(held) - begun]:
                yield ready
            held = held[len(held) - begun :]
    if held:
        yield held


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


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "persona"}


async def _check_size(request: Request) -> None:
    """Reads the body, and no more of it than is allowed: a length may be absent or a lie."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > LARGEST_BODY:
            raise ApiError(413, f"the request is larger than {LARGEST_BODY} bytes", "request_too_large")
    request._body = bytes(read)  # where Starlette keeps a body that was read once


def _conversation(messages: Sequence[ChatMessage]) -> tuple[list[Message], str]:
    """The messages as the engine takes them, and the last question."""
    last = messages[-1]
    if last.role != "user" or not last.text.strip():
        raise ApiError(400, "the last message must be the user's, and say something", "invalid_value", "messages")
    said = [{"role": "system" if m.role == "developer" else m.role, "content": m.text} for m in messages]
    return said, last.text


def _given_to(messages: list[Message], persona: Persona | None) -> list[Message]:
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
