"""A client that means harm: it reads no file, breaks nothing, and others are served meanwhile."""

from __future__ import annotations

import builtins
import json
import pickle
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from persona_dagster.chat import http_request_guard
from persona_dagster.chat.app import serve
from persona_dagster.chat.engine import Engine
from persona_dagster.chat.http_request_guard import COOKIE, Patient, RefusedError, Uploads
from persona_dagster.chat.service import Chat
from persona_dagster.settings import Settings
from persona_dagster_tests.chat.serving import Served

DIALOGUE = {"messages": [{"role": "user", "content": "誰的秘密"}, {"role": "assistant", "content": "不告訴你"}]}


@pytest.fixture(scope="module")
def served(settings: Settings, engine: Engine) -> Iterator[Served]:
    chat = Chat.open(settings)
    chat.engine.close()
    chat.engine = engine
    served = Served(serve(chat), http=Patient)
    yield served
    served.close()


@pytest.fixture
def visitor(served: Served) -> Iterator[httpx.Client]:
    """A browser with the page open."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        assert client.get("/").status_code == 200 and client.cookies[COOKIE]
        yield client


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code >= 400, answer.text[:200]
    assert answer.headers["content-type"].startswith("application/json"), answer.text[:200]
    return answer.json()["error"]


def config_of(visitor: httpx.Client) -> dict[str, Any]:
    return visitor.get("/config").json()


def importing(visitor: httpx.Client) -> int:
    """The number of the function that takes an upload."""
    config = config_of(visitor)
    button = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "import")
    return next(f["id"] for f in config["dependencies"] if button in f["inputs"])


def join(visitor: httpx.Client, function: int, data: list[Any], session: str = "abc") -> httpx.Response:
    event = {"fn_index": function, "data": data, "session_hash": session, "event_data": None, "trigger_id": None}
    return visitor.post("/gradio_api/queue/join", json=event)


def heard(visitor: httpx.Client, session: str) -> str:
    """What the page would get for the events of a session."""
    parts = []
    with visitor.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            parts.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
    return "\n".join(parts)


def upload(visitor: httpx.Client, content: bytes, name: str = "talk.jsonl") -> httpx.Response:
    return visitor.post("/gradio_api/upload", files={"files": (name, content)})


def as_file(path: str) -> dict[str, Any]:
    return {"path": path, "orig_name": "talk.jsonl", "meta": {"_type": "gradio.FileData"}}


def test_no_file_is_read_that_was_not_uploaded_in_the_session(
    served: Served, visitor: httpx.Client, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text(json.dumps(DIALOGUE, ensure_ascii=False), encoding="utf-8")
    function, line = importing(visitor), secret.read_bytes()
    own = upload(visitor, line).json()[0]
    with httpx.Client(base_url=served.url) as stranger:
        stranger.get("/")
        assert error_of(join(stranger, function, [as_file(own), "zh"]))["code"] == "foreign_file"
        assert error_of(stranger.get(f"/gradio_api/file={own}"))["code"] == "not_found"
    for path in (str(secret), "/etc/passwd", f"{own}/../../../etc/passwd", "file:///etc/passwd", "../../etc/passwd"):
        assert error_of(join(visitor, function, [as_file(path), "zh"]))["code"] == "foreign_file"
        assert error_of(join(visitor, function, [{"path": path}, "zh"]))["code"] == "foreign_file"
        assert error_of(visitor.get(f"/gradio_api/file={path}"))["code"] == "not_found"
    # A bare string is no file to the guard; the page asks again.
    assert join(visitor, function, [str(secret), "zh"], "bare").status_code == 200
    assert "誰的秘密" not in heard(visitor, "bare")
    assert join(visitor, function, [as_file(own), "zh"], "own").status_code == 200
    assert "誰的秘密" in heard(visitor, "own")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/"),
        ("GET", "/gradio_api/file//etc/passwd"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/custom_component/1/client/component/../../../x"),
        ("POST", "/gradio_api/run/bring"),
        ("POST", "/gradio_api/api/bring"),
        ("POST", "/gradio_api/call/bring"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/stream/1"),
        ("GET", "/gradio_api/dev/reload"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("PUT", "/gradio_api/upload"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/nothing"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd"),
    ],
)
def test_other_routes_are_closed(visitor: httpx.Client, method: str, path: str) -> None:
    error = error_of(visitor.request(method, path, content=b"{}" if method != "GET" else None))
    assert error["type"] == "invalid_request_error" and error["code"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, pickle.dumps({"data": []}), b'{"data": {}}', b"\xff\xfe",
     b'{"data": [], "fn_index": 99999, "session_hash": "x"}', b'{"data": [], "fn_index": -1, "session_hash": "x"}',
     b'{"data": ["\\ud800"], "fn_index": 0, "session_hash": "\\ud800"}',
     b'{"data": [1], "fn_index": 0, "session_hash": "x", "event_data": {"path": "/etc/passwd"}}',
     b"<html><script>alert(1)</script>"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/v1/chat/completions", "/gradio_api/cancel"])
def test_odd_bodies_have_typed_answers(visitor: httpx.Client, path: str, body: bytes) -> None:
    answer = visitor.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith(("application/json", "text/event-stream"))


def test_foreign_origins_and_hosts_are_refused(served: Served, visitor: httpx.Client) -> None:
    for origin in ("http://evil.example", "null", served.url.replace("127.0.0.1", "localhost.evil.example")):
        asked = {"model": "persona-v2", "messages": [{"role": "user", "content": "你好"}]}
        answer = visitor.post("/v1/chat/completions", json=asked, headers={"origin": origin})
        assert error_of(answer)["code"] == "foreign_origin"
        assert error_of(visitor.post("/gradio_api/upload", headers={"origin": origin}))["code"] == "foreign_origin"
    assert visitor.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
    assert visitor.get("/v1/models", headers={"origin": served.url}).status_code == 200


def test_large_and_slow_requests_end_in_time(
    served: Served, visitor: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error_of(visitor.post("/v1/chat/completions", content=b"x" * 10_000_000))["code"] == "request_too_large"
    assert error_of(upload(visitor, b"x" * 10_000_000))["code"] == "request_too_large"
    monkeypatch.setattr(http_request_guard, "BODY_S", 0.5)
    monkeypatch.setattr(http_request_guard, "HEAD_S", 0.5)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for sent, expected in ((head, b""), (head + b"Content-Length: 100\r\n\r\n{", b" 408 ")):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as line:
            line.sendall(sent)
            began = time.monotonic()
            assert httpx.get(f"{served.api}/models").status_code == 200  # others are served meanwhile
            assert expected in line.recv(65536) and time.monotonic() - began < 8


@pytest.mark.skipif(sys.platform != "linux", reason="a second loopback address")
def test_a_hundred_streams_of_one_caller_leave_room_for_others(served: Served) -> None:
    def listen(number: int) -> int:
        with client.stream("GET", f"/gradio_api/heartbeat/{number}") as stream:
            if stream.status_code == 200:
                done.wait(20)
            return stream.status_code

    done, other = threading.Event(), httpx.HTTPTransport(local_address="127.0.0.2")
    with (
        httpx.Client(base_url=served.url, timeout=30, limits=httpx.Limits(max_connections=None)) as client,
        httpx.Client(base_url=served.url, timeout=20, transport=other) as stranger,
        ThreadPoolExecutor(100) as threads,
    ):
        streams = [threads.submit(listen, number) for number in range(100)]
        refused = next(islice(as_completed(streams, timeout=30), 99 - http_request_guard.MOST_AT_ONCE, None))
        assert refused.result() == 429
        assert client.get("/v1/models").status_code == 429
        assert stranger.get("/v1/models").status_code == 200
        done.set()
        statuses = Counter(stream.result() for stream in streams)
    assert statuses == {200: http_request_guard.MOST_AT_ONCE, 429: 100 - http_request_guard.MOST_AT_ONCE}
    with httpx.Client(base_url=served.url, timeout=20) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "\u202e", "a" * 5_000, "v2:no"])
def test_what_is_no_model_is_not_found(visitor: httpx.Client, name: str) -> None:
    assert error_of(visitor.get(f"/v1/models/{name}"))["code"] in ("not_found", "model_not_found")
    asked = {"model": name, "messages": [{"role": "user", "content": "你好"}]}
    assert error_of(visitor.post("/v1/chat/completions", json=asked))["code"] in ("model_not_found", "invalid_value")


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return exec, ("import builtins; builtins.unpickled = True",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("talk.jsonl", pickle.dumps(Harm())),
        ("talk.pkl", pickle.dumps(Harm())),
        ("talk.html", b"<html><script>alert(1)</script>"),
        ("talk.jsonl", b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
        ("../../talk.jsonl", b"\xff\xfe\x00"),
        ("talk.jsonl", b"[" * 100_000),
    ],
)
def test_an_upload_that_is_no_dialogue_does_nothing(visitor: httpx.Client, name: str, content: bytes) -> None:
    answer = upload(visitor, content, name)
    assert answer.status_code < 500
    if answer.status_code == 200:
        (path,) = answer.json()
        assert ".." not in path
        joined = join(visitor, importing(visitor), [as_file(path), "zh"], "odd")
        assert joined.status_code < 500
        if joined.status_code == 200:
            assert '"msg":"process_completed"' in heard(visitor, "odd").replace(" ", "")
        shown = visitor.get(f"/gradio_api/file={path}")
        assert "text/html" not in shown.headers["content-type"] or "attachment" in shown.headers["content-disposition"]
    assert not hasattr(builtins, "unpickled")
    assert visitor.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"1": 5}},
        {"presence_penalty": 1.0},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"n": 9},
    ],
)
def test_what_is_not_done_is_refused(served: Served, asked: dict[str, Any]) -> None:
    client = openai.OpenAI(base_url=served.api, api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="persona-v2", messages=[{"role": "user", "content": "你好"}], **asked)
    assert raised.value.param == next(iter(asked)) and raised.value.code


def test_stop_seed_several_answers_and_usage(served: Served) -> None:
    client = openai.OpenAI(base_url=served.api, api_key="none", max_retries=0)
    asked: dict[str, Any] = {"model": "persona-v2:mentor", "messages": [{"role": "user", "content": "你好"}]}
    asked |= {"max_tokens": 12, "seed": 5}
    two = client.chat.completions.create(**asked, n=2)
    again = client.chat.completions.create(**asked, n=2)
    texts = [choice.message.content or "" for choice in two.choices]
    assert texts == [choice.message.content for choice in again.choices] and texts[0] != texts[1]
    word = texts[0][3:5]
    cut = client.chat.completions.create(**asked, stop=word).choices[0].message.content
    assert cut == texts[0][: texts[0].index(word)]
    events = list(client.chat.completions.create(**asked, n=2, stream=True, stream_options={"include_usage": True}))
    said = ["".join(c.delta.content or "" for e in events for c in e.choices if c.index == n) for n in (0, 1)]
    assert said == texts and events[-1].usage == two.usage and not events[-1].choices
    assert client.models.retrieve("persona-v2:mentor").id == "persona-v2:mentor"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_session_is_remembered_among_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request_guard, "MOST_SESSIONS", 2)
    uploads = Uploads()
    for session in "abc":
        uploads.add(session, [f"/uploads/{session}"])
    assert [uploads.holds(session, f"/uploads/{session}") for session in "abc"] == [False, True, True]
    assert not uploads.holds(None, "/uploads/c") and not uploads.holds("b", "/uploads/c")
    assert RefusedError(500, "x", "y").response().status_code == 500
