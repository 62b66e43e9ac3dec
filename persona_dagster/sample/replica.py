"""The three sites on loopback: one thread a server, one free port a site, the sites' true pages with our own posts.

`with serve() as replica:` gives `replica.rewrites`, which maps each canonical origin to where it is served.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content, load
from persona_dagster.sample.dcard_site import DcardSite
from persona_dagster.sample.faults import CLEARANCE, OF_SITES, OF_WIRE, WIDGET, Rule, Scenario, answer
from persona_dagster.sample.http_messages import Request, Response, SiteServer
from persona_dagster.sample.ptt_site import PttSite
from persona_dagster.sample.threads_api_site import GraphSite
from persona_dagster.sample.threads_site import ThreadsSite

ORIGINS = {
    "ptt": "https://www.ptt.cc",
    "dcard": "https://www.dcard.tw",
    "threads": "https://www.threads.com",
    "graph": "https://graph.threads.net",
}
# Hosts beside the sites, at another address of loopback, so that a browser's rules about hosts tell them apart.
BESIDE = {"challenges": "https://challenges.cloudflare.com", "elsewhere": "https://assets.example"}
MAX_BODY = 1 << 20  # of a request


@dataclass(frozen=True)
class LoggedRequest:
    """One request, as the replica saw it."""

    site: str
    method: str
    target: str
    status: int
    at: float  # time.monotonic()
    from_browser: bool


@dataclass
class Replica:
    rewrites: dict[str, str]  # {"https://www.ptt.cc": "http://127.0.0.1:PORT", …}
    content: Content
    clock: Clock
    scenario: Scenario
    asked: deque[LoggedRequest] = field(default_factory=lambda: deque(maxlen=100_000))

    def url(self, canonical: str) -> str:
        """Where a canonical URL is served."""
        for origin, here in self.rewrites.items():
            if canonical.startswith(origin):
                return here + canonical[len(origin) :]
        raise ValueError(f"{canonical}: the replica serves only {', '.join(self.rewrites)}")


class Widgets:
    """What challenge pages load; and anything else that a page of a site may name: nothing that anybody needs."""

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response:
        return Response(body=WIDGET.encode(), content_type="text/javascript; charset=utf-8")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Binds without HTTPServer's look-up of the host's name, which can wait for a DNS that is not there."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who hangs up is no news; anything else is a fault of ours and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "replica"
    sys_version = ""
    disable_nagle_algorithm = True  # head and body are two writes: with it, 40 ms pass between them
    timeout = 60  # an idle connection does not keep its thread for ever
    name: str
    site: SiteServer
    replica: Replica

    def do_GET(self) -> None:
        self.handle_request()

    do_POST = do_HEAD = do_GET  # noqa: N815

    def handle_request(self) -> None:
        stated = self.headers.get("Content-Length") or "0"
        if not stated.isdecimal() or int(stated) > MAX_BODY:
            self.send_error(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(int(stated)))
        cleared = CLEARANCE in request.cookies
        rules = self.replica.scenario.pick(self.name, self.path, request.from_browser, cleared)
        response = self.answer(request, rules)
        asked = LoggedRequest(
            self.name, self.command, self.path, response.status, time.monotonic(), request.from_browser
        )
        self.replica.asked.append(asked)
        with suppress(ConnectionError):  # who asked may have gone; the fault tests make sure of it
            self.transmit(response, next((rule for rule in rules if rule.fault in OF_WIRE), None))

    def answer(self, request: Request, rules: list[Rule]) -> Response:
        if answered := next(filter(None, map(answer, rules)), None):
            return self.here(answered)
        if request.path == "/favicon.ico":
            return Response(204)
        return self.here(self.site.respond(request, {rule.fault for rule in rules}.intersection(OF_SITES)))

    def here(self, response: Response) -> Response:
        """Scripts and pictures of hosts beside the sites are served here too."""
        body = response.body
        for name in BESIDE.values():
            body = body.replace(f'src="{name}'.encode(), f'src="{self.replica.rewrites[name]}'.encode())
        return response if body is response.body else replace(response, body=body)

    def transmit(self, response: Response, rule: Rule | None) -> None:
        fault = rule.fault if rule else None
        body = response.body
        if fault == "hang" and rule:
            time.sleep(rule.seconds)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(body) + 1000 * (fault == "length")))
        for header, value in response.headers.items():
            self.send_header(header, value)
        if fault:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "slow" and rule:
            self.drip(body, rule.seconds)
        elif fault == "reset":
            self.wfile.write(body[: len(body) // 2])
            self.reset()
        else:
            self.wfile.write(body)

    def drip(self, body: bytes, seconds: float, steps: int = 50) -> None:
        """The body in `steps` pieces over `seconds`."""
        size = max(1, -(-len(body) // steps))
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(seconds / steps)

    def reset(self) -> None:
        """Ends the connection with RST in place of FIN, as a crashing server does."""
        self.rfile.close()  # it holds the socket open
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet: `Replica.asked` keeps the log."""


@contextmanager
def serve(
    content: Content | None = None, clock: Clock | None = None, scenario: Scenario | None = None
) -> Iterator[Replica]:
    """Serves the sites until the block ends. Defaults: the packaged posts, a clock in memory, no faults."""
    content, clock = content or load(), clock or Clock()
    replica = Replica({}, content, clock, scenario or Scenario())
    sites: dict[str, SiteServer] = {
        "ptt": PttSite(content, clock),
        "dcard": DcardSite(content, clock),
        "threads": ThreadsSite(content, clock),
        "graph": GraphSite(content, clock),
    }
    sites |= {name: Widgets() for name in BESIDE}
    servers = []
    for name, site in sites.items():
        handler = type(f"{name}Handler", (Handler,), {"name": name, "site": site, "replica": replica})
        host = "127.0.0.2" if name in BESIDE else "127.0.0.1"
        server = Server((host, 0), handler)
        replica.rewrites[(ORIGINS | BESIDE)[name]] = f"http://{host}:{server.server_address[1]}"
        servers.append(server)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield replica
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
