"""The operator's account at the Threads API: its token, renewed before it ends, and the queries of the last 24 hours.

The quota is the user's, not a keyword's, so every board and route counts into one ledger. The token is a secret: it
stands in the environment or in a file that only its owner reads, never in the archive.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import orjson

from persona_dagster.artifacts import write_bytes
from persona_dagster.crawl import lease
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.sites.json_validation import load_json
from persona_dagster.sites.parser_results import MalformedError, decode

GRAPH = "https://graph.threads.net"
TOKEN_VARIABLE = "THREADS_TOKEN"
QUOTA, WINDOW = 2200, 24 * 3600.0  # queries with a result, by user
DAY = 86_400.0
RENEW_AFTER, LASTS = 7 * DAY, 60 * DAY  # a token must be a day old to be renewed, and ends after 60
NAME = "threads.json"


class Account:
    """Token and ledger, in `folder` (created for its owner alone); None: where leases are kept."""

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time):
        self.path = (folder or lease.lease_folder()) / NAME
        self.clock = clock
        self.given = os.environ.get(TOKEN_VARIABLE, "")
        value = orjson.loads(self.path.read_bytes()) if self.path.is_file() else {}
        self.spent: list[list[object]] = value.get("spent", [])  # [seconds, route] of each query
        same = value.get("given") == _digest(self.given)  # a new one in the environment takes the place of ours
        self.renewed_at: float = value.get("renewed_at", 0.0) if same else self.clock()
        self.renewed: str = value.get("token", "") if same else ""
        if self.given and not same:
            self._save()

    @property
    def token(self) -> str:
        """The long-lived token, "" when there is none."""
        return self.renewed or self.given

    @property
    def days_left(self) -> float:
        """Days until the token ends, as far as we have seen it begin."""
        return (self.renewed_at + LASTS - self.clock()) / DAY

    def renew(self, fetch: Callable[[str], Fetched]) -> str:
        """Asks for the token anew once it is a week old; "" or why it could not be."""
        if not self.token or self.clock() - self.renewed_at < RENEW_AFTER:
            return ""
        query = {"grant_type": "th_refresh_token", "access_token": self.token}
        fetched = fetch(f"{GRAPH}/refresh_access_token?{urlencode(query)}")
        try:
            value = load_json(decode(fetched.body)) if fetched.ok else {}
        except MalformedError as error:
            return f"the token was not renewed: {error}"
        token = value.get("access_token") if isinstance(value, dict) else None
        if not isinstance(token, str) or not token:
            return f"the token was not renewed ({fetched.outcome.value}); it ends in about {self.days_left:.0f} days"
        self.renewed, self.renewed_at = token, self.clock()
        self._save()
        return ""

    def left(self) -> int:
        """Queries that may still be made."""
        edge = self.clock() - WINDOW
        self.spent = [one for one in self.spent if float(str(one[0])) > edge]
        return QUOTA - len(self.spent)

    def spend(self, route: str) -> None:
        self.spent.append([self.clock(), route])
        self._save()

    def _save(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        value = {
            "given": _digest(self.given), "token": self.renewed, "renewed_at": self.renewed_at, "spent": self.spent,
        }  # fmt: skip
        write_bytes(self.path, orjson.dumps(value))
        self.path.chmod(0o600)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
