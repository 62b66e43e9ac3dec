"""Threads: the official API with a token, or (where the operator allows it) a real browser on search and post pages.

robots.txt of the site refuses crawlers, so the browser's route works only with `allow_robots_disallowed`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.frontier import BACK, FRESH, Listed
from persona_dagster.crawl.newest_first_paging import Descent
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.threads_api import crawl_api
from persona_dagster.records import Outcome
from persona_dagster.sites.parser_results import Parsed
from persona_dagster.sites.threads.payloads import named, parse_threads

ORIGIN = "https://www.threads.com"
MORE_PATHS = ("/graphql/query", "/api/graphql")  # where the page's script asks for what comes below
KIND = "page"
TURN = 20
SCROLLS = 50  # per pass; about 30 threads each


class ThreadsWalk:
    """`board` is a keyword, a `#tag`, or an `@account`."""

    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.since, self.until = work, since, until
        self.responses: list[Any] = []
        self.more = False  # whether the search has more than was shown
        self.users: dict[str, str] = {}  # account by code: a post's address names its author

    def run(self) -> None:
        if self.work.site.route == "api":
            crawl_api(self.work, self.since, self.until)
            return
        self.work.client = self.work.browser.goto
        self.descent = Descent(self.work, KIND, self.since.timestamp() if self.since else None)
        opened = self.work.ask(self.start_url(), how=self.open)
        self.list_posts(opened)
        todo = self.work.frontier.todo
        self.work.pay(KIND, [*todo(KIND, FRESH), *todo(KIND, BACK)], self.post)  # oldest first, as on the other sites
        self.work.retry(KIND, self.post)
        while self.work.revisits(KIND, self.post, TURN):
            pass
        self.work.second_looks(KIND, self.post)

    def list_posts(self, opened: Fetched) -> None:
        """The search, then what its script brings as one scrolls, until what is known is reached."""
        rows = self.codes(opened, "search")
        if rows and not self.descent.take(rows):
            for number in range(1, SCROLLS):
                if not self.more:
                    if not self.work.report.stopped:
                        self.descent.end()
                    return
                if self.work.list_takes_half():
                    return
                rows = self.scrolled(number)
                if not rows:
                    self.work.report.stopped = self.work.report.stopped or "the search went no further"
                    return
                if self.descent.take(rows):
                    return

    def start_url(self) -> str:
        board = self.work.board
        if board.startswith("@"):
            return f"{ORIGIN}/{quote(board)}"
        return f"{ORIGIN}/search?q={quote(board)}&serp_type={'tags' if board.startswith('#') else 'default'}"

    def open(self, url: str) -> Fetched:
        """The page; the answers to what its script asks for are collected."""
        self.work.browser.page.on("response", lambda answer: self.responses.append(answer) if is_more(answer) else None)
        return self.work.browser.goto(url)

    def scrolled(self, number: int) -> list[Listed]:
        """What one more scroll brings."""
        self.work.turn()
        self.work.browser.scroll()
        for _ in range(30):
            if self.responses:
                break
            self.work.browser.wait(100)
        if not self.responses:
            return []
        fetched = self.work.browser.taken(self.responses.pop(0))
        self.work.count(fetched)
        return self.codes(fetched, f"search@{number}")

    def codes(self, opened: Fetched, key: str) -> list[Listed]:
        """The posts that the search names, newest first as the page has them."""
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
        rows = [
            Listed(post.post_id, int(post.created_at.timestamp()))
            for post in parsed.posts
            if post.kind == "post" and post.created_at
        ]
        self.work.keep("list", key, opened, counted=False, names=[row.key for row in rows])
        self.users.update(named(opened.body))
        return rows

    def post(self, code: str) -> Outcome:
        """A post's page with its replies, by in-page fetch; what does not advance is still due."""
        user = self.users.get(code) or self.known_user(code)
        fetched = self.work.ask(f"{ORIGIN}/@{quote(user)}/post/{code}", how=self.work.browser.fetch)
        fetched.url = f"{ORIGIN}/post/{code}"  # the stored address names nobody
        if fetched.outcome is Outcome.GONE:
            self.work.keep(KIND, code, fetched)
        if not fetched.ok:
            return fetched.outcome
        parsed: Parsed = parse_threads(fetched.body, board=self.work.board, author_key=str, code=code)
        if parsed.outcome is Outcome.LOGIN_WALL and parsed.posts:
            self.work.report.outcomes["login_wall_partial"] += 1  # more replies exist; what is shown is kept
        elif parsed.outcome is Outcome.PARSE_INCOMPLETE:
            self.work.keep_unread(KIND, code, fetched, parsed.why)
            return parsed.outcome
        elif not parsed.usable:
            self.work.not_parsed(fetched, parsed.why, parsed.outcome)
            return parsed.outcome
        self.work.keep(KIND, code, fetched)
        return Outcome.OK

    def known_user(self, code: str) -> str:
        stored = self.work.archive.newest("threads", self.work.board, KIND, code)
        return named(stored.body).get(code, "_") if stored else "_"


def is_more(answer: Any) -> bool:
    return urlsplit(answer.url).path.startswith(MORE_PATHS)
