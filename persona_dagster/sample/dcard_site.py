"""www.dcard.tw: a forum page whose own script fetches the site's JSON, and that JSON.

The pages go to browsers alone and hand them a session; the JSON goes to that session alone. Anything else gets the
challenge, as on the real site. Keys of posts and comments are those of the site's payloads of 2022.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from html import escape
from typing import Any

from persona_dagster.sample.clock import Clock, moment
from persona_dagster.sample.content_loader import (
    Content,
    DcardComment,
    DcardItem,
    answer_times,
    dcard_id,
    deleted,
    edited,
    number,
    stable_uuid,
    visible,
)
from persona_dagster.sample.dcard_pages import forum_page, post_page
from persona_dagster.sample.faults import challenge
from persona_dagster.sample.http_messages import Request, Response, json_answer, page

LIST_PAGE = 15  # the site gives 30; fewer, so that the sample needs its scrolling
COMMENT_PAGE = 20
NAMES = {"relationship": "感情", "mood": "心情"}
SESSION = "dcard_session"


class DcardSite:
    def __init__(self, content: Content, clock: Clock):
        self.content = content
        self.clock = clock
        self.session = secrets.token_hex(16)

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response:
        parts = request.path.strip("/").split("/")
        match parts:
            case ["robots.txt"]:
                return Response(body=b"User-agent: *\nDisallow: /emails/activate\n", content_type="text/plain")
            case ["f", forum, *rest] if forum in self.content.dcard and request.from_browser:
                answer = self.html(forum, rest, faults)
                return with_assets(answer) if "assets" in faults else answer
            case ["service", "api", *rest] if request.cookies.get(SESSION) == self.session:
                return self.api(rest, request, faults)
        return challenge()

    def html(self, forum: str, rest: list[str], faults: Collection[str] = ()) -> Response:
        rendered, name = "rendered" in faults, NAMES.get(forum, forum)
        cookie = {"Set-Cookie": f"{SESSION}={self.session}; Path=/; HttpOnly; SameSite=Lax"}
        match rest:
            case []:
                key = list_key(forum)
                items = self.newest(forum)
                first = [self.post(forum, item) for item in items[:LIST_PAGE]] if rendered else []
                more = page_key(key, len(first)) if len(items) > len(first) else None
                above = [self.post(forum, items[-1])] if first and "pinned" in faults else []
                html = forum_page(forum, name, key, more, [*above, *first])
            case ["p", id_] if id_.isdecimal():
                found = self.find(int(id_))
                if found is None:
                    return page(f"<!DOCTYPE html><title>404</title><h1>{escape(name)}：文章不存在</h1>", 404)
                whole = self.post(*found, whole=True) if rendered else None
                html = post_page(forum, name, int(id_), found[1].title, whole)
            case _:
                return page("<!DOCTYPE html><title>404</title>", 404)
        return Response(body=html.encode(), headers=cookie)

    def api(self, parts: list[str], request: Request, faults: Collection[str]) -> Response:
        match parts:
            case ["v2", "globalPaging", "page"]:
                return self.paging(request.query, faults)
            case ["v2", "forums", forum, "posts"] if forum in self.content.dcard:
                return self.classic_list(forum, request, faults)
            case ["v2", "posts", id_] if id_.isdecimal():
                found = self.find(int(id_))
                return json_answer(self.post(*found, whole=True)) if found else missing()
            case ["v2" | "v3" as version, "posts", id_, "comments"] if id_.isdecimal():
                found = self.find(int(id_))
                return self.comments(*found, version, request, faults) if found else missing()
        return missing()

    def find(self, id_: int) -> tuple[str, DcardItem] | None:
        """The post and its forum, if it exists today."""
        forum, item = self.content.dcard_ids.get(id_, ("", None))
        day = self.clock.day
        return (forum, item) if item and item.day <= day and not deleted(item, day) else None

    def newest(self, forum: str) -> list[DcardItem]:
        day = self.clock.day
        items = [item for item in visible(self.content.dcard[forum], day) if not deleted(item, day)]
        return sorted(items, key=lambda item: -dcard_id(forum, item))

    def paging(self, query: dict[str, str], faults: Collection[str]) -> Response:
        """The list of 2025: keys that only the page knows, widgets, and the key of the next page."""
        key = query.get("listKey", "")
        forum = next((name for name in self.content.dcard if list_key(name) == key), None)
        if forum is None:
            return json_answer({"error": 400, "message": "invalid listKey"}, 400)
        items = self.newest(forum)
        start = next(
            (at for at in range(0, len(items) + 1, LIST_PAGE) if page_key(key, at) == query.get("pageKey")), None
        )
        if start is None:
            return json_answer({"error": 400, "message": "invalid pageKey"}, 400)
        if "empty" in faults:
            return json_answer({"widgets": [], "nextKey": None})
        chunk = items[start : start + LIST_PAGE]
        more = start + LIST_PAGE < len(items)
        posts = [self.post(forum, item) for item in chunk]
        if "pinned" in faults and not start:  # a post of long ago stands above the newest, and in its own place too
            posts = [self.post(forum, items[-1]) | {"pinned": True}, *posts]
        widgets: list[dict[str, Any]] = [{"forumList": {"items": [{"post": post} for post in posts]}}]
        return json_answer({"widgets": widgets, "nextKey": page_key(key, start + LIST_PAGE) if more else None})

    def classic_list(self, forum: str, request: Request, faults: Collection[str]) -> Response:
        """The list of 2021 to 2024: a bare array, the next page by `before`."""
        before = request.number("before", 10**12)
        limit = min(100, request.number("limit", 30))
        items = [item for item in self.newest(forum) if dcard_id(forum, item) < before]
        return json_answer([] if "empty" in faults else [self.post(forum, item) for item in items[:limit]])

    def comments(
        self, forum: str, item: DcardItem, version: str, request: Request, faults: Collection[str]
    ) -> Response:
        """v3: `{items, nextKey}`; v2: a bare array after a floor."""
        rows = self.comment_rows(forum, item)
        limit = min(100, request.number("limit", COMMENT_PAGE))
        after = request.number("nextKey" if version == "v3" else "after", 0)
        chunk = [] if "empty" in faults else [row for row in rows if row["floor"] > after][:limit]
        if version == "v2":
            return json_answer(chunk)
        more = bool(chunk) and chunk[-1]["floor"] < rows[-1]["floor"]
        return json_answer({"items": chunk, "nextKey": str(chunk[-1]["floor"]) if more else None})

    def comment_rows(self, forum: str, item: DcardItem) -> list[dict[str, Any]]:
        """The comments that have come by now, oldest first, with gaps where floors were removed."""
        now, times = self.clock.now(), answer_times(item, len(item.comments))
        floors = numbered(item)
        return [
            comment_row(dcard_id(forum, item), comment, floor, at)
            for comment, floor, at in zip(item.comments, floors, times, strict=True)
            if at <= now
        ]

    def post(self, forum: str, item: DcardItem, whole: bool = False) -> dict[str, Any]:
        """A post as lists show it; `whole` adds what only the post's own call gives."""
        day = self.clock.day
        changed = edited(item, day)
        content = (item.edited_body if changed and item.edited_body else item.content).strip()
        created = item.at
        updated = moment(item.edited_day, item.time) if changed and item.edited_day is not None else created
        rows = self.comment_rows(forum, item)
        value: dict[str, Any] = {
            "id": dcard_id(forum, item),
            "title": item.title,
            "excerpt": " ".join(content.split())[:140],
            "anonymousSchool": item.school is None,
            "anonymousDepartment": True,
            "pinned": False,
            "forumId": stable_uuid("forum", forum),
            "replyId": None,
            "createdAt": iso(created),
            "updatedAt": iso(updated),
            "commentCount": len(rows),
            "totalCommentCount": len(rows),
            "likeCount": item.likes,
            "collectionCount": item.likes // 7,
            "withNickname": False,
            "tags": [],
            "topics": list(item.topics),
            "meta": {"layout": "classic"},
            "forumName": NAMES.get(forum, forum),
            "forumAlias": forum,
            "nsfw": False,
            "gender": item.gender,
            "replyTitle": None,
            "reportReason": "",
            "reactions": [{"id": stable_uuid("heart"), "count": item.likes}] if item.likes else [],
            "hidden": False,
            "customStyle": None,
            "isSuspiciousAccount": False,
            "isModerator": False,
            "layout": "classic",
            "spoilerAlert": False,
            "withImages": False,
            "withVideos": False,
            "media": [],
            "mediaMeta": [],
            "reportReasonText": "",
            "supportedReactions": None,
            "enableNestedComment": True,
            "edited": changed,
            "postAvatar": "",
            "memberType": "",
        }
        if item.school is not None:
            value["school"] = item.school  # left out, never null, when the author hides it
        if number(forum, item.id, "keys") % 3 == 0:  # an older writer's post: the keys of 2017
            for name in ("collectionCount", "totalCommentCount", "spoilerAlert", "isModerator", "memberType", "nsfw"):
                del value[name]
        if whole:
            value |= {"content": content, "links": [], "hiddenByAuthor": False, "personaSubscriptable": True}
        return value


