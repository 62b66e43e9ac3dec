"""The page in a real browser: ask, route, stop, switch, compare, export and import, at desktop and phone width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.chat.app import serve
from persona_dagster.chat.conversation import ConversationError, read_jsonl
from persona_dagster.chat.engine import Engine
from persona_dagster.chat.service import Chat
from persona_dagster.settings import Settings
from persona_dagster_tests.chat.serving import Served

pytestmark = pytest.mark.browser
NOTE = "#chat .thought-group .title"


@pytest.fixture(scope="module")
def served(settings: Settings, engine: Engine) -> Iterator[Served]:
    chat = Chat.open(settings)
    chat.engine.close()
    chat.engine = engine  # the session's, with its models in memory
    chat.engine.load(chat.first)
    served = Served(serve(chat))
    yield served
    served.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    from persona_dagster.scraping.browser import BrowserMissing, find_chromium

    try:
        path = find_chromium(None)
    except BrowserMissing as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()


def opened(chromium: Any, served: Served, width: int = 1280, locale: str = "zh-TW") -> Any:
    page = chromium.new_context(viewport={"width": width, "height": 860}, locale=locale).new_page()
    page.set_default_timeout(30_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda request: page.problems.append(request.url) if "127.0.0.1" not in request.url
            and not request.url.startswith(("data:", "blob:")) else None)  # fmt: skip
    page.goto(served.url)
    page.wait_for_selector("#question textarea")
    page.wait_for_timeout(500)
    return page


def ask(page: Any, text: str, turns: int) -> None:
    """Asks, and waits for the note with the figures that ends turn number `turns`."""
    page.fill("#question textarea", text)
    page.click("#send")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length >= {2 * turns}")


def test_english_and_a_phone(chromium: Any, served: Served) -> None:
    page = opened(chromium, served, width=390, locale="en-US")
    page.wait_for_selector("#send:has-text('Send')")
    ask(page, "主管又把鍋甩給我", 1)
    assert "Razor-tongued venting voice · Auto" in page.inner_text(NOTE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.problems == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "line 1: no JSON"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "user and assistant"),
        ("[]", "user and assistant"),
        ('{"messages": [{"role": "user", "content": 3}]}', "user and assistant"),
    ],
)
def test_an_import_that_is_no_dialogue_names_its_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConversationError, match=says):
        read_jsonl(path)
