"""Which addresses may be asked: the site's exact hosts over https, or exactly the replica's host and port.

Asked again on every hop, so that no redirect and no link in a post leads anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from persona_dagster.crawl.transport import Transport

CHALLENGE_HOSTS = ("challenges.cloudflare.com",)  # what a challenge page needs to be answered by a person


class ForbiddenUrlError(ValueError):
    """An address outside the policy."""


class UrlPolicy:
    def __init__(self, hosts: Iterable[str], transport: Transport):
        rewritten = {transport.actual(f"https://{host}") for host in hosts}
        plain = {f"https://{host}" for host in hosts}
        self.origins = rewritten if transport.rewrites else plain
        self.of_challenges = {transport.actual(f"https://{host}") for host in CHALLENGE_HOSTS}
        self.transport = transport

    def actual(self, url: str) -> str:
        """The address to ask for a canonical one. Raises `ForbiddenUrlError`."""
        actual = self.transport.actual(url)
        self.check(actual)
        return actual

    def check(self, actual: str) -> None:
        try:
            parts = urlsplit(actual)
            port = parts.port
        except ValueError as error:
            raise ForbiddenUrlError(f"{actual[:200]!r} is no URL") from error
        origin = f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port else "")
        if parts.username or parts.password or origin not in self.origins:
            allowed = ", ".join(sorted(self.origins))
            raise ForbiddenUrlError(f"{origin} is outside the policy (allowed: {allowed}); add it to `hosts` if it is")

    def allows(self, actual: str) -> bool:
        try:
            self.check(actual)
        except ForbiddenUrlError:
            return False
        return True
