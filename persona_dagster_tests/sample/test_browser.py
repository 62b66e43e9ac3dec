"""The replica in a real Chromium: through the gate by clicking, down the lists by scrolling, asking nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from persona_dagster.crawl.transport import Transport
from persona_dagster.sample.content_loader import Content, ptt_file
from persona_dagster.sample.replica import Replica, serve
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
COMMENTS = [{"text": f"留言 {n}"} for n in range(30)]
CONTENT = Content(
    {"Hate": [ptt_item(n, day=n // 2, shape="picture") for n in range(30)]},
    {"mood": [dcard_item(n, day=n // 3, comments=COMMENTS) for n in range(40)]},
    {"失戀": [threads_item(n, day=n // 4) for n in range(50)]},
)


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Replica, Page, list[str]]]:
    """The replica, a page, and every address that the page asked for."""
    path = Transport().browser_path()
    if path is None:
        pytest.skip("no Chromium on PATH; install chromium-headless-shell")
    from playwright.sync_api import sync_playwright

    with serve(CONTENT) as replica, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=FLAGS)
        page = browser.new_page(viewport={"width": 900, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        yield replica, page, asked
        browser.close()


def scroll_to_the_end(page: Page, selector: str, expected: int) -> int:
    """Scrolls until `expected` elements are there, or for 6 seconds."""
    for _ in range(60):
        if page.locator(selector).count() >= expected:
            break
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(100)
    return page.locator(selector).count()


def test_clicking_through_the_gate_to_an_article(opened: tuple[Replica, Page, list[str]]) -> None:
    replica, page, _ = opened
    page.goto(replica.url("https://www.ptt.cc/bbs/Hate/index.html"))
    assert "/ask/over18?from=" in page.url
    with page.expect_navigation(url="**/bbs/Hate/index.html"):
        page.click("button[name=yes]")
    assert page.locator("div.r-ent").count() == 10, "30 articles are a page of 20 and one of 10"
    assert [cookie["name"] for cookie in page.context.cookies()] == ["over18"]
    page.locator("div.r-ent .title a").first.click()
    page.wait_for_selector("#main-content")
    newest = {ptt_file("Hate", item) for item in CONTENT.ptt["Hate"][20:]}
    assert page.url.rsplit("/", 1)[1].removesuffix(".html") in newest


def test_the_inline_script_sends_a_browser_without_the_cookie_to_the_gate(
    opened: tuple[Replica, Page, list[str]],
) -> None:
    replica, page, _ = opened
    page.context.clear_cookies()
    page.context.add_cookies([{"name": "over18", "value": "maybe", "url": replica.rewrites["https://www.ptt.cc"]}])
    page.goto(replica.url("https://www.ptt.cc/bbs/Hate/index.html"))
    page.wait_for_url("**/ask/over18?from=*")


def test_a_forum_loads_more_as_one_scrolls(opened: tuple[Replica, Page, list[str]]) -> None:
    replica, page, asked = opened
    page.goto(replica.url("https://www.dcard.tw/f/mood"))
    page.wait_for_selector("article")
    assert page.locator("article").count() == 15
    assert scroll_to_the_end(page, "article", 40) == 40
    assert sum("globalPaging" in url for url in asked) == 3
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("article h2 a").last.click()
    page.wait_for_selector("h1")
    assert scroll_to_the_end(page, "article", 31) == 31, "the post and its 30 comments"
    id_ = page.url.rsplit("/", 1)[1]
    body = page.evaluate("(path) => fetch(path).then((answer) => answer.json())", f"/service/api/v2/posts/{id_}")
    assert body["content"] == CONTENT.dcard["mood"][0].content, "an in-page fetch carries the session"


def test_a_search_loads_more_as_one_scrolls(opened: tuple[Replica, Page, list[str]]) -> None:
    replica, page, _ = opened
    page.goto(replica.url("https://www.threads.com/search?q=失戀"))
    assert page.locator("#feed > div").count() == 30
    assert scroll_to_the_end(page, "#feed > div", 50) == 50
    page.locator("#feed > div a").first.click()
    page.wait_for_url("**/post/*")
    assert page.locator("#feed > div").count() == 1, "strangers' posts are not drawn"


def test_nothing_but_pictures_of_posts_is_asked_of_others(opened: tuple[Replica, Page, list[str]]) -> None:
    _, _, asked = opened
    abroad = [url for url in asked if not url.startswith("http://127.0.0.1:")]
    assert all(url.startswith("https://i.imgur.com/replica") for url in abroad), abroad
