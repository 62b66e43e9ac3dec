"""www.threads.com: search and post pages whose data stands in `data-sjs` scripts, and a robots.txt that refuses.

The objects carry the site's keys of 2026, null ones included, since parsers meet those most.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import (
    Content,
    ThreadsItem,
    answer_times,
    deleted,
    number,
    threads_code,
    threads_pk,
    visible,
)
from persona_dagster.sample.faults import please_wait
from persona_dagster.sample.http_messages import Request, Response, json_answer, page, plain, redirect
from persona_dagster.sample.threads_pages import media, post_page, profile_page, search_page, thread

SEARCH_PAGE = 30  # threads within the page; more come by its script
MAX_REPLIES = 45  # what a visitor without an account sees below one post
ROBOTS = """# Automated collection of data is refused here without express written permission.
User-agent: GPTBot
Disallow: /

User-agent: Scrapy
Disallow: /

User-agent: *
Disallow: /
"""


class ThreadsSite:
    def __init__(self, content: Content, clock: Clock):
        self.content = content
        self.clock = clock

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response:  # noqa: PLR0911
        if "login_wall" in faults:
            return please_wait() if request.path.startswith(("/api", "/graphql")) else redirect("/login/?next=%2F")
        parts = request.path.strip("/").split("/")
        match parts:
            case ["robots.txt"]:
                return plain(ROBOTS)
            case ["login"]:
                return page("<!DOCTYPE html><title>Threads • Log in</title><h1>Log in or sign up for Threads</h1>")
            case ["search"]:
                return self.search(request.query.get("q", ""), faults)
            case ["graphql", "query"] | ["api", "graphql"]:
                return self.more(request.form)
            case [user, "post", code] if user.startswith("@"):
                return self.post(code)
            case [user] if user.startswith("@"):
                return self.profile(user[1:])
        return unavailable()

    def found(self, keyword: str) -> list[ThreadsItem]:
        """What a search for the keyword, or a look at the tag, gives today: newest first."""
        day = self.clock.day
        items = self.content.threads.get(keyword.removeprefix("#"), [])
        return [item for item in reversed(visible(items, day)) if not deleted(item, day)]

    def search(self, keyword: str, faults: Collection[str]) -> Response:
        items = [] if "empty" in faults else self.found(keyword)
        return page(search_page(keyword, self.result(items, 0), bool(items)))

    def profile(self, name: str) -> Response:
        """An account's own posts, newest first."""
        items = [item for item in self.here() if item.user == name]
        if not items:
            return unavailable()
        edges = [{"node": thread([self.medium(item)]), "cursor": ""} for item in reversed(items)]
        return page(profile_page(name, {"edges": edges, "page_info": {"has_next_page": False, "end_cursor": None}}))

    def here(self) -> list[ThreadsItem]:
        """Every post of today, oldest first."""
        everything = [item for items in self.content.threads.values() for item in items]
        day = self.clock.day
        return [item for item in visible(everything, day) if not deleted(item, day)]

    def more(self, form: dict[str, str]) -> Response:
        """The search page's own call for the next threads."""
        cursor = form.get("after", "")
        if not cursor.isdecimal():
            return json_answer({"errors": [{"message": "missing_required_variable_value"}]}, 400)
        result = self.result(self.found(form.get("query", "")), int(cursor))
        return json_answer({"data": {"searchResults": result}, "extensions": {"is_final": True}})

    def result(self, items: list[ThreadsItem], start: int) -> dict[str, Any]:
        end = start + SEARCH_PAGE
        edges = [{"node": {"thread": thread([self.medium(item)])}, "cursor": ""} for item in items[start:end]]
        more = end < len(items)
        return {"edges": edges, "page_info": {"has_next_page": more, "end_cursor": str(end) if more else None}}

    def post(self, code: str) -> Response:
        here = self.here()
        item = next((item for item in here if code == threads_code(pk_of(item))), None)
        if item is None:
            return unavailable()
        edges = [{"node": node, "cursor": ""} for node in self.conversation(item)]
        cut = len(edges) > MAX_REPLIES
        data = {
            "edges": edges[:MAX_REPLIES],
            "page_info": {"has_next_page": cut, "has_previous_page": False, "end_cursor": None, "start_cursor": None},
        }
        others = sorted((one for one in here if one is not item), key=lambda one: number(item.id, one.id))
        related = [thread([self.medium(other)]) for other in others[:5]]
        return page(post_page(item.user, code, item.text or "", data, related, cut=cut))

    def medium(self, item: ThreadsItem) -> dict[str, Any]:
        text = item.text
        if item.edited_body and item.edited_day is not None and item.edited_day <= self.clock.day:
            text = item.edited_body
        pk = pk_of(item)
        value = media(pk, item.user, text, item.at, item.likes)
        value["text_post_app_info"]["direct_reply_count"] = len(item.replies)
        return value

    def conversation(self, item: ThreadsItem) -> list[dict[str, Any]]:
        """The post, its author's continuations, then the replies that have come by now."""
        nodes = [thread([self.medium(item), *self.continuations(item)])]
        now = self.clock.now()
        for index, (reply, at) in enumerate(zip(item.replies, answer_times(item, len(item.replies)), strict=True)):
            if at <= now:
                pk = threads_pk(at, item.id, "reply", index)
                nodes.append(thread([media(pk, reply.user, reply.text, at, reply.likes, answers=item.user)]))
        return nodes

    def continuations(self, item: ThreadsItem) -> list[dict[str, Any]]:
        def later(index: int) -> datetime:
            return item.at + timedelta(seconds=20 * (index + 1))

        return [
            media(threads_pk(later(index), item.id, "more", index), item.user, text, later(index), 0, answers=item.user)
            for index, text in enumerate(item.more)
        ]


def unavailable() -> Response:
    return page("<!DOCTYPE html><title>Threads</title><p>Sorry, this page isn't available.</p>", 404)


def pk_of(item: ThreadsItem) -> int:
    return threads_pk(item.at, item.id)
