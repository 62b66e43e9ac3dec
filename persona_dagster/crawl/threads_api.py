"""The official Threads API: keyword, tag and profile search with a token, within its quota.

An empty answer is recorded as empty-or-filtered, never as success: the API answers so for "sensitive" words too. Posts
come newest first and times can be asked for, so a walk that the quota cuts off leaves a stretch of time that the next
one asks for by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlencode

import orjson

from persona_dagster.crawl import threads_account
from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.frontier import Listed
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.threads_account import DAY, GRAPH, TOKEN_VARIABLE, Account
from persona_dagster.records import Outcome
from persona_dagster.sites.parser_results import MalformedError
from persona_dagster.sites.threads.payloads import api_answer, api_refusal, parse_threads

FIELDS = "id,text,media_type,permalink,timestamp,username,has_replies,is_quote_post,is_reply,replied_to,root_post"
LIMIT = 100  # rows a query, the most that is given
OVERLAP = DAY  # rows that were indexed late
ACCESS_TOKEN = re.compile(rb'(access_token=)[^&"\\\s]+')
Stretch = tuple[float | None, float | None]  # unix seconds: since, until; None: open


def crawl_api(work: Pass, since: datetime | None, until: datetime | None) -> None:
    account = Account(work.transport.state, work.clock)
    if not account.token:
        work.report.stopped = f"no {TOKEN_VARIABLE}: put a long-lived token into the environment or .env"
        work.report.outcomes[Outcome.LOGIN_WALL.value] += 1
        return
    if why := account.renew(lambda url: work.ask(url, robots=False)):
        work.log(f"threads: {why}")
    for stretch in stretches(work, since, until):
        _walk(work, account, stretch)
        if work.report.stopped:
            return


def stretches(work: Pass, since: datetime | None, until: datetime | None) -> list[Stretch]:
    """What is asked for: what is new, and what earlier walks were cut off from."""
    if since or until:
        return [(since.timestamp() if since else None, until.timestamp() if until else None)]
    reached = work.frontier.note("api_until")
    return [(reached - OVERLAP if reached else None, None), *map(tuple, work.frontier.note("api_gaps") or [])]


def _walk(work: Pass, account: Account, stretch: Stretch) -> None:
    """One stretch of time, newest first; what is left of it when it is cut off is written down."""
    after, oldest = "", None
    gaps = [list(gap) for gap in work.frontier.note("api_gaps") or [] if tuple(gap) != stretch]
    while True:
        if account.left() <= 0:
            quota = threads_account.QUOTA
            work.report.stopped = f"the quota of {quota} queries in 24 hours is spent; the next run goes on"
            break
        fetched = search(work, account.token, stretch, after)
        taken = _take(work, fetched, after)
        if taken is None:
            break
        after, times = taken
        account.spend("profile" if work.board.startswith("@") else "search")
        if times:
            oldest = min([*times, *([oldest] if oldest else [])])
            work.frontier.set_note("api_until", max([*times, float(work.frontier.note("api_until") or 0)]))
            work.board_now = float(work.frontier.note("api_until"))
        if not after:
            break
    if work.report.stopped and (oldest or tuple(stretch) != (None, None)):
        gaps.append([stretch[0], oldest or stretch[1]])
        work.report.due += 1
    work.frontier.set_note("api_gaps", gaps)


def search(work: Pass, token: str, stretch: Stretch, after: str) -> Fetched:
    board = work.board
    query = {"fields": FIELDS, "limit": str(LIMIT)}
    if board.startswith("@"):
        path, query = "profile_posts", {**query, "username": board[1:]}
    else:
        mode = "TAG" if board.startswith("#") else "KEYWORD"
        path, query = "keyword_search", {**query, "q": board, "search_type": "RECENT", "search_mode": mode}
    for name, moment in zip(("since", "until"), stretch, strict=True):
        if moment:
            query[name] = str(int(moment))
    if after:
        query["after"] = after
    url = f"{GRAPH}/v1.0/{path}?{urlencode(query)}"
    headers = {"Authorization": f"Bearer {token}"}  # never in the address: addresses are stored
    return work.ask(url, how=lambda asked: work.http.fetch(asked, headers), robots=False)


def _take(work: Pass, fetched: Fetched, after: str) -> tuple[str, list[float]] | None:
    """Keep the answer; its next cursor, '' at the end, and the times of its posts; None when nothing may follow."""
    if not fetched.ok:
        work.report.stopped = f"API: {fetched.outcome.value}: {_reason(fetched)}"
        return None
    # The API writes the token into the addresses of its next pages.
    fetched.body = ACCESS_TOKEN.sub(rb"\1REDACTED", fetched.body)
    parsed = parse_threads(fetched.body, board=work.board, author_key=str)
    if parsed.outcome is Outcome.EMPTY_OR_FILTERED:
        if not after:
            work.not_parsed(fetched, parsed.why, Outcome.EMPTY_OR_FILTERED)
            if work.frontier.note("api_until") is None:  # a day without news is no refusal
                work.report.stopped = f"API: {parsed.why}"
        return None
    if not parsed.usable:
        work.not_parsed(fetched, parsed.why)
        work.report.stopped = f"API: {parsed.why}"
        return None
    times = [post.created_at.timestamp() for post in parsed.posts if post.created_at]
    for row, body in _rows(fetched):
        work.owe("api", [Listed(row, int(max(times, default=0)))])
        work.keep("api", row, replace(fetched, body=body))
        work.frontier.settle("api", row, "stored", None)  # it is looked at again with its list
    return api_answer(fetched.body).after, times


def _rows(fetched: Fetched) -> Iterator[tuple[str, bytes]]:
    """One capture a post, so that a post keeps its key whatever page it comes on."""
    for row in api_answer(fetched.body).data:
        yield row["id"], orjson.dumps({"data": [row]})


def _reason(fetched: Fetched) -> str:
    try:
        return api_refusal(fetched.body)
    except MalformedError:
        return fetched.why
