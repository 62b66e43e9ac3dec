"""The official Threads API: keyword, tag and profile search with a token, within its quota.

An empty answer is recorded as empty-or-filtered, never as success: the API answers so for "sensitive" words too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.records import Outcome
from persona_dagster.sites.dcard.payloads import load_json
from persona_dagster.sites.parsed import MalformedError, decode
from persona_dagster.sites.threads.payloads import parse_threads

GRAPH = "https://graph.threads.net"
FIELDS = "id,text,media_type,permalink,timestamp,username,has_replies,is_quote_post,is_reply,replied_to,root_post"
LIMIT = 100  # rows a query, the most that is given
QUOTA, WINDOW = 2200, timedelta(hours=24)  # queries with a result, by user
TOKEN_VARIABLE = "THREADS_TOKEN"
ACCESS_TOKEN = re.compile(rb'(access_token=)[^&"\\\s]+')


def crawl_api(work: Pass, since: datetime | None, until: datetime | None) -> None:
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        work.report.stopped = f"no {TOKEN_VARIABLE}: put a long-lived token into the environment or .env"
        work.report.outcomes[Outcome.LOGIN_WALL.value] += 1
        return
    used = spent(work)
    after = ""
    while used < QUOTA:
        fetched = search(work, token, since, until, after)
        parsed_next = _take(work, fetched, after)
        if parsed_next is None:
            return
        used += 1
        after = parsed_next
        if not after:
            return
    work.report.stopped = f"the quota of {QUOTA} queries in 24 hours is spent; the next run goes on"


def search(work: Pass, token: str, since: datetime | None, until: datetime | None, after: str) -> Fetched:
    board = work.board
    query = {"fields": FIELDS, "limit": str(LIMIT)}
    if board.startswith("@"):
        path, query = "profile_posts", {**query, "username": board[1:]}
    else:
        mode = "TAG" if board.startswith("#") else "KEYWORD"
        path, query = "keyword_search", {**query, "q": board, "search_type": "RECENT", "search_mode": mode}
    since = since or _newest(work)
    for name, moment in (("since", since), ("until", until)):
        if moment:
            query[name] = str(int(moment.timestamp()))
    if after:
        query["after"] = after
    url = f"{GRAPH}/v1.0/{path}?{urlencode(query)}"
    headers = {"Authorization": f"Bearer {token}"}  # never in the address: addresses are stored
    return work.ask(url, how=lambda asked: work.http.fetch(asked, headers), robots=False)


def _newest(work: Pass) -> datetime | None:
    """Where the last pass ended: a day's overlap catches rows that were indexed late."""
    times = [history.newest.fetched_at for (kind, _), history in work.histories.items() if kind == "api"]
    return max(times) - timedelta(days=1) if times else None


def _take(work: Pass, fetched: Fetched, after: str) -> str | None:
    """Keep the answer; its next cursor, '' at the end, None when nothing may follow."""
    if not fetched.ok:
        work.report.stopped = f"API: {fetched.outcome.value}: {_reason(fetched)}"
        return None
    # The API writes the token into the addresses of its next pages.
    fetched.body = ACCESS_TOKEN.sub(rb"\1REDACTED", fetched.body)
    parsed = parse_threads(fetched.body, board=work.board, author_key=str)
    if parsed.outcome is Outcome.EMPTY_OR_FILTERED:
        if not after:
            work.not_parsed(fetched, parsed.why, Outcome.EMPTY_OR_FILTERED)
        return None
    if not parsed.usable:
        work.not_parsed(fetched, parsed.why)
        return None
    for row, body in _rows(fetched):
        work.keep("api", row, replace(fetched, body=body))
    value = load_json(decode(fetched.body))
    paging = value.get("paging", {})
    return paging.get("cursors", {}).get("after", "") if paging.get("next") else ""


def _rows(fetched: Fetched) -> Iterator[tuple[str, bytes]]:
    """One capture a post, so that a post keeps its key whatever page it comes on."""
    import orjson

    for row in load_json(decode(fetched.body))["data"]:
        yield str(row["id"]), orjson.dumps({"data": [row]})


def _reason(fetched: Fetched) -> str:
    try:
        return str(load_json(decode(fetched.body))["error"]["message"])
    except (MalformedError, KeyError, TypeError):
        return fetched.why


def spent(work: Pass) -> int:
    """Queries with a result in the last 24 hours, counted from the archive."""
    edge = datetime.fromtimestamp(work.clock(), UTC) - WINDOW
    moments = {
        seen.fetched_at
        for (kind, _), history in work.histories.items()
        if kind == "api"
        for seen in history.sightings
        if seen.fetched_at > edge
    }
    return len(moments)
