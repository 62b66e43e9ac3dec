"""What an answer means: 200 is not success, and a refusal must never look like an empty site."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from persona_dagster.records import Outcome

# Cloudflare's interstitials. `challenge-platform` is no sign of one: its script stands in ordinary pages too.
CHALLENGE = re.compile(
    rb"cf-turnstile|_cf_chl_opt|cf-browser-verification|<title>(?:Just a moment|Attention Required!)"
)
OVER18 = re.compile(rb'action="/ask/over18"|class="over18-notice"')
LOGIN = re.compile(rb'"require_login"\s*:\s*true')
BUSY = re.compile(rb"Server Too Busy|Service too busy", re.IGNORECASE)
HEAD = 64 << 10  # a refusal says so early; a whole article may quote one
BY_STATUS = {
    401: Outcome.LOGIN_WALL,
    403: Outcome.BLOCKED,
    404: Outcome.GONE,
    408: Outcome.TIMEOUT,
    410: Outcome.GONE,
    413: Outcome.TOO_LARGE,
    425: Outcome.SERVER_BUSY,
    429: Outcome.RATE_LIMITED,
    451: Outcome.BLOCKED,
}
# Worth asking again soon; the others need the operator, or another day.
RETRYABLE = frozenset([Outcome.SERVER_BUSY, Outcome.TIMEOUT, Outcome.TRUNCATED, Outcome.RATE_LIMITED])
# The host says no: every further request would make it worse.
REFUSALS = frozenset([Outcome.CHALLENGE, Outcome.BLOCKED, Outcome.RATE_LIMITED, Outcome.LOGIN_WALL])


@dataclass(slots=True)
class Fetched:
    """One answer. `url` is canonical and final; `body` is decoded and bounded."""

    url: str
    outcome: Outcome
    status: int = 0  # 0: no answer
    headers: dict[str, str] = field(default_factory=dict)  # lower-case names
    body: bytes = b""
    why: str = ""
    seconds: float = 0.0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


def classify(  # noqa: PLR0911 - one return an outcome
    url: str, status: int, headers: Mapping[str, str], body: bytes
) -> tuple[Outcome, str]:
    """The outcome of a whole answer, and why. A page's completeness is its parser's to tell."""
    head, path = body[:HEAD], urlsplit(url).path
    if headers.get("cf-mitigated") == "challenge" or (status in (200, 403, 429, 503) and _challenge(head)):
        return Outcome.CHALLENGE, "a challenge page; open the site in a browser yourself, then run again"
    if path.startswith("/ask/over18") or (status == 200 and OVER18.search(head)):
        return Outcome.GATE, "the over-18 question"
    if LOGIN.search(head) or path.startswith(("/login", "/accounts/login")):
        return Outcome.LOGIN_WALL, "the site asks for a log-in"
    if status in BY_STATUS:
        return BY_STATUS[status], f"status {status}"
    if status >= 500 or BUSY.search(head[:2000]):
        return Outcome.SERVER_BUSY, f"status {status}"
    if status == 200:
        return (Outcome.OK, "") if body else (Outcome.TRUNCATED, "an empty answer")
    return Outcome.BLOCKED, f"status {status}"


def _challenge(head: bytes) -> bool:
    # An article may talk of challenges; an interstitial holds no forum markup.
    page = head.lstrip()[:1] == b"<"
    return page and bool(CHALLENGE.search(head)) and b'id="main-content"' not in head and b"data-sjs" not in head
