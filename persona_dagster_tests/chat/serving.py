"""An ASGI application on a free loopback port, in a thread, for as long as a test needs it."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn


class Served:
    def __init__(self, app: Any, http: Any = "auto") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", http=http)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 30
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.02)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    def close(self) -> None:
        self.server.should_exit = self.server.force_exit = True  # a browser's open stream would hold it for long
        self.thread.join(10)
