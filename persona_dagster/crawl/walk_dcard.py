"""Dcard: a real browser opens the forum and scrolls; the site's own JSON is taken from its traffic, details by fetch.

List keys are learnt from the page alone. A list has excerpts only; a post's text and comments are asked for.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.digest import text_digest
from persona_dagster.records import Outcome
from persona_dagster.sites.dcard.payloads import load_json, moment, parse_dcard, rows_of
from persona_dagster.sites.parsed import MalformedError

LIST_PATHS = ("/service/api/v2/globalPaging/page", "/service/api/v2/forums/", "/service/api/v2/posts")
SCROLLS = 200  # per pass; about 30 posts each
COMMENT_PAGES = 100  # per post


class DcardWalk:
    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.since, self.until = work, since, until
        if not work.board.replace("_", "").replace("-", "").isalnum():
            raise ValueError(f"{work.board!r} is no forum's alias")
        self.forum = f"{work.site.origin}/f/{work.board}"
        self.api = f"{work.site.origin}/service/api"
        self.rows: dict[str, dict[str, Any]] = {}  # by post id, as listed

    def run(self) -> None:
        if not self.open_forum():
            return
        self.list_posts()
        known = {key for (kind, key) in self.work.histories if kind == "post"}
        new = {key for key in self.rows if key not in known and self.wanted(key)} | self.work.missed("post")
        self.work.log(f"dcard/{self.work.board}: {len(self.rows)} listed, {len(new)} unknown")
        # Oldest first: what a cut-off pass leaves stands at the top of the list, where the next one begins.
        self.work.fetch_listed("post", sorted(new, key=int), self.post)
        self.revisit()
        if not self.work.site.pace.cache_minutes:
            self.revisit(only_audits=True)

    # Discovery

    def open_forum(self) -> bool:
        """The forum's page, with the ear on its JSON."""
        self.heard: list[Any] = []
        opened = self.work.ask(self.forum, how=self.open)
        if not opened.ok:
            self.work.report.stopped = f"{self.forum}: {opened.outcome.value}: {opened.why}"
        return opened.ok

    def open(self, url: str) -> Fetched:
        self.work.browser.page.on("response", self.listen)
        return self.work.browser.goto(url)

    def listen(self, response: Any) -> None:
        path = urlsplit(response.url).path
        if path.startswith(LIST_PATHS) and not path.rsplit("/", 1)[-1].isdecimal():
            self.heard.append(response)

    def list_posts(self) -> None:
        """Scroll until the list reaches what is known, or `since`, or ends."""
        page = self.work.browser.page
        for _ in range(SCROLLS):
            before = len(self.rows)
            answer = self.next_list()
            if answer is None or not self.take_list(answer):
                return
            if self.reached(before):
                return
            self.work.pacer.wait()
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")

    def next_list(self) -> Fetched | None:
        """The next list answer of the page's own script; None when none comes within a moment."""
        page = self.work.browser.page
        for _ in range(30):
            if self.heard:
                fetched = self.work.browser.taken(self.heard.pop(0))
                self.work.count(fetched)
                return fetched
            page.wait_for_timeout(100)
        return None

    def take_list(self, fetched: Fetched) -> bool:
        if not fetched.ok:
            self.work.report.stopped = f"list: {fetched.outcome.value}: {fetched.why}"
            return False
        try:
            value = load_json(fetched.body.decode())
            rows = list(rows_of(value))
        except (MalformedError, UnicodeDecodeError) as error:
            self.work.not_parsed(fetched, str(error))
            self.work.report.stopped = f"list: {error}"
            return False
        if not rows and not self.rows:
            self.work.not_parsed(fetched, "an empty list: nothing there, or a ban", Outcome.EMPTY_OR_FILTERED)
            self.work.report.stopped = "the list is empty: nothing there, or a ban"
            return False
        self.work.keep("list", text_digest(fetched.url)[:16], fetched, counted=False)
        self.rows.update({str(row["id"]): row for row in rows})
        return not (isinstance(value, dict) and value.get("nextKey", "") is None)

    def reached(self, before: int) -> bool:
        """True when the rows that came last add nothing new, or are older than is asked for."""
        latest = list(self.rows)[before:]
        if not latest:
            return True
        known = all(self.work.history("post", key) for key in latest)
        return (known and not self.since) or not any(self.wanted(key) for key in latest)

    def wanted(self, post_id: str) -> bool:
        created = moment(self.rows[post_id]["createdAt"])
        newest = max(moment(row["createdAt"]) for row in self.rows.values())
        since = self.since or newest - timedelta(days=self.work.site.first_days)
        return created >= since and (self.until is None or created <= self.until)

    # Posts

    def post(self, post_id: str) -> bool:
        """The post and all its comments; False when something is still due."""
        url = f"{self.api}/v2/posts/{post_id}?withPreview=true"
        fetched = self.work.ask(url, how=self.fetch)
        if fetched.outcome is Outcome.GONE:
            self.work.keep("post", post_id, fetched)
            return True
        if not fetched.ok:
            return False
        parsed = parse_dcard(fetched.body, board=self.work.board, author_key=str)
        if not (parsed.usable and parsed.posts):
            self.work.keep_unread("post", post_id, fetched, parsed.why or "a post without its text")
            return False
        stated = int(load_json(fetched.body.decode()).get("commentCount") or 0)
        comments = self.comments(post_id, stated)
        # The post is stored last: it is what says that its comments are there.
        self.work.keep("post", post_id, fetched)
        return comments

    def comments(self, post_id: str, stated: int) -> bool:
        """All pages of comments; fewer floors than the post states comments means that some are missing."""
        key, floors = "", 0
        for _ in range(COMMENT_PAGES):
            query = {"sort": "oldest", **({"nextKey": key} if key else {})}
            url = f"{self.api}/v3/posts/{post_id}/comments?{urlencode(query)}"
            fetched = self.work.ask(url, how=self.fetch)
            if not fetched.ok:
                return fetched.outcome is Outcome.GONE
            try:
                value = load_json(fetched.body.decode())
                rows = list(rows_of(value))
            except (MalformedError, UnicodeDecodeError) as error:
                self.work.keep_unread("comments", f"{post_id}@{key or 0}", fetched, str(error))
                return False
            floors = max([floors, *(row["floor"] for row in rows)])
            if rows:
                self.work.keep("comments", f"{post_id}@{key or 0}", fetched, counted=False)
            key = value.get("nextKey") or "" if isinstance(value, dict) else ""
            if not key:
                if floors < stated:
                    self.work.not_parsed(fetched, f"{stated} comments are stated, the last floor is {floors}")
                return floors >= stated
        return False

    def fetch(self, url: str) -> Fetched:
        return self.work.browser.fetch(url, {"accept": "application/json"})

    def revisit(self, only_audits: bool = False) -> None:
        for post_id in self.work.due("post", lambda _key, history: history.sightings[0].fetched_at, only_audits):
            self.work.report.due += not self.post(post_id)
