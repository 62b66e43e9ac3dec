"""The replica's pages against real ones: the same selectors hit, the same keys stand in the payloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from selectolax.lexbor import LexborHTMLParser

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import dcard_id, ptt_file, threads_code
from persona_dagster.sample.dcard_site import DcardSite
from persona_dagster.sample.replica import Replica
from persona_dagster.sample.threads_site import pk_of
from persona_dagster.sites.threads.payloads import page_payloads

PTT = "https://www.ptt.cc"
LISTING = (
    "#topbar a#logo",
    "#topbar a.board .board-label",
    "#action-bar-container .action-bar .btn-group-dir a.btn.selected",
    ".btn-group-paging > a.btn.wide:nth-child(4)",
    "div.r-list-container.action-bar-margin.bbs-screen > div.search-bar form#search-bar input.query",
    "div.r-list-container > div.r-ent > div.nrec > span.hl",
    "div.r-ent > div.title > a[href^='/bbs/']",
    "div.r-ent > div.meta > div.author",
    "div.r-ent > div.meta > div.article-menu div.dropdown > div.item > a[href*='search?q=author']",
    "div.r-ent > div.meta > div.date",
    "div.r-ent > div.meta > div.mark",
)
ARTICLE = (
    "head > meta[property='og:title']",
    "head > link[rel=canonical][href^='https://www.ptt.cc/bbs/']",
    "#navigation a.board",
    "#main-container > #main-content.bbs-screen.bbs-content > div.article-metaline > span.article-meta-tag",
    "#main-content > div.article-metaline > span.article-meta-tag + span.article-meta-value",
    "#main-content > div.article-metaline-right > span.article-meta-value",
    "#main-content > span.f2 > a",
    "#main-content > div.push > span.push-tag:nth-child(1)",
    "#main-content > div.push > span.f3.hl.push-userid:nth-child(2)",
    "#main-content > div.push > span.f3.push-content:nth-child(3)",
    "#main-content > div.push > span.push-ipdatetime:nth-child(4)",
    "#article-polling[data-pollurl][data-longpollurl][data-offset]",
)


def tree(html: str | bytes) -> LexborHTMLParser:
    return LexborHTMLParser(html if isinstance(html, str) else html.decode())


def real_ptt(shared_data: Path, kind: str, name: str) -> LexborHTMLParser:
    return tree((shared_data / "pages" / "ptt_html" / kind / name).read_text(encoding="utf-8"))


def test_listings(shared_data: Path, replica: Replica, adult: httpx.Client) -> None:
    real = real_ptt(shared_data, "index", "Gossiping__sha-15c96224.html")
    ours = tree(adult.get(replica.url(f"{PTT}/bbs/Boy-Girl/index.html")).content)
    for selector in (*LISTING, "div.r-list-container > div.r-list-sep ~ div.r-ent"):
        assert real.css_first(selector), f"the test is wrong: {selector}"
        assert ours.css_first(selector), selector


def test_articles(shared_data: Path, replica: Replica, adult: httpx.Client) -> None:
    real = real_ptt(shared_data, "article", "Gossiping__M.1786179614.A.51C.html")
    item = next(i for i in replica.content.ptt["Hate"] if i.pushes and i.day < 15 and not i.shape)
    ours = tree(adult.get(replica.url(f"{PTT}/bbs/Hate/{ptt_file('Hate', item)}.html")).content)
    for selector in (*ARTICLE, "div.bbs-footer-message"):
        assert real.css_first(selector), f"the test is wrong: {selector}"
        assert ours.css_first(selector), selector


def test_the_gate_and_the_404(shared_data: Path, replica: Replica) -> None:
    gates = sorted((shared_data / "pages" / "ptt_html" / "over18").glob("*.html"))
    ours = tree(httpx.get(replica.url(f"{PTT}/ask/over18"), params={"from": "/bbs/Hate/index.html"}).content)
    for selector in (
        "div.over18-notice > p",
        "form[action='/ask/over18'][method=post] > input[type=hidden][name=from][value^='/bbs/']",
        "form div.over18-button-container > button.btn-big[name=yes][value=yes]",
        "form button.btn-big[name=no]",
    ):
        assert all(real.css_first(selector) for real in (tree(gate.read_text(encoding="utf-8")) for gate in gates))
        assert ours.css_first(selector), selector
    real = real_ptt(shared_data, "error", "none__sha-ddc8ece4.html")
    missing = tree(httpx.get(replica.url(f"{PTT}/bbs/Boy-Girl/M.1.A.html")).content)
    for page in (real, missing):
        assert page.css_first("title").text() == "404"
        assert page.css_first("div.main-container > div.bbs-screen").text() == "404 - Not Found."


def key_types(value: Any, path: str = "") -> set[str]:
    """Paths of all keys, lists taken as one."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value} | {p for k, v in value.items() for p in key_types(v, f"{path}.{k}")}
    if isinstance(value, list):
        return {p for item in value for p in key_types(item, path + "[]")}
    return set()


