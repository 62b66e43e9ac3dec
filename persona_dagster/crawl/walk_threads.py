"""Threads: the official API with a token, or (where the operator allows it) a real browser on search and post pages.

robots.txt of the site refuses crawlers, so the browser's route works only with `allow_robots_disallowed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.threads_api import crawl_api
from persona_dagster.records import Outcome
from persona_dagster.sites.dcard.payloads import load_json
from persona_dagster.sites.parsed import MalformedError, Parsed, decode
from persona_dagster.sites.threads.payloads import chains, page_payloads, parse_threads

ORIGIN = "https://www.threads.com"
MORE_PATHS = ("/graphql/query", "/api/graphql")  # where the page's script asks for what comes below
SCROLLS = 50  # per pass; about 30 threads each


class ThreadsWalk:
    """`board` is a keyword, a `#tag`, or an `@account`."""

    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.since, self.until = work, since, until
        self.heard: list[Any] = []
        self.more = False  # whether the search has more than was shown
        self.users: dict[str, str] = {}  # account by code: a post's address names its author

    def run(self) -> None:
        if self.work.site.route == "api":
            crawl_api(self.work, self.since, self.until)
            return
        opened = self.work.ask(self.start_url(), how=self.open)
        known = {key for (kind, key) in self.work.histories if kind == "page"}
        codes = list(dict.fromkeys([*self.codes(opened, "search"), *self.scroll(known)]))
        new = [code for code in codes if code not in known]
        self.work.log(f"threads/{self.work.board}: {len(codes)} listed, {len(new)} unknown")
        missed = sorted(self.work.missed("page") - set(new))
        self.work.fetch_listed("page", [*missed, *reversed(new)], self.post)  # oldest first, as on the other sites
        self.revisit()
        if not self.work.site.pace.cache_minutes:
            self.revisit(only_audits=True)

    def start_url(self) -> str:
        board = self.work.board
        if board.startswith("@"):
            return f"{ORIGIN}/{quote(board)}"
        return f"{ORIGIN}/search?q={quote(board)}&serp_type={'tags' if board.startswith('#') else 'default'}"

    def open(self, url: str) -> Fetched:
        """The page, with the ear on what its script asks for."""
        self.work.browser.page.on("response", lambda answer: self.heard.append(answer) if is_more(answer) else None)
        return self.work.browser.goto(url)

    def scroll(self, known: set[str]) -> Iterator[str]:
        """Codes of what the page's script brings as one scrolls, until it brings nothing new or asks for a log-in."""
        page = self.work.browser.page
        for number in range(1, SCROLLS):
            if not self.more:
                return
            self.work.pacer.wait()
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            for _ in range(30):
                if self.heard:
                    break
                page.wait_for_timeout(100)
            if not self.heard:
                return
            fetched = self.work.browser.taken(self.heard.pop(0))
            self.work.count(fetched)
            if not fetched.ok:
                return  # the posts named so far are still asked for, one by one
            found = self.codes(fetched, f"search@{number}")
            yield from found
            if known.issuperset(found) and not self.since:
                return

    def codes(self, opened: Fetched, key: str) -> list[str]:
        """Codes of the posts that the search names, newest first as the page has them."""
        self.more = False
        if not opened.ok:
            self.work.report.stopped = f"search: {opened.outcome.value}: {opened.why}"
            return []
        parsed = parse_threads(opened.body, board=self.work.board, author_key=str)
        if parsed.outcome is Outcome.LOGIN_WALL:
            self.work.pacer.note(Outcome.LOGIN_WALL)
        if not parsed.posts:
            outcome = Outcome.EMPTY_OR_FILTERED if parsed.outcome is Outcome.PARSE_INCOMPLETE else parsed.outcome
            self.work.not_parsed(opened, parsed.why, outcome)
            self.work.report.stopped = f"search: {outcome.value}: {parsed.why}"
            return []
        self.more = "more_replies" in parsed.flags
        self.work.keep("list", key, opened, counted=False)
        self.users.update(named(opened.body))
        return [post.post_id for post in parsed.posts if post.kind == "post" and self.wanted(post.created_at)]

    def wanted(self, created: datetime | None) -> bool:
        if created is None:
            return False
        return (self.since is None or created >= self.since) and (self.until is None or created <= self.until)

    def post(self, code: str) -> bool:
        """A post's page with its replies, by in-page fetch; False when it is still due."""
        user = self.users.get(code) or self.known_user(code)
        fetched = self.work.ask(f"{ORIGIN}/@{quote(user)}/post/{code}", how=self.work.browser.fetch)
        fetched.url = f"{ORIGIN}/post/{code}"  # the stored address names nobody
        if fetched.outcome is Outcome.GONE:
            self.work.keep("page", code, fetched)
            return True
        if not fetched.ok:
            return False
        parsed: Parsed = parse_threads(fetched.body, board=self.work.board, author_key=str, code=code)
        if parsed.outcome is Outcome.LOGIN_WALL and parsed.posts:
            self.work.report.outcomes["login_wall_partial"] += 1  # more replies exist; what is shown is kept
        elif parsed.outcome is Outcome.PARSE_INCOMPLETE:
            self.work.keep_unread("page", code, fetched, parsed.why)
            return False
        elif not parsed.usable:
            self.work.not_parsed(fetched, parsed.why, parsed.outcome)
            return False
        self.work.keep("page", code, fetched)
        return True

    def known_user(self, code: str) -> str:
        stored = self.work.archive.newest("threads", self.work.board, "page", code)
        return named(stored.body).get(code, "_") if stored else "_"

    def revisit(self, only_audits: bool = False) -> None:
        for code in self.work.due("page", lambda _key, history: history.sightings[0].fetched_at, only_audits):
            self.work.report.due += not self.post(code)


def is_more(answer: Any) -> bool:
    return urlsplit(answer.url).path.startswith(MORE_PATHS)


def named(body: bytes) -> dict[str, str]:
    """Account by code, of all posts in a page."""
    return dict(_names(body))


def _names(body: bytes) -> Iterator[tuple[str, str]]:
    try:
        text = decode(body)
        payloads = page_payloads(text) if text.lstrip().startswith("<") else [load_json(text)]
    except MalformedError:
        return
    for payload in payloads:
        for chain in chains(payload):
            for post in chain:
                if post.get("code") and (post.get("user") or {}).get("username"):
                    yield post["code"], post["user"]["username"]
