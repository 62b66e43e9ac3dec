"""The page in a real browser: ask, route, stop, switch, compare, export and import, at desktop and phone width."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from persona_dagster.chat.app import serve
from persona_dagster.chat.conversation import ConversationError, read_jsonl
from persona_dagster.chat.engine import Engine
from persona_dagster.chat.interface_texts import say
from persona_dagster.chat.service import Chat
from persona_dagster.config.personas import Personas
from persona_dagster.intake.capybara import read_dialogues
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

    from persona_dagster.crawl.browser import BrowserMissing, find_chromium

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
    page.set_default_timeout(120_000)  # of a loaded machine
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda line: page.problems.append(line.text) if line.type == "error" else None)
    page.on("response", lambda answer: page.problems.append(f"{answer.status} {answer.url}") if answer.status >= 400
            else None)  # fmt: skip
    page.on("request", lambda request: page.problems.append(request.url) if "127.0.0.1" not in request.url
            and not request.url.startswith(("data:", "blob:")) else None)  # fmt: skip
    page.goto(served.url)
    page.wait_for_selector("#question textarea")
    page.wait_for_timeout(500)
    return page


def toggle_settings(page: Any) -> None:
    page.click("#open-settings")
    page.wait_for_timeout(300)


def ask(page: Any, text: str, turns: int) -> None:
    """Asks, and waits for the note with the figures that ends turn number `turns`."""
    page.fill("#question textarea", text)
    page.click("#send")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length >= {2 * turns}")


def look(page: Any, name: str) -> None:
    """A screenshot for a person to look at, where $PERSONA_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PERSONA_SCREENSHOTS"):
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder, f"{name}.png")))


def test_a_conversation_from_routing_to_export_and_back(chromium: Any, served: Served, tmp_path: Path) -> None:
    page = opened(chromium, served)
    ask(page, "我好像失戀了", 1)
    assert "感性感情導師 · 自動" in page.inner_text(NOTE)
    ask(page, "Transformer", 2)
    assert "NLP 技術助教 · 自動" in page.locator(NOTE).nth(2).inner_text()
    page.get_by_role("radio", name="極品感情嘴替").check()
    ask(page, "<img src=x onerror=alert(1)><script>alert(2)</script> http://evil.example/x.png", 3)
    assert page.locator(NOTE).nth(4).inner_text().strip() == "極品感情嘴替"
    assert page.locator("#chat img[src='x'], #chat .message script").count() == 0
    assert page.locator("#chat .user .message-content").last.inner_text().startswith("<img src=x onerror=alert(1)>")
    look(page, "desktop")

    toggle_settings(page)
    page.click("#export")
    page.wait_for_selector("text=匯出前請先勾選同意")
    page.check("#consent input")
    page.click("#export")
    page.wait_for_selector("#exported a")
    look(page, "desktop-settings")
    with page.expect_download() as download:
        page.locator("#exported a").first.click()
    path = tmp_path / "capybara-chat.jsonl"
    download.value.save_as(path)
    row = json.loads(path.read_text(encoding="utf-8"))
    assert row["consent"] is True
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
    assert row["messages"][0]["content"] == "我好像失戀了"
    assert len(list(read_dialogues(path))) == 1  # as a raw source

    with page.expect_file_chooser() as chooser:
        page.click("#import")
    chooser.value.set_files(path)
    page.wait_for_selector("text=輪對話")
    assert page.problems == []


@pytest.mark.soak
def test_every_persona_answers_and_is_asked_again(chromium: Any, served: Served, personas: Personas) -> None:
    page = opened(chromium, served)
    for turns, persona in enumerate(personas.personas.values(), start=1):
        page.get_by_role("radio", name=persona.tag.strip("[]")).check()
        ask(page, persona.probes[0], turns)
        assert page.locator(NOTE).nth(2 * turns - 2).inner_text().strip() == persona.tag.strip("[]")
    answers = page.locator("#chat .bot .message-content")
    page.click("#retry")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length == 5")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length == 6")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#chat button[title='Copy conversation'], #chat button[aria-label='Copy conversation']").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "什麼是 Transformer" in copied
    assert answers.count() >= 3
    page.click("#clear")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length == 0")
    assert page.problems == []


