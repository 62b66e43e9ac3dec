"""graph.threads.net: the official API with a token, as far as a reader uses it.

Keyword and tag search with paging, the token's owner and refresh, the quota, and the refusals: no token, a spent
quota, other people's replies.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content, ThreadsItem, deleted, threads_code, threads_pk, visible
from persona_dagster.sample.http_messages import Request, Response, json_answer

TOKEN = "replica-token"  # what the replica takes for a long-lived token with threads_keyword_search
QUOTA = 2200  # queries with a result in 24 hours
OWNER = {"id": "60000000001", "username": "replica.reader"}
FIELDS = ("id", "text", "media_type", "permalink", "timestamp", "username", "has_replies", "is_quote_post", "is_reply")


class GraphSite:
    def __init__(self, content: Content, clock: Clock, quota: int = QUOTA):
        self.content = content
        self.clock = clock
        self.quota = quota
        self.used = 0
        self.lock = threading.Lock()

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response:  # noqa: PLR0911
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if (request.query.get("access_token") or bearer) != TOKEN:
            return refusal(190, "Error validating access token: The session has been invalidated.", 400)
        match request.path.strip("/").removeprefix("v1.0/").split("/"):
            case ["keyword_search"]:
                return self.search(request, faults)
            case ["me"]:
                return json_answer(OWNER)
            case ["refresh_access_token"]:
                return json_answer({"access_token": TOKEN, "token_type": "bearer", "expires_in": 5_184_000})
            case [_, "threads_publishing_limit"]:
                config = {"quota_total": self.quota, "quota_duration": 86_400}
                return json_answer({"data": [{"quota_usage": self.used, "config": config}]})
            case ["profile_posts"]:
                return self.profile(request)
            case [_, "replies" | "conversation"]:
                return refusal(10, "Application does not have permission for this action", 403)
        return refusal(100, "Unsupported get request.", 400)

    def search(self, request: Request, faults: Collection[str]) -> Response:
        keyword = request.query.get("q", "").removeprefix("#")
        if not keyword:
            return refusal(100, "The parameter q is required.", 400)
        if self.used >= self.quota:
            return refusal(4, "Application request limit reached", 429)
        items = [] if "empty" in faults else self.current(self.content.threads.get(keyword, []))
        if items:
            with self.lock:
                self.used += 1  # a query without a result is free
        return paged(items, request, "keyword_search")

    def profile(self, request: Request) -> Response:
        name = request.query.get("username", "")
        everything = [item for items in self.content.threads.values() for item in items if item.user == name]
        return paged(self.current(everything), request, "profile_posts")

    def current(self, items: list[ThreadsItem]) -> list[ThreadsItem]:
        day = self.clock.day
        return [item for item in reversed(visible(items, day)) if not deleted(item, day)]


def paged(items: list[ThreadsItem], request: Request, path: str) -> Response:
    """One page of posts, with the address of the next."""
    query = request.query
    try:
        since, until = bound(query.get("since"), 0.0), bound(query.get("until"), 1e12)
    except ValueError:
        return refusal(100, "Param since and until must be a time.", 400)
    items = [item for item in items if since <= item.at.timestamp() <= until]
    limit = min(100, max(1, request.number("limit", 25)))
    start = request.number("after", 0)
    fields = [name for name in query.get("fields", "id,text").split(",") if name in FIELDS]
    value: dict[str, Any] = {
        "data": [{name: row(item)[name] for name in fields} for item in items[start : start + limit]]
    }
    end = start + limit
    if value["data"]:
        value["paging"] = {"cursors": {"before": str(start), "after": str(end)}}
    if end < len(items):
        value["paging"]["next"] = f"https://graph.threads.net/v1.0/{path}?" + urlencode({**query, "after": end})
    return json_answer(value)


def bound(text: str | None, default: float) -> float:
    """A time as the API takes it: unix seconds or an ISO date."""
    if not text:
        return default
    if text.isdecimal():
        return float(text)
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def row(item: ThreadsItem) -> dict[str, Any]:
    pk = threads_pk(item.at, item.id)
    return {
        "id": str(pk),
        "text": item.text or "",
        "media_type": "TEXT_POST" if item.text is not None else "IMAGE",
        "permalink": f"https://www.threads.com/@{item.user}/post/{threads_code(pk)}",
        "timestamp": item.at.strftime("%Y-%m-%dT%H:%M:%S+0000"),
        "username": item.user,
        "has_replies": bool(item.replies),
        "is_quote_post": False,
        "is_reply": False,
    }


def refusal(code: int, message: str, status: int) -> Response:
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "replica"}
    return json_answer({"error": error}, status)
