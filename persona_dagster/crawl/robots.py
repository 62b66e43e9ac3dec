"""robots.txt as RFC 9309 has it: absent means allowed, unreachable means not, and it is read again after a day."""

from __future__ import annotations

from collections.abc import Callable

from protego import Protego

from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.records import Outcome

LONGEST = 3600.0  # seconds
MAX_BYTES = 500 << 10  # what a crawler must read at least (RFC 9309, 2.5); the rest is ignored


class Robots:
    """The rules of one host for our user agent."""

    def __init__(self, agent: str, fetch: Callable[[], Fetched]):
        self.agent = agent
        self.fetch = fetch
        self._rules: Protego | None = None
        self._verdict: bool | None = None  # for hosts whose file cannot be read as rules
        self.why = ""

    def allows(self, url: str) -> bool:
        if self._rules is None and self._verdict is None:
            self._read()
        return self._verdict if self._rules is None else self._rules.can_fetch(url, self.agent)  # type: ignore[return-value]

    @property
    def delay(self) -> float:
        """Crawl-delay in seconds, 0 where none is asked, `LONGEST` where more than a pass could take is."""
        asked = float((self._rules.crawl_delay(self.agent) if self._rules else None) or 0)
        return min(max(asked, 0.0), LONGEST)

    def _read(self) -> None:
        answer = self.fetch()
        if answer.outcome is Outcome.OK:
            self._rules = Protego.parse(text_of(answer.body))
        elif 400 <= answer.status < 500 and answer.status != 429 and answer.outcome is not Outcome.CHALLENGE:
            self._verdict, self.why = True, f"robots.txt answers {answer.status}: no rules"
        else:
            self._verdict, self.why = False, f"robots.txt cannot be read ({answer.outcome.value}): nothing is asked"


def text_of(body: bytes) -> str:
    """The rules as text: without a byte-order mark, up to the last whole line within the size."""
    if len(body) > MAX_BYTES:
        body = body[:MAX_BYTES].rpartition(b"\n")[0]
    text = body.decode("utf-8", "replace").lstrip("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")