@pytest.mark.soak
def test_stop_side_by_side_and_another_adapter(chromium: Any, served: Served) -> None:
    page = opened(chromium, served)
    toggle_settings(page)
    page.get_by_role("radio", name="與原始模型並排").check()
    page.click("#adapter input")
    page.get_by_role("option", name="Version 1.0").click()
    page.wait_for_selector("#status:has-text('Version 1.0')")
    toggle_settings(page)
    page.get_by_role("radio", name="模型自己選").check()
    page.fill("#question textarea", "說很久很久")
    page.click("#send")
    page.wait_for_selector("#chat .bot")
    page.click("#stop")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length >= 2")
    assert page.is_visible("#base-chat")
    page.wait_for_function("document.querySelectorAll('#base-chat .thought-group .title').length >= 2")
    look(page, "desktop-side-by-side")
    page.click("#clear")
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length == 0")
    assert page.problems == []


def test_thumbs_are_kept_and_exported_with_consent(chromium: Any, served: Served, tmp_path: Path) -> None:
    page = opened(chromium, served)
    ask(page, "我好像失戀了", 1)
    ask(page, "Transformer", 2)
    page.locator("#chat button[aria-label='不讚'], #chat button[aria-label='Dislike']").last.click()
    page.wait_for_selector(f"text={say('voted', 'zh')}")
    toggle_settings(page)
    page.check("#consent input")
    page.click("#export")
    page.wait_for_selector("#exported a")
    with page.expect_download() as download:
        page.locator("#exported a").first.click()
    path = tmp_path / "capybara-chat.jsonl"
    download.value.save_as(path)
    row = json.loads(path.read_text(encoding="utf-8"))
    assert [turn["vote"] for turn in row["turns"]] == [None, "down"]
    assert [turn.vote for turn in read_jsonl(path).turns] == [None, "down"]
    look(page, "thumbs")
    assert page.problems == []


CONTROLS = ("#language", "#open-settings", "#who", "#question", "#send", "#stop", "#mode", "#retry", "#clear")


SETTINGS = ("#adapter", "#filtering", "#consent", "#export", "#import")


def hidden(page: Any, names: tuple[str, ...] = CONTROLS) -> list[str]:
    """Controls that are not wholly on the page's width, or that something else covers."""
    return page.evaluate(
        """names => names.filter(name => {
            const node = document.querySelector(name);
            node.scrollIntoView({block: "center"});
            const box = node.getBoundingClientRect();
            const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return box.width < 20 || box.x < 0 || box.right > innerWidth + 1 || !(top && node.contains(top));
        })""",
        list(names),
    )


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_is_hidden_at_any_width_and_an_example_sends(chromium: Any, served: Served, width: int) -> None:
    page = opened(chromium, served, width)
    look(page, f"{width}-empty")
    assert hidden(page) == []
    page.locator("#chat .example").first.click()
    page.wait_for_function(f"document.querySelectorAll('{NOTE}').length >= 2")
    look(page, f"{width}-answered")
    page.get_by_role("radio", name="與原始模型並排").check()
    toggle_settings(page)
    page.wait_for_selector("#import")
    assert hidden(page, (*CONTROLS, *SETTINGS)) == []
    assert page.is_visible("#base-chat") and page.is_visible("#settings")
    look(page, f"{width}-side-by-side")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == []


