"""The operator's own browser over the DevTools protocol: crawled through, listened to, and shown a challenge."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import IMPORT_BOARD, Sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.crawl.browser import BrowserError
from persona_dagster.crawl.browser_capture import Bridge, BridgeReport
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.fetcher import CrawlReport
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import FORUMS, Source
from persona_dagster.sample.content_loader import Content, dcard_id, ptt_file, threads_code
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sample.threads_site import pk_of
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
PUSH = [{"user": "reader01", "text": "推個"}]
REPLIES = [{"user": "other", "text": "回你"}]
CONTENT = Content(
    {"Boy-Girl": [ptt_item(n, pushes=PUSH) for n in range(3)], "Hate": [ptt_item(9)]},  # which asks for one's age first
    {"mood": [dcard_item(n, day=n // 3, comments=[{"text": f"留言 {n}"}]) for n in range(16)]},
    {"失戀": [threads_item(n, replies=REPLIES) for n in range(3)]},
)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Replica]:
    with serve(CONTENT) as running:
        yield running


def quiet(_: str) -> None:
    """The log of these walks is no one's business."""


@contextmanager
def operators_chromium(folder: Path) -> Iterator[str]:
    """A browser as the operator would start it, with the DevTools port open; gives its address."""
    path = Transport().browser_path()
    if path is None:
        pytest.skip("no Chromium on PATH; install chromium-headless-shell")
    flags = ["--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-sandbox", "--no-first-run", "--headless"]
    process = subprocess.Popen(
        [path, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield f"http://127.0.0.1:{wait_for(lambda: port_of(folder / 'DevToolsActivePort'))}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # Debian's launcher is a script, with the browser below it
        process.wait()


def port_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n")[0] if path.exists() else ""


def wait_for(what: Callable[[], str]) -> str:
    for _ in range(1200):
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing within a minute")


def test_dcard_over_the_operators_own_browser(crowd: Replica, tiny: Sources, tmp_path: Path) -> None:
    with operators_chromium(tmp_path / "profile") as cdp:
        before = {page["id"] for page in httpx.get(f"{cdp}/json/list").json() if page["type"] == "page"}
        archive = Archive(tmp_path / "raw")
        transport = Transport(crowd.rewrites, cdp_url=cdp)
        report = crawl_board("dcard", "mood", tiny, archive, transport=transport, log=quiet)
        assert report.complete, report.why
        assert report.new == 16
        after = {page["id"] for page in httpx.get(f"{cdp}/json/list").json() if page["type"] == "page"}
    assert after == before, "the operator's pages stand, and ours is gone"


def test_no_browser_at_the_address_is_told(crowd: Replica, tiny: Sources, tmp_path: Path) -> None:
    transport = Transport(crowd.rewrites, cdp_url="http://127.0.0.1:9")
    report = crawl_board("dcard", "mood", tiny, Archive(tmp_path), transport=transport, log=quiet)
    assert report.refused
    assert "Chromium does not start" in report.stopped


@contextmanager
def screen() -> Iterator[str]:
    """An X server that draws into memory."""
    if not shutil.which("Xvfb") or not Transport(headed=True).browser_path():
        pytest.skip("no Xvfb or no full Chromium; apt install xvfb chromium")
    read, write = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x900x24", "-nolisten", "tcp"],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f":{os.read(read, 16).decode().strip()}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.soak
def test_dcard_headed_under_a_virtual_screen(
    crowd: Replica, tiny: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with screen() as display:
        monkeypatch.setenv("DISPLAY", display)
        transport = Transport(crowd.rewrites, headed=True)
        report: CrawlReport = crawl_board("dcard", "mood", tiny, Archive(tmp_path), transport=transport, log=quiet)
    assert report.complete, report.why
    assert report.new == 16


@contextmanager
def person_at(cdp: str) -> Iterator[Page]:
    """A page of the operator's browser, and hands to use it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.connect_over_cdp(cdp).contexts[0].new_page()


@contextmanager
def listening(cdp: str, archive: Archive, running: Replica, denied: tuple[str, ...] = ()) -> Iterator[BridgeReport]:
    """The bridge, in a thread of its own as in a process of its own."""
    loop, stop, said = asyncio.new_event_loop(), asyncio.Event(), list[str]()
    bridge = Bridge(archive, Transport(running.rewrites), denied, said.append)
    thread = threading.Thread(target=lambda: loop.run_until_complete(bridge.run(cdp, stop)))
    thread.start()
    wait_for(lambda: "".join(said))
    try:
        yield bridge.passed
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def addresses(running: Replica) -> dict[Source, str]:
    """Of one post of each site."""
    content = running.content
    return {
        "ptt": f"https://www.ptt.cc/bbs/Boy-Girl/{ptt_file('Boy-Girl', content.ptt['Boy-Girl'][1])}.html",
        "dcard": f"https://www.dcard.tw/f/mood/p/{dcard_id('mood', content.dcard['mood'][1])}",
        "threads": f"https://www.threads.com/@user1/post/{threads_code(pk_of(content.threads['失戀'][1]))}",
    }


@pytest.mark.parametrize("dcard", ["json", "rendered"])
def test_what_the_operator_browses_is_archived_as_it_passes(tmp_path: Path, dcard: str) -> None:
    archive = Archive(tmp_path / "raw")
    rules = [Rule("rendered", "dcard/f/mood/p/", times=None)] if dcard == "rendered" else []
    with serve(CONTENT, scenario=Scenario(rules)) as running, operators_chromium(tmp_path / "profile") as cdp:
        pages = addresses(running)
        with listening(cdp, archive, running) as passed, person_at(cdp) as page:
            of_dcard = 1 if rules else 2  # the comments come by themselves
            visits = [("https://www.ptt.cc/bbs/Hate/index.html", 0), (pages["ptt"], 1), (pages["dcard"], 1 + of_dcard)]
            visits += [(pages["threads"], 2 + of_dcard), (pages["ptt"], 3 + of_dcard)]
            for address, read in visits:
                page.goto(running.url(address), wait_until="networkidle")
                wait_for(lambda read=read: "x" * (sum(passed.kept.values()) + passed.known >= read))
        assert len([one for one in running.asked if "/M." in one.target]) == 2, "the bridge asks for nothing"
    kept = {"ptt": 1, "dcard": of_dcard, "threads": 1}
    assert (passed.kept, passed.known, passed.lost) == (kept, 1, [])
    for source, words in (("ptt", {"這是第 1 篇", "推個"}), ("dcard", {"內容 1"}), ("threads", {"一句話 1", "回你"})):
        found = parse_board(archive.latest(source, IMPORT_BOARD), str)
        assert not found.problems
        assert all(any(word in post.text_raw for post in found.posts) for word in words), source
    captures = [one for source in FORUMS for one in archive.every(source, IMPORT_BOARD)]
    assert not any("?" in one.url or one.headers for one in captures)
    assert not any(b"<script" in one.body for one in captures if one.source != "ptt"), "they tell who is logged in"
    replies = [post for post in parse_board(archive.latest("threads", IMPORT_BOARD), str).posts if post.parent_id]
    assert [reply.parent_id for reply in replies] == [pages["threads"].rsplit("/", 1)[1]]


def test_boards_that_are_denied_pass_by(tmp_path: Path, crowd: Replica) -> None:
    archive = Archive(tmp_path / "raw")
    with (
        operators_chromium(tmp_path / "profile") as cdp,
        listening(cdp, archive, crowd, denied=("boy-girl", "MOOD")) as passed,
        person_at(cdp) as page,
    ):
        for address in list(addresses(crowd).values())[:2]:
            page.goto(crowd.url(address), wait_until="networkidle")
        wait_for(lambda: "x" * (passed.denied >= 3))
    assert (passed.kept, passed.denied) == ({}, 3), "an article, a post and its comments"


def test_an_archive_that_cannot_be_written_ends_it(tmp_path: Path, crowd: Replica) -> None:
    class Full(Archive):
        def append(self, *_: object, **__: object) -> int:
            raise OSError(28, "No space left on device")

    said, failed = list[str](), list[str | None]()
    bridge = Bridge(Full(tmp_path / "raw"), Transport(crowd.rewrites), log=said.append)

    def listen(cdp: str) -> None:
        try:
            asyncio.run(bridge.run(cdp, asyncio.Event()))
        except OSError as error:
            failed.append(error.strerror)

    with operators_chromium(tmp_path / "profile") as cdp:
        thread = threading.Thread(target=listen, args=(cdp,))
        thread.start()
        wait_for(lambda: "".join(said))
        with person_at(cdp) as page:
            page.goto(crowd.url(addresses(crowd)["ptt"]))
        thread.join(60)
    assert failed == ["No space left on device"]


def test_nobody_there_to_listen_to_is_said(tmp_path: Path) -> None:
    bridge = Bridge(Archive(tmp_path), Transport(), log=quiet)
    with pytest.raises(BrowserError, match="remote-debugging-port"):
        asyncio.run(bridge.run("http://127.0.0.1:9", asyncio.Event()))


def press(cdp: str) -> None:
    """What a person does who sees the challenge."""
    from playwright.sync_api import Error

    with person_at(cdp) as page:
        for _ in range(150):
            for other in page.context.pages:
                with suppress(Error):  # it goes on to another page just now
                    if button := other.query_selector("button[name=human]"):
                        button.click()
                        return
            page.wait_for_timeout(100)


def challenged(
    folder: Path, tiny: Sources, answered: bool, patience: float, where: str = "dcard/"
) -> tuple[CrawlReport, Replica]:
    rules = [Rule("challenge", where, times=None, spares_cleared=True), Rule("assets", "dcard/f/", times=None)]
    with serve(CONTENT, scenario=Scenario(rules)) as running, operators_chromium(folder / "profile") as cdp:
        person = threading.Thread(target=press, args=(cdp,)) if answered else None
        if person:
            person.start()
        transport = Transport(running.rewrites, cdp_url=cdp, patience=patience)
        report = crawl_board("dcard", "mood", tiny, Archive(folder / "raw"), transport=transport, log=quiet)
        if person:
            person.join(20)
    return report, running


@pytest.mark.parametrize("where", ["dcard/", "dcard/service/api/v2/posts"])
def test_a_challenge_is_left_to_the_operator(tmp_path: Path, tiny: Sources, where: str) -> None:
    """At the first page, or in the midst of it, at an in-page fetch."""
    report, running = challenged(tmp_path, tiny, answered=True, patience=15, where=where)
    assert report.complete, report.why
    assert report.new == 16
    asked = [one.site for one in running.asked]
    assert asked.count("challenges") == 1, "its own host, while it is shown, though every page names it"
    assert set(asked) == {"dcard", "challenges"}
    assert where != "dcard/" or asked[1] == "challenges"


def test_a_challenge_that_nobody_answers_closes_the_host(tmp_path: Path, tiny: Sources) -> None:
    report, running = challenged(tmp_path, tiny, answered=False, patience=0.6)
    assert report.refused
    assert "challenge" in report.stopped
    assert [one.site for one in running.asked] == ["dcard", "challenges"]
