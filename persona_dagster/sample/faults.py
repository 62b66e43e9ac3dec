"""How the replica misbehaves when a test asks it to: rules that strike chosen requests with a named fault.

Some faults are a site's own (an empty list, a gate) and are asked of the site; the rest are answers of the machinery
around it (429, 500, challenge) or happen on the wire (slow, reset, wrong length, bomb), in `replica`.
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache

from persona_dagster.sample.http_messages import Response, json_answer, page, redirect
from persona_dagster.sample.ptt_pages import error_page

OF_SITES = (
    *("over18", "over18_script", "shift", "empty", "huge", "login_wall"),
    *("rendered", "deleted", "pinned", "assets"),
)
OF_WIRE = ("slow", "hang", "reset", "length")
OF_ANSWERS = ("403", "404", "410", "429", "500", "503", "challenge", "private", "gzip_bomb", "large")
FAULTS = (*OF_SITES, *OF_WIRE, *OF_ANSWERS)


@dataclass(frozen=True)
class Rule:
    """Strikes the `nth` request (from 1) whose `site + target` matches `match`, and `times - 1` after it."""

    fault: str
    match: str = ""  # regular expression, searched in e.g. `ptt/bbs/Hate/index.html`
    nth: int = 1
    times: int | None = 1  # None: for good
    retry_after: str | None = None  # the header's value; "+3" becomes the HTTP date in 3 seconds
    seconds: float = 5.0  # how long slow and hang take
    location: str = "http://169.254.169.254/latest/meta-data/"  # where `private` leads
    spares_browsers: bool = False  # strikes plain HTTP clients alone, as a doubtful Cloudflare does
    spares_cleared: bool = False  # strikes those alone who have not answered the challenge in a browser
    size: int = 64 << 20  # decoded bytes of gzip_bomb and large

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise ValueError(f"no fault named {self.fault!r}; known: {', '.join(FAULTS)}")


class Scenario:
    """Rules with their counts. All of them count a request; faults of a site may come together."""

    def __init__(self, rules: Iterable[Rule] = ()):
        self.rules = list(rules)
        self.struck: list[tuple[str, str]] = []  # (fault, site + target)
        self._seen = [0] * len(self.rules)
        self._lock = threading.Lock()

    def pick(self, site: str, target: str, from_browser: bool = False, cleared: bool = False) -> list[Rule]:
        """The rules that strike a request, in their order."""
        striking = []
        with self._lock:
            for index, rule in enumerate(self.rules):
                spared = (from_browser and rule.spares_browsers) or (cleared and rule.spares_cleared)
                if spared or not re.search(rule.match, site + target):
                    continue
                self._seen[index] += 1
                past = self._seen[index] - rule.nth
                if past >= 0 and (rule.times is None or past < rule.times):
                    striking.append(rule)
            self.struck += [(rule.fault, site + target) for rule in striking]
        return striking


def answer(rule: Rule) -> Response | None:
    """The whole answer of a fault in `OF_ANSWERS`; None for the others."""
    retry = {} if rule.retry_after is None else {"Retry-After": retry_after(rule.retry_after)}
    if rule.fault in BUSY:
        status, title, message = BUSY[rule.fault]
        return with_headers(page(error_page(title, message), status), retry)
    if rule.fault == "challenge":
        return challenge()
    if rule.fault == "private":
        return redirect(rule.location)
    if rule.fault == "gzip_bomb":
        return Response(body=bomb(rule.size), headers={"Content-Encoding": "gzip"})
    if rule.fault == "large":
        return Response(body=b"<!DOCTYPE html><html><body>" + b" " * rule.size)
    return None


BUSY = {
    "403": (403, "403", "403 - Forbidden."),
    "404": (404, "404", "404 - Not Found."),
    "410": (410, "410", "410 - Gone."),
    "429": (429, "429", "429 - Too Many Requests."),
    "500": (500, "500", "500 - Internal Server Error / Server Too Busy."),
    "503": (503, "503", "503 - Service Unavailable."),
}


def retry_after(value: str) -> str:
    if value.startswith("+"):
        return format_datetime(datetime.now(UTC) + timedelta(seconds=float(value[1:])), usegmt=True)
    return value


def with_headers(response: Response, headers: Mapping[str, str]) -> Response:
    return replace(response, headers={**response.headers, **headers})


def challenge() -> Response:
    """What a visitor gets whom Cloudflare doubts: 403, a widget that runs scripts, no content."""
    html = """<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title>
<meta http-equiv="Content-Type" content="text/html; charset=UTF-8"><meta name="robots" content="noindex,nofollow">
</head><body><div class="main-wrapper" role="main"><div class="main-content">
<noscript><span id="challenge-error-text">Enable JavaScript and cookies to continue</span></noscript>
<div id="cf-turnstile" class="cf-turnstile"></div></div></div>
<script>(function(){window._cf_chl_opt={cvId:'3',cType:'managed',cRay:'replica'};})();</script>
<script src="https://challenges.cloudflare.com/turnstile/v0/api.js"></script></body></html>"""
    return page(html, 403, Server="cloudflare", Cf_Mitigated="challenge", Cf_Ray="replica-TPE")


CLEARANCE = "cf_clearance"
# The widget, from the challenge's own host: what a person presses, and nothing that a program could compute.
WIDGET = f"""document.querySelector('#cf-turnstile').innerHTML = '<button name="human">我是人</button>';
document.querySelector('button[name=human]').onclick = (event) => {{
  if (!event.isTrusted) return;
  document.cookie = '{CLEARANCE}=yes; path=/'; location.reload();
}};"""


@lru_cache(maxsize=2)
def bomb(size: int) -> bytes:
    """`size` spaces, a thousand times smaller as gzip."""
    return gzip.compress(b" " * size, compresslevel=9)


def please_wait() -> Response:
    """What Threads says to a visitor who must log in."""
    message = {"message": "Please wait a few minutes before you try again.", "require_login": True, "status": "fail"}
    return json_answer(message, 401)
