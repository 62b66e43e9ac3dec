"""Dcard: a real browser opens the forum. The first posts stand in the page that the server rendered, later ones come by
the page's own JSON or stand in its DOM; details are asked for by in-page fetch, and read from the post's page where
that is refused.

List keys are learnt from the page alone. A list has excerpts only; a post's text and comments are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.frontier import BACK, FRESH, Listed
from persona_dagster.crawl.newest_first_paging import Descent
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.digest import text_digest
from persona_dagster.records import Outcome, PageKey
from persona_dagster.sites.dcard import pages
from persona_dagster.sites.dcard.payloads import page_of, parse_dcard
from persona_dagster.sites.parser_results import MalformedError, decode

KIND = "post"
LIST_PATHS = ("/service/api/v2/globalPaging/page", "/service/api/v2/forums/", "/service/api/v2/posts")
SCROLLS = 400  # per pass; about 30 posts each
COMMENT_PAGES = 100  # per post
LOOKS, LOOK_MS = 30, 100  # at a page that was scrolled
IDLE = 3  # scrolls in a row that bring nothing, after which the list goes no further
REFUSED = frozenset([Outcome.BLOCKED, Outcome.LOGIN_WALL, Outcome.CHALLENGE])  # of details: the page may have them
TURN = 20


class DcardWalk:
    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.until = work, until
        if not work.board.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"{work.board!r} is no forum's alias")
        self.forum = f"{work.site.origin}/f/{work.board}"
        self.api = f"{work.site.origin}/service/api"
        self.responses: list[Any] = []
        self.by_page = False  # details from the post's own page, once their JSON was refused
        self.descent = Descent(work, KIND, since.timestamp() if since else None)
        work.client = work.browser.goto

    def run(self) -> None:
        opened = self.work.ask(self.forum, how=self.open)
        if not opened.ok:
            self.work.report.stopped = f"{self.forum}: {opened.outcome.value}: {opened.why}"
            return
        self.list_posts(opened)
        todo = self.work.frontier.todo
        # Oldest first: those of a list that was cut off come last in the next one, too.
        self.work.pay(KIND, [*todo(KIND, FRESH), *todo(KIND, BACK)], self.post)
        self.work.retry(KIND, self.post)
        while self.work.revisits(KIND, self.post, TURN):
            pass
        self.work.second_looks(KIND, self.post)

    # Discovery

    def open(self, url: str) -> Fetched:
        """The forum's page; the answers to its own requests are collected."""
        self.work.browser.page.on("response", self.listen)
        return self.work.browser.goto(url)

    def listen(self, response: Any) -> None:
        path = urlsplit(response.url).path
        if path.startswith(LIST_PATHS) and not path.rsplit("/", 1)[-1].isdecimal():
            self.responses.append(response)

    def list_posts(self, opened: Fetched) -> None:
        """The first page, then by scrolling, until the list reaches what is known, or the goal, or ends."""
        found = self.from_page(opened.body)
        if found:
            self.work.keep("list", "page", opened, counted=False, names=[row.key for row in found])
            if self.descent.take(found):
                return
        seen, idle = {row.key for row in found}, 0
        for _ in range(SCROLLS):
            kind = self.more(seen)
            if kind is None:
                if not seen:
                    self.work.not_parsed(opened, "no post in the page, and none by its script", EMPTY)
                    self.work.report.stopped = "the list is empty: nothing there, or a ban"
                    return
                idle += 1
                if idle >= IDLE:
                    self.went_no_further()
                    return
            elif isinstance(kind, str):
                self.work.report.stopped = kind
                return
            else:
                idle = 0
                rows, last = kind
                seen |= {row.key for row in rows}
                done = self.descent.take(rows)
                if last and not done:
                    self.descent.end()
                if done or last:
                    return
            if self.work.list_takes_half():
                return
            self.work.turn()
            self.work.browser.scroll()

    def went_no_further(self) -> None:
        """Nothing says that a rendered list ends: one that stops at the same posts in two passes is taken to."""
        bottom = self.descent.span.bottom if self.descent.span else []
        if bottom and self.work.frontier.note("list_ends") == bottom:
            self.descent.end()
            return
        self.work.frontier.set_note("list_ends", bottom)
        self.work.report.stopped = "the list went no further, and what is known was not reached"

    def more(self, seen: set[str]) -> tuple[list[Listed], bool] | str | None:
        """What scrolling brought: rows and whether the list ends with them; why it failed; None when nothing came."""
        for _ in range(LOOKS):
            if self.responses:
                fetched = self.work.browser.taken(self.responses.pop(0))
                self.work.count(fetched)
                return self.from_json(fetched, bool(seen))
            self.work.browser.wait(LOOK_MS)
        # The page may draw more without asking for JSON.
        drawn = self.work.browser.content()
        new = [row for row in self.from_page(drawn.body) if row.key not in seen] if drawn.ok else []
        if not new:
            return None
        self.work.keep("list", f"drawn@{len(seen)}", drawn, counted=False, names=[row.key for row in new])
        return new, False

    def from_page(self, body: bytes) -> list[Listed]:
        try:
            found = pages.listed(decode(body), self.work.board)
        except MalformedError as error:
            self.work.last_why = str(error)
            return []
        return [Listed(key, int(at.timestamp()) if at else int(self.work.board_now)) for key, at in found]

    def from_json(self, fetched: Fetched, begun: bool) -> tuple[list[Listed], bool] | str:
        if not fetched.ok:
            return f"list: {fetched.outcome.value}: {fetched.why}"
        try:
            page = page_of(fetched.body)
        except MalformedError as error:
            self.work.not_parsed(fetched, str(error))
            return f"list: {error}"
        found = page.listed
        if not found and not (page.last and begun):
            self.work.not_parsed(fetched, "an empty list: nothing there, or a ban", EMPTY)
            return "the list is empty: nothing there, or a ban"
        self.work.keep("list", text_digest(fetched.url)[:16], fetched, counted=False, names=[key for key, _ in found])
        return [Listed(key, int(at.timestamp())) for key, at in found], page.last

    # Posts

    def post(self, post_id: str) -> Outcome:
        """The post and all its comments; what does not advance is still due."""
        if self.by_page:
            return self.from_own_page(post_id)
        url = f"{self.api}/v2/posts/{post_id}?withPreview=true"
        fetched = self.work.ask(url, how=self.fetch, spare=REFUSED)
        if fetched.outcome in REFUSED:
            outcome = self.from_own_page(post_id)
            self.by_page = outcome is Outcome.OK
            return outcome
        if fetched.outcome is Outcome.GONE:
            self.work.keep(KIND, post_id, fetched)
        if not fetched.ok:
            return fetched.outcome
        parsed = parse_dcard(fetched.body, board=self.work.board, author_key=str)
        if not (parsed.usable and parsed.posts):
            self.work.keep_unread(KIND, post_id, fetched, parsed.why or "a post without its text")
            return Outcome.PARSE_INCOMPLETE
        comments = self.comments(post_id, page_of(fetched.body).comments_stated)
        # The post is stored last: it is what says that its comments are there.
        self.work.keep(KIND, post_id, fetched)
        return comments

    def from_own_page(self, post_id: str) -> Outcome:
        """The post as its page shows it, without its comments."""
        fetched = self.work.ask(f"{self.forum}/p/{post_id}", how=self.work.browser.goto)
        if fetched.ok:
            parsed = parse_dcard(fetched.body, board=self.work.board, author_key=str, post_id=post_id)
            if not (parsed.usable and parsed.posts):
                self.work.keep_unread(KIND, post_id, fetched, parsed.why)
                return Outcome.PARSE_INCOMPLETE
        if fetched.outcome.advances:
            self.work.keep(KIND, post_id, fetched)
            self.work.report.outcomes["from_page"] += 1
        return fetched.outcome

    def comments(self, post_id: str, stated: int) -> Outcome:
        """All pages of comments; fewer floors than the post states comments means that some are missing."""
        key, floors = "", 0
        for _ in range(COMMENT_PAGES):
            query = {"sort": "oldest", **({"nextKey": key} if key else {})}
            url = f"{self.api}/v3/posts/{post_id}/comments?{urlencode(query)}"
            fetched = self.work.ask(url, how=self.fetch)
            if not fetched.ok:
                return Outcome.OK if fetched.outcome is Outcome.GONE else fetched.outcome
            try:
                page = page_of(fetched.body)
            except MalformedError as error:
                self.work.keep_unread("comments", str(PageKey(post_id, str(key or 0))), fetched, str(error))
                return Outcome.PARSE_INCOMPLETE
            floors = max([floors, *page.floors])
            if page.rows:
                self.work.keep("comments", str(PageKey(post_id, str(key or 0))), fetched, counted=False)
            key = page.next_key or ""
            if not key:
                if floors < stated:
                    self.work.not_parsed(fetched, f"{stated} comments are stated, the last floor is {floors}")
                    return Outcome.PARSE_INCOMPLETE
                return Outcome.OK
        return Outcome.PARSE_INCOMPLETE

    @property
    def fetch(self) -> Callable[[str], Fetched]:
        return lambda url: self.work.browser.fetch(url, {"accept": "application/json"})


EMPTY = Outcome.EMPTY_OR_FILTERED