def with_assets(answer: Response) -> Response:
    """The page as it comes with pictures, counters and Turnstile of other hosts."""
    tags = (
        '<script src="https://challenges.cloudflare.com/turnstile/v0/api.js" async></script>'
        '<script src="https://assets.example/counter.js" async></script><img src="https://assets.example/picture.png">'
    )
    return replace(answer, body=answer.body.replace(b"</body>", f"{tags}</body>".encode()))


def missing() -> Response:
    return json_answer({"error": 404, "message": "Not Found"}, 404)


def iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{number(at.timestamp()) % 1000:03d}Z"


def list_key(forum: str) -> str:
    return f"f_latest_{stable_uuid('forum', forum)}"


def page_key(key: str, start: int) -> str:
    """Opaque on purpose: nobody gets on by counting."""
    return f"{number('page', key, start):016x}"


def numbered(item: DcardItem) -> list[int]:
    """The comments' floors. One is missing now and then, but never below a comment that points at a floor (B12)."""
    pointing = [index for index, comment in enumerate(item.comments) if "B" in comment.text]
    floors, floor = [], 0
    for index in range(len(item.comments)):
        floor += 1
        if index > max(pointing, default=-1) and number(item.id, index, "gone") % 12 == 0:
            floor += 1
        floors.append(floor)
    return floors


def comment_row(post_id: int, comment: DcardComment, floor: int, at: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": stable_uuid("comment", post_id, floor),
        "anonymous": True,
        "postId": post_id,
        "createdAt": iso(at),
        "updatedAt": iso(at),
        "floor": floor,
        "withNickname": False,
        "hiddenByAuthor": False,
        "host": False,
        "reportReason": "",
        "hidden": comment.hidden,
        "inReview": False,
    }
    if not comment.hidden:  # a hidden comment keeps its floor and loses what was said
        row |= {"content": comment.text, "likeCount": comment.likes, "gender": comment.gender, "reactions": []}
        if comment.school:
            row["school"] = comment.school
    return row
