"""Threads: the official API with a token, or (where the operator allows it) a real browser on search and post pages.

robots.txt of the site refuses crawlers, so the browser's route works only with `allow_robots_disallowed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from urllib.parse import quote

from persona_dagster.records import Outcome
from persona_dagster.scraping.crawling import Pass
from persona_dagster.scraping.outcomes import Fetched
from persona_dagster.scraping.parsed import MalformedError, Parsed, decode
from persona_dagster.scraping.threads import chains, page_payloads, parse_threads
from persona_dagster.scraping.threads_api import crawl_api

ORIGIN = "https://www.threads.com"


class ThreadsWalk:
    """`board` is a keyword, a `#tag`, or an `@account`."""

    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.since, self.until = work, since, until
        self.users: dict[str, str] = {}  # account by code: a post's address names its author

    def run(self) -> None:
        if self.work.site.route == "api":
            crawl_api(self.work, self.since, self.until)
            return
        opened = self.work.ask(self.start_url(), how=self.work.browser.goto)
        codes = self.codes(opened)
        known = {key for (kind, key) in self.work.histories if kind == "page"}
        new = [code for code in codes if code not in known]
        self.work.log(f"threads/{self.work.board}: {len(codes)} listed, {len(new)} unknown")
        for code in new:
            self.work.report.due += not self.post(code)
        self.revisit()
        if not self.work.site.pace.cache_minutes:
            self.revisit(only_audits=True)

    def start_url(self) -> str:
        board = self.work.board
        if board.startswith("@"):
            return f"{ORIGIN}/{quote(board)}"
        return f"{ORIGIN}/search?q={quote(board)}&serp_type={'tags' if board.startswith('#') else 'default'}"

    def codes(self, opened: Fetched) -> list[str]:
        """Codes of the posts that the search names, newest first as the page has them."""
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
        self.work.keep("list", "search", opened, counted=False)
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


def named(body: bytes) -> dict[str, str]:
    """Account by code, of all posts in a page."""
    return dict(_names(body))


def _names(body: bytes) -> Iterator[tuple[str, str]]:
    try:
        payloads = page_payloads(decode(body))
    except MalformedError:
        return
    for payload in payloads:
        for chain in chains(payload):
            for post in chain:
                if post.get("code") and (post.get("user") or {}).get("username"):
                    yield post["code"], post["user"]["username"]