def payload_paths(payloads: list[Any]) -> set[str]:
    """Key paths; those within a thread item are taken from there, since a page holds threads in several places."""
    paths = {path for payload in payloads for path in key_types(payload)}
    return {path.rpartition("thread_items[]")[2] if "thread_items[]" in path else path for path in paths}


def load(path: Path) -> Any:
    return orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))


def test_dcard_keys_are_the_sites_own(shared_data: Path, replica: Replica) -> None:
    pages = shared_data / "pages" / "dcard"
    known: set[str] = set()
    for path in [*(pages / "detail").glob("*.json"), *(pages / "list").glob("*.json")]:
        value = load(path)
        for post in value if isinstance(value, list) else [value]:
            known |= set(post) | set(post.get("content", {}) if isinstance(post.get("content"), dict) else {})
    site = DcardSite(replica.content, Clock())
    for forum, items in replica.content.dcard.items():
        for item in items:
            assert set(site.post(forum, item, whole=True)) <= known
            assert dcard_id(forum, item) > 240_614_362, "newer than the newest real one"
    comments = load(pages / "comments" / "douglaswu_dcard_comments_2017-11.json")
    real = {key for comment in comments for key in comment}
    ours = {key for item in replica.content.dcard["mood"] for row in site.comment_rows("mood", item) for key in row}
    assert ours - real <= {"reactions"} and {"floor", "content", "hidden", "postId"} <= ours


def test_threads_keys_and_paths_are_the_sites_own(shared_data: Path, replica: Replica) -> None:
    real_page = next((shared_data / "pages" / "threads" / "html").glob("*.html")).read_text(encoding="utf-8")
    relay = load(next((shared_data / "pages" / "threads" / "relay").glob("*.json")))
    real = payload_paths([*page_payloads(real_page), relay])
    for item in [item for item in replica.content.threads["失戀"] if item.day <= 20][:8]:
        page = httpx.get(replica.url(f"https://www.threads.com/@{item.user}/post/{threads_code(pk_of(item))}")).text
        # No real page at hand mentions anybody, so what a mention holds is told by others only.
        odd = {path for path in payload_paths(page_payloads(page)) - real if ".mention_fragment." not in path}
        assert not odd
    assert "related" in real_page and '"relatedPosts"' in page


@pytest.mark.parametrize(
    "name", ["BarcelonaPostPageDirectQuery", "data-sjs", "has-finished-comet-page", "data-content-len"]
)
def test_threads_markers(shared_data: Path, replica: Replica, name: str) -> None:
    real = next((shared_data / "pages" / "threads" / "html").glob("*.html")).read_text(encoding="utf-8")
    item = next(item for item in replica.content.threads["職場"] if item.day < 15)
    ours = httpx.get(replica.url(f"https://www.threads.com/@{item.user}/post/{threads_code(pk_of(item))}")).text
    assert name in real and name in ours
