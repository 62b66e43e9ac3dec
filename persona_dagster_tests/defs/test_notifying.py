"""A failure reaches a person on every way that is set, and a deaf way fails nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer, StreamRequestHandler, TCPServer

import pytest

from persona_dagster.defs.notifying import notify

TOLD = "retrain persona_v2 failed (run 1): 記憶體不足\nthe cure"
LOG = logging.getLogger("told")


@contextmanager
def serving(server: BaseServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]  # type: ignore[index]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_server(got: list[bytes]) -> Iterator[int]:
    """As much of SMTP as one message needs."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                word = line.split()[0].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    body = b""
                    while (line := self.rfile.readline()) != b".\r\n":
                        body += line
                    got.append(body)
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                if word == b"QUIT":
                    return

    with serving(TCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


@contextmanager
def webhook(got: list[bytes]) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


def test_a_failure_is_posted_and_mailed(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[bytes] = []
    mailed: list[bytes] = []
    with webhook(posted) as web, mail_server(mailed) as smtp:
        monkeypatch.setenv("PERSONA_WEBHOOK_URL", f"http://127.0.0.1:{web}/hook")
        monkeypatch.setenv("PERSONA_SMTP_URL", f"smtp://127.0.0.1:{smtp}")
        monkeypatch.setenv("PERSONA_MAIL_TO", "ops@example.org")
        notify(TOLD, LOG)
    assert [json.loads(body) for body in posted] == [{"text": TOLD}]
    (message,) = (message_from_bytes(body, policy=policy.default) for body in mailed)
    assert message["To"] == "ops@example.org" and "persona_v2 failed" in message["Subject"]
    assert message.get_content().split("\r\n")[:2] == TOLD.split("\n")


def test_deaf_ways_fail_nothing_and_tell_no_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PERSONA_WEBHOOK_URL", "http://127.0.0.1:9/planted")
    monkeypatch.setenv("PERSONA_SMTP_URL", "smtp://planted:planted@127.0.0.1:9")
    monkeypatch.setenv("PERSONA_MAIL_TO", "ops@example.org")
    notify(TOLD, LOG)
    assert "PERSONA_WEBHOOK_URL did not take" in caplog.text and "PERSONA_SMTP_URL did not take" in caplog.text
    assert "planted" not in caplog.text


def test_without_a_way_only_the_log_tells(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("PERSONA_WEBHOOK_URL", "PERSONA_SMTP_URL"):
        monkeypatch.delenv(name, raising=False)
    notify(TOLD, LOG)
    assert [record.getMessage() for record in caplog.records] == [TOLD]
