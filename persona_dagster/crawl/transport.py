"""How requests leave this machine: which browser, and whether canonical origins go to the replica instead.

The one thing that differs between the live sites and the sample, so that every other module is the same for both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from urllib3.util import make_headers

from persona_dagster.settings import Settings

USER_AGENT = "persona_dagster/0.2 (+{contact}; research crawler, 1 request/s)"
PROJECT = "https://pypi.org/project/persona-dagster"
# Debian's builds; the headless shell costs 1.3-1.6 times less CPU and starts 0.5 s sooner than full Chromium.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Proxy:
    server: str
    user: str
    password: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return dict(make_headers(proxy_basic_auth=f"{self.user}:{self.password}")) if self.user else {}


@dataclass(frozen=True)
class Transport:
    """`rewrites` maps a canonical origin (`https://www.ptt.cc`) to where it is served (`http://127.0.0.1:8090`).

    Records keep canonical URLs. Without rewrites only the sites' exact hosts are reached, with them only the
    rewritten host and port.
    """

    rewrites: Mapping[str, str] = field(default_factory=dict)
    chromium: Path | None = None  # None: the one found on PATH, else Playwright's own
    cdp_url: str | None = None  # the operator's own browser, reached over the DevTools protocol
    user_agent: str = USER_AGENT.format(contact=PROJECT)  # of plain HTTP; the browser says what it is
    headed: bool = False  # needs a display (Xvfb): sites that refuse headless browsers
    patience: float = 300.0  # seconds that a challenge is left to whoever sees the browser
    proxy: str | None = field(default=None, repr=False)  # `http://user:password@host:port`, for HTTP and browser alike
    profile: Path | None = None  # where the browser keeps its session of each site from one pass to the next
    state: Path | None = None  # where the operator's accounts are kept (token, quota); None: with the leases
    leases: Path | None = None  # where hosts are held and their pauses kept; None: one folder for the machine

    @classmethod
    def live(cls, settings: Settings) -> Transport:
        """The way to the sites themselves, as the operator has set it."""
        contact = settings.contact or PROJECT
        if not contact.isprintable() or not contact.isascii():
            raise ValueError(f"PERSONA_CONTACT is {contact!r}: an e-mail address or a URL, in ASCII")
        return cls(
            chromium=settings.chromium,
            cdp_url=settings.cdp_url,
            user_agent=USER_AGENT.format(contact=contact),
            headed=settings.headed,
            proxy=settings.proxy,
            profile=settings.browser_dir,
        )

    @property
    def visible(self) -> bool:
        """Whether somebody may see the browser, and answer what a site asks of a person."""
        return self.headed or self.cdp_url is not None

    def proxy_server(self) -> Proxy | None:
        """The operator's proxy; none to the replica. Raises `ValueError`, which does not show the password."""
        if not self.proxy or self.rewrites:
            return None
        parts = urlsplit(self.proxy)
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port:
            raise ValueError("PERSONA_PROXY must be http://host:port or http://user:password@host:port")
        server = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        return Proxy(server, unquote(parts.username or ""), unquote(parts.password or ""))

    def browser_path(self) -> Path | None:
        """The Chromium to start; None leaves the choice to Playwright."""
        if self.chromium:
            return self.chromium
        names = CHROMIUMS[1:] if self.headed else CHROMIUMS
        return next((Path(found) for name in names if (found := shutil.which(name))), None)

    def actual(self, url: str) -> str:
        """Where a canonical URL is really asked."""
        for canonical, origin in self.rewrites.items():
            if url == canonical or url.startswith(canonical + "/"):
                return origin + url[len(canonical) :]
        return url

    def canonical(self, url: str) -> str:
        """The URL to store for one that was really asked."""
        for canonical, origin in self.rewrites.items():
            if url == origin or url.startswith(origin + "/"):
                return canonical + url[len(origin) :]
        return url