def test_english_and_a_phone(chromium: Any, served: Served) -> None:
    page = opened(chromium, served, width=390, locale="en-US")
    page.wait_for_selector("#send:has-text('Send')")
    look(page, "phone-empty")
    ask(page, "主管又把鍋甩給我", 1)
    assert "Razor-tongued venting voice · Auto" in page.inner_text(NOTE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    look(page, "phone")
    page.click("#send")
    page.wait_for_selector("text=Please type something first")
    assert page.problems == []


def test_beyond_loopback_the_page_and_the_api_ask_for_the_key(settings: Settings, engine: Engine) -> None:
    chat = Chat.open(settings)
    chat.engine.close()
    chat.engine = engine
    served = Served(serve(chat, "sesame"))
    try:
        with httpx.Client(base_url=served.url) as browser:
            assert browser.get("/config").status_code == 401
            assert browser.post("/login", data={"username": "persona", "password": "guess"}).status_code == 400
            assert browser.get("/v1/models").status_code == 401
            assert browser.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200
            assert browser.post("/login", data={"username": "persona", "password": "sesame"}).status_code == 200
            assert browser.get("/config").status_code == 200
    finally:
        served.close()


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


ALL_WORDS = """() => {
    const found = new Set(), names = ["title", "aria-label", "placeholder"];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (parent.checkVisibility() && !parent.closest("script, style, .message-content, noscript"))
            found.add(walk.currentNode.data.trim());
    }
    for (const node of document.querySelectorAll(names.map(name => `[${name}]`).join(", ")))
        for (const name of node.checkVisibility() ? names : []) found.add((node.getAttribute(name) || "").trim());
    return [...found].filter(text => text);
}"""
# Names, units and what a persona is called: the same in both languages.
NAMES = re.compile(
    r"PersonaLlama(?:-3)?|Version [\d.]+|English|中文|語言 Language|Hub|owner/name|\.?JSONL|Top-p|tokens?|NLP"
    r"|Transformer|tiny:llama|persona-v\d(?:@\w+)?|capybara-chat-[\d-]+|[\d.]+ ?k?B|[a-f0-9]{8}",
    re.IGNORECASE,
)


# What was typed or answered, after the label with which it is read out; and what is quoted from personas.
SAID = re.compile(r"^(回答：|你：|bot's message: |user's message: ).*|“[^”]*”|「[^」]*」", re.DOTALL)


def foreign(texts: list[str], language: str) -> list[str]:
    """Texts of the page with words that are not of its language."""
    letters = re.compile(r"[A-Za-z]{2,}" if language == "zh" else r"[\u4e00-\u9fff]")
    return sorted(text for text in texts if letters.search(NAMES.sub("", text)))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_both_languages_are_whole(chromium: Any, served: Served, personas: Personas, language: str) -> None:
    """The page's own choice counts, whatever the browser's language, in which it greets first."""
    page = opened(chromium, served, locale="en-US")
    page.wait_for_selector(f"#send:has-text('{say('send', 'en')}')")
    if language == "zh":
        page.locator("#language").get_by_text("中文").click()
        page.wait_for_selector(f"#send:has-text('{say('send', 'zh')}')")
        page.wait_for_timeout(2500)  # a status that was asked for before in the other language comes, and goes
    words = set(page.evaluate(ALL_WORDS))
    ask(page, "我好像失戀了", 1)
    toggle_settings(page)
    page.locator("#settings .label-wrap:not(.open)").click()  # sampling; history stands open
    page.wait_for_timeout(300)
    words |= set(page.evaluate(ALL_WORDS))
    page.click("#export")
    page.wait_for_selector(f"text={say('need_consent', language)}")  # type: ignore[arg-type]
    words |= set(page.evaluate(ALL_WORDS))
    told = [text for persona in personas.personas.values() for text in (*persona.probes, persona.tag.strip("[]"))]
    own = [re.sub("|".join(map(re.escape, told)), "", SAID.sub(lambda found: found[1] or "", text)) for text in words]
    left = foreign(own, language)
    assert left == [], "\n".join(left)
    assert page.evaluate("document.documentElement.lang") == {"zh": "zh-Hant", "en": "en"}[language]
    assert page.problems == []
