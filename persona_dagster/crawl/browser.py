"""A real Chromium for what plain HTTP cannot reach: the over-18 gate, Dcard, Threads.

Nothing is disguised and no challenge is solved: where somebody sees the browser, it is left to them for a while, and
the challenge's own hosts may be asked as long. Other hosts outside the policy do not resolve inside the browser, which
holds on every hop, also on redirects that Playwright's own routing does not see.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from persona_dagster.crawl.outcomes import Fetched, classify
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import UrlPolicy
from persona_dagster.records import Outcome

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, BrowserType, Page, ProxySettings, Response, Route

T = TypeVar("T")

FLAGS = [
    "--no-sandbox",  # as root there is none; the pages are the three sites' alone
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
LIVES = 3  # a driver that dies more often in one pass is not coming back
NAVIGATION_MS = 30_000
LOOK_MS = 200  # at a challenge

# The PTT of today serves the list, with a script that sends whoever lacks the cookie to the question.
BOUNCE = re.compile(rb"location(?:\.href)?\s*=\s*['\"][^'\"]*/ask/over18")
GATE = re.compile(r"/ask/over18")
LEFT = "No resource with given identifier"  # what Chromium says of the body of a page that was left

# Streams, so that an endless or huge answer is cut off where it passes the bound.
FETCH = """async ([url, headers, limit, milliseconds]) => {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), milliseconds);
  try {
    const answer = await fetch(url, {headers, signal: controller.signal, credentials: 'include'});
    const parts = []; let size = 0;
    const reader = answer.body ? answer.body.getReader() : null;
    while (reader) {
      const {done, value} = await reader.read();
      if (done) break;
      size += value.length;
      if (size > limit) { controller.abort(); return {large: true}; }
      parts.push(value);
    }
    const body = await new Blob(parts).arrayBuffer();
    let binary = ''; const bytes = new Uint8Array(body);
    for (let i = 0; i < bytes.length; i += 32768) binary += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return {url: answer.url, status: answer.status, headers: Object.fromEntries(answer.headers), body: btoa(binary)};
  } catch (error) {
    return {error: String(error), aborted: controller.signal.aborted};
  } finally { clearTimeout(timer); }
}"""


INSTALL = "playwright install chromium --only-shell, apt install chromium-headless-shell, or set PERSONA_CHROMIUM"


class BrowserMissing(RuntimeError):  # noqa: N818 - says what is the case
    """There is no Chromium to start."""


def find_chromium(path: Path | None = None, *, headed: bool = False) -> Path:
    """The Chromium that a crawl would start: `path`, else the one found. Raises `BrowserMissing`."""
    found = Transport(chromium=path, headed=headed).browser_path() or _playwrights_own(headed)
    if found is None or not found.is_file():
        wanted = f"{path} is no file" if path else "no Chromium on PATH"
        raise BrowserMissing(f"{wanted}; {INSTALL}")
    return found


def _playwrights_own(headed: bool) -> Path | None:
    """What `playwright install chromium` left."""
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    names = ("chrome",) if headed else ("chrome-headless-shell", "headless_shell", "chrome")
    return next((path for name in names for path in sorted(folder.glob(f"chromium*/*/{name}"))), None)


class BrowserError(RuntimeError):
    """The browser cannot be started, or died more often than is worth another try."""


class Browser:
    """One context in one Chromium, started when first used, started again when its driver dies."""

    def __init__(
        self, policy: UrlPolicy, transport: Transport, max_bytes: int, log: Callable[[str], None] = lambda _: None
    ):
        self.policy, self.transport, self.max_bytes, self.log = policy, transport, max_bytes, log
        self.deaths = 0
        self.challenged = False  # whether the page that is shown is a challenge
        self._document: Response | None = None  # the answer that is shown
        self._home = ""  # the page that was opened last, from which in-page fetches go
        self._playwright: Any = None
        self._browser: Any = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def page(self) -> Page:
        if self._page is None:
            self._start()
        assert self._page is not None
        return self._page

    def _start(self) -> None:
        from playwright.sync_api import Error, sync_playwright

        try:
            self._playwright = sync_playwright().start()
            if self.transport.cdp_url:
                self._browser = self._playwright.chromium.connect_over_cdp(self.transport.cdp_url)
                self._context = self._browser.contexts[0]
            else:
                self._context = self._launch(self._playwright.chromium)
            self._page = self._new_page()
        except Error as error:
            self.close()
            why = error.message.splitlines()[0]
            if "executable doesn't exist" in why.lower():  # asking again would not bring it
                raise BrowserMissing(f"{why}; {INSTALL}") from error
            raise BrowserError(f"Chromium does not start: {why}; run `persona doctor`") from error

    def _launch(self, chromium: BrowserType) -> BrowserContext:
        if self.transport.headed and not os.environ.get("DISPLAY"):
            raise BrowserError("PERSONA_HEADED needs a display: run under xvfb-run (apt install xvfb chromium)")
        proxy = self._proxy()
        launch: dict[str, Any] = {
            "executable_path": self.transport.browser_path(),
            "headless": not self.transport.headed,
            "args": [*FLAGS, self._resolver_rule(proxy)],
            "proxy": proxy,
        }
        page: dict[str, Any] = {"locale": "zh-TW", "service_workers": "block", "accept_downloads": False}
        if self.transport.profile:
            folder = self.transport.profile / sorted(self._hosts())[0]  # one pass at a time holds a host
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            context = chromium.launch_persistent_context(folder, **launch, **page)
        else:
            self._browser = chromium.launch(**launch)
            context = self._browser.new_context(**page)
        return context

    def _new_page(self) -> Page:
        assert self._context is not None
        page = self._context.new_page()
        page.set_default_timeout(NAVIGATION_MS)
        if self.transport.visible or self.transport.proxy_server():  # there the resolver's rule does not hold
            page.route("**/*", self._routed)
        if self.transport.visible:
            page.on("response", self._note_document)
        return page

    def _routed(self, route: Route) -> None:
        if self._within(route.request.url):
            route.continue_()
        else:
            route.abort("blockedbyclient")

    def _within(self, url: str) -> bool:
        parts = urlsplit(url)
        return (
            parts.scheme in ("data", "blob")
            or self.policy.allows(url)
            or (self.challenged and f"{parts.scheme}://{parts.netloc}" in self.policy.of_challenges)
        )

    def _note_document(self, answer: Response) -> None:
        if answer.request.is_navigation_request() and answer.frame == answer.frame.page.main_frame:
            self._document = answer
            self.challenged = answer.headers.get("cf-mitigated") == "challenge"

    def _proxy(self) -> ProxySettings | None:
        """The operator's proxy as Playwright takes it."""
        proxy = self.transport.proxy_server()
        return {"server": proxy.server, "username": proxy.user, "password": proxy.password} if proxy else None

    def _hosts(self) -> set[str]:
        return {urlsplit(origin).hostname or "" for origin in self.policy.origins}

    def _resolver_rule(self, proxy: ProxySettings | None) -> str:
        hosts = self._hosts() | ({urlsplit(proxy["server"]).hostname or ""} if proxy else set())
        if self.transport.headed:
            hosts |= {urlsplit(origin).hostname or "" for origin in self.policy.of_challenges}
        return ", ".join(["--host-resolver-rules=MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in sorted(hosts))])

    def close(self) -> None:
        """Ends the browser and its driver; also when they are dead already."""
        if self._playwright is None:
            return  # never started: its import alone costs 5 MB
        from playwright.sync_api import Error

        # Over CDP the browser is the operator's: only our page goes.
        ours = [self._page] if self.transport.cdp_url else [self._context, self._browser]
        for end in (*(thing.close for thing in ours if thing), *([self._playwright.stop] if self._playwright else [])):
            with suppress(Error, OSError):  # a dead driver cannot be closed, only left
                end()
        self._playwright = self._browser = self._context = self._page = None

    def _alive(self, action: Callable[[], T]) -> T | Fetched:  # noqa: PLR0911 - one return an ending
        """`action`, with the driver's death as an outcome: the next call starts a new browser."""
        from playwright.sync_api import Error
        from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

        try:
            return action()
        except PlaywrightTimeoutError as error:
            return Fetched("", Outcome.TIMEOUT, why=error.message.splitlines()[0])
        except Error as error:
            why = error.message.splitlines()[0]
            if LEFT in why:
                return Fetched("", Outcome.TRUNCATED, why="the page went on before it could be read")
            if "ERR_" not in why:
                self._died(why)
                return Fetched("", Outcome.TIMEOUT, why=f"the browser died: {why}")
            self._leave_page()
            if "ERR_NAME_NOT_RESOLVED" in why or "ERR_BLOCKED" in why:
                return Fetched("", Outcome.BLOCKED, why="led to a host outside the policy")
            return Fetched("", Outcome.TIMEOUT, why=why)
        except (BrokenPipeError, ConnectionError, EOFError) as error:
            self._died(str(error))
            return Fetched("", Outcome.TIMEOUT, why=f"the browser's driver died: {error}")

    def _leave_page(self) -> None:
        """A new tab with the same cookies: the old one still has an error page to come, which would interrupt us."""
        old, self._page = self._page, None
        self._page = self._new_page()
        if old:
            old.close()

    def _died(self, why: str) -> None:
        self.deaths += 1
        self.close()
        if self.deaths >= LIVES:
            raise BrowserError(f"the browser died {self.deaths} times in this pass, last: {why}")

    def goto(self, url: str) -> Fetched:
        """Navigate to a canonical URL; the document as it was served."""
        started, actual = time.monotonic(), self.policy.actual(url)

        def navigate() -> Fetched:
            answer = self.page.goto(actual, wait_until="domcontentloaded")
            return self._fetched(url, answer)

        fetched = self._alive(navigate)
        if fetched.outcome is Outcome.CHALLENGE and self.challenged:
            fetched = self._answered(url, fetched)
        fetched.url, fetched.seconds = fetched.url or url, time.monotonic() - started
        self._home = url if fetched.ok else self._home
        return fetched

    def _answered(self, url: str, shown: Fetched) -> Fetched:
        """What comes once a person has answered the challenge that is shown; `shown` where nobody does."""
        self.log(f"{url}: a challenge; answer it in the browser within {self.transport.patience:.0f} s")
        until = time.monotonic() + self.transport.patience
        while self.challenged and time.monotonic() < until:
            if isinstance(gone := self._alive(lambda: self.page.wait_for_timeout(LOOK_MS)), Fetched):
                return gone
        if self.challenged:
            return shown
        self._alive(lambda: self.page.wait_for_load_state("domcontentloaded"))
        return self._alive(lambda: self._fetched(url, self._document))

    def _fetched(self, url: str, answer: Response | None) -> Fetched:
        if answer is None:
            return Fetched(url, Outcome.TIMEOUT, why="no answer")
        if not self.policy.allows(answer.url):
            return Fetched(url, Outcome.BLOCKED, why="led to a host outside the policy")
        canonical, headers = self.transport.canonical(answer.url), answer.headers
        if int(headers.get("content-length") or 0) > self.max_bytes:
            return Fetched(
                canonical, Outcome.TOO_LARGE, answer.status, headers, why=f"more than {self.max_bytes} bytes"
            )
        body = answer.body()
        if len(body) > self.max_bytes:
            return Fetched(
                canonical, Outcome.TOO_LARGE, answer.status, headers, why=f"more than {self.max_bytes} bytes"
            )
        outcome, why = classify(canonical, answer.status, headers, body)
        return Fetched(canonical, outcome, answer.status, headers, body, why)

    def fetch(self, url: str, headers: dict[str, str] | None = None) -> Fetched:
        """An in-page `fetch()`: the browser's own identity, a fourteenth of a navigation's CPU."""
        started, actual = time.monotonic(), self.policy.actual(url)

        if self._home and not self._on_site():
            self.goto(self._home)  # the browser had died, and its session with it

        def ask() -> Any:
            if not self._on_site():
                return {"error": "the page was left", "aborted": False}
            return self.page.evaluate(FETCH, [actual, headers or {}, self.max_bytes, NAVIGATION_MS])

        answer = self._alive(ask)
        fetched = answer if isinstance(answer, Fetched) else self._from_page(url, answer)
        if fetched.outcome is Outcome.CHALLENGE and self.transport.visible:
            return self.goto(url)  # where it can be seen, and answered
        fetched.url, fetched.seconds = fetched.url or url, time.monotonic() - started
        return fetched

    def _on_site(self) -> bool:
        return self.page.url.startswith(tuple(self.policy.origins))

    def _from_page(self, url: str, answer: dict[str, Any]) -> Fetched:
        if answer.get("large"):
            return Fetched(url, Outcome.TOO_LARGE, why=f"more than {self.max_bytes} bytes")
        if "error" in answer:
            return Fetched(url, Outcome.TIMEOUT if answer["aborted"] else Outcome.TRUNCATED, why=answer["error"])
        canonical, body = self.transport.canonical(answer["url"]), base64.b64decode(answer["body"])
        outcome, why = classify(canonical, answer["status"], answer["headers"], body)
        return Fetched(canonical, outcome, answer["status"], answer["headers"], body, why)

    def taken(self, response: Response) -> Fetched:
        """An answer that the page's own script asked for."""
        fetched = self._alive(lambda: self._fetched(self.transport.canonical(response.url), response))
        fetched.url = fetched.url or self.transport.canonical(response.url)
        return fetched

    def scroll(self) -> None:
        """To the page's end, as a reader does."""
        self._alive(lambda: self.page.evaluate("window.scrollTo(0, document.body.scrollHeight)"))

    def wait(self, milliseconds: int) -> None:
        """Lets the page's script go on."""
        self._alive(lambda: self.page.wait_for_timeout(milliseconds))

    def content(self) -> Fetched:
        """The page as its script has drawn it by now."""
        found = self._alive(lambda: str(self.page.content()))
        if isinstance(found, Fetched):
            return found
        body = f"<!DOCTYPE html>{found.removeprefix('<!DOCTYPE html>')}".encode()
        if len(body) > self.max_bytes:
            return Fetched(self._home, Outcome.TOO_LARGE, why=f"more than {self.max_bytes} bytes")
        return Fetched(self._home, Outcome.OK, 200, {}, body)

    def cookies(self) -> dict[str, str]:
        """Name → value, of the policy's hosts alone."""
        page = self.page
        return {cookie["name"]: cookie["value"] for cookie in page.context.cookies(sorted(self.policy.origins))}

    def pass_over18(self, url: str) -> Fetched:
        """Answer the over-18 question as a visitor does: open the page, press yes, land where one wanted to go."""
        first = self.goto(url)
        if first.outcome is not Outcome.GATE and not self._sent_to_gate(first):
            return first
        started = time.monotonic()

        def press() -> Fetched:
            with self.page.expect_navigation(wait_until="domcontentloaded") as navigation:
                self.page.click('button[name="yes"]')
            return self._fetched(url, navigation.value)

        fetched = self._alive(press)
        fetched.url, fetched.seconds = fetched.url or url, time.monotonic() - started
        return fetched

    def _sent_to_gate(self, first: Fetched) -> bool:
        """Whether the page's own script goes on to the question, waited for."""
        if first.ok and (not BOUNCE.search(first.body) or self.cookies().get("over18") == "1"):
            return False
        if not first.ok and first.outcome is not Outcome.TRUNCATED:
            return False
        arrived = self._alive(lambda: self.page.wait_for_url(GATE, wait_until="domcontentloaded", timeout=5_000))
        return arrived is None
