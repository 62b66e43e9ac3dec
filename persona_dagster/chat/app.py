"""Serves the chat's page and the OpenAI-compatible API from one process, on loopback unless told otherwise."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any

from persona_dagster.chat import render
from persona_dagster.chat.api import LOOPBACK, build_api
from persona_dagster.chat.http_request_guard import Guard, Patient
from persona_dagster.chat.page import build_page
from persona_dagster.chat.service import Chat
from persona_dagster.settings import Settings

log = logging.getLogger(__name__)

KEY_VARIABLE = "PERSONA_CHAT_KEY"


def launch(settings: Settings, host: str = "127.0.0.1", port: int = 7860, recipe: str | None = None) -> None:
    """Serves `http://host:port/` and the API under `/v1` until interrupted; the model loads meanwhile.

    Beyond loopback both ask for a key: $PERSONA_CHAT_KEY, or one made and printed at the start.

    Raises:
        AdapterError: no adapter of `recipe` here.
    """
    import uvicorn

    chat = Chat.open(settings, recipe)
    key = None
    if host not in LOOPBACK:
        key = os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(18)
        log.warning("the chat is open to %s: user `persona`, password and API key: %s", host, key)
    chat.engine.load(chat.first)
    log.warning("chat on http://%s:%d/ and API on http://%s:%d/v1", host, port, host, port)
    uvicorn.run(serve(chat, key), host=host, port=port, log_level="warning", http=Patient, ws="none")


def serve(chat: Chat, key: str | None = None) -> Any:
    """The whole as one ASGI application; `key` is asked for by both where there is one."""
    import gradio as gr

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    app = gr.mount_gradio_app(
        build_api(chat.settings, chat.engine, chat.router, key),
        build_page(chat),
        path="/",
        auth=("persona", key) if key else None,
        css=render.css(chat.personas),
        head=render.script(),
        theme=gr.themes.Soft(
            primary_hue="indigo",
            radius_size="lg",
            # `Font`: a plain name would be looked for as a file on the server.
            font=[gr.themes.Font("system-ui"), gr.themes.Font("sans-serif")],
            font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
        ),
        footer_links=[],
        max_file_size="4mb",
        show_error=False,
        allowed_paths=[],
    )
    return Guard(app, chat.uploads)
