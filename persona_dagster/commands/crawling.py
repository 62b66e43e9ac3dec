"""Commands that speak of crawling: where each board stands, and whether the sites answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.records import FORUMS, Outcome, Source
from persona_dagster.settings import Settings

app = typer.Typer()
console = Console(soft_wrap=True, highlight=False)
CURES = {
    Outcome.CHALLENGE: "open the site in a browser of your own and point PERSONA_CDP_URL at it",
    Outcome.LOGIN_WALL: "set THREADS_TOKEN to a long-lived token with threads_keyword_search (needs app review)",
    Outcome.BLOCKED: "the site refuses this address: set PERSONA_PROXY, or run from a home line in Taiwan",
    Outcome.RATE_LIMITED: "wait; the next night asks again",
    Outcome.ROBOTS_DISALLOWED: "robots.txt refuses: use the site's API, or imports",
    Outcome.TIMEOUT: "no answer: look at the network, PERSONA_PROXY and `persona doctor`",
}


@app.command()
def frontier(
    board: Annotated[str | None, typer.Argument(help="source/board; default: all")] = None,
    reasons: Annotated[bool, typer.Option(help="name every page in quarantine")] = False,
) -> None:
    """Where each board stands: what is covered, what is owed, what is in quarantine, and when its goal is reached."""
    from persona_dagster.archive.archive import Archive
    from persona_dagster.crawl.frontier import NAME, Frontier, goal_reached

    settings = Settings()
    archive = Archive(settings.archive_url or settings.raw_dir)
    table = Table("board", "covered", "stored", "owed", "gaps", "quarantine", "reaches its goal")
    for source in FORUMS:
        for name in archive.boards(source):
            path = archive.place(source, name, NAME)
            if path is None or not path.is_file() or board not in (None, f"{source}/{name}"):
                continue
            state = Frontier(path)
            standing = state.standing(time.time())
            table.add_row(
                f"{source}/{name}", f"{_day(standing.oldest)} – {_day(standing.newest)}", str(standing.stored),
                str(standing.todo + standing.failing + standing.unread), str(standing.gaps), str(standing.quarantined),
                goal_reached(standing.passes_left, time.time()),
            )  # fmt: skip
            if reasons:
                for item in state.items("quarantined", "failing"):
                    console.print(f"{source}/{name} {item.key}: {item.why} ({item.tries} tries)")
            state.close()
    console.print(table)


@app.command()
def capture(
    cdp: Annotated[str | None, typer.Option(help="where the browser listens; default: PERSONA_CDP_URL")] = None,
) -> None:
    """Archives the posts that you browse in your own browser, as they pass; ends with Ctrl-C, or with the browser.

    Start the browser with --remote-debugging-port=9222 and a --user-data-dir of its own.
    """
    import asyncio
    import signal

    from persona_dagster.archive.archive import Archive
    from persona_dagster.crawl.browser import BrowserError
    from persona_dagster.crawl.browser_capture import Bridge
    from persona_dagster.crawl.transport import Transport
    from persona_dagster.lineage.redaction import scrubber

    settings = Settings()
    url = cdp or settings.cdp_url
    if not url:
        raise typer.BadParameter("name your browser: --cdp http://127.0.0.1:9222, or PERSONA_CDP_URL")
    archive = Archive(settings.archive_url or settings.raw_dir, scrub=scrubber(settings))
    denied = load_sources(settings.config_dir, settings.profile, settings.accepted_dir).denied_boards
    bridge = Bridge(archive, Transport(), denied, console.print)

    async def listen() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        await bridge.run(url, stop)

    try:
        asyncio.run(listen())
    except BrowserError as error:
        raise typer.BadParameter(str(error)) from error
    passed = bridge.passed
    kept = ", ".join(f"{source} {count}" for source, count in sorted(passed.kept.items())) or "none"
    console.print(f"pages and answers kept: {kept}; known before: {passed.known}; of denied boards: {passed.denied}")
    for line in passed.lost[:20]:
        console.print(f"[red]left before it was read[/red]: {line}; open it again")
    if passed.kept:
        console.print("They are in the partition `import` of each site: `persona build`, or materialise its raw asset")


def _day(seconds: int | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC) + timedelta(hours=8):%Y-%m-%d}" if seconds else "…"


def look_at_sites(settings: Settings) -> None:
    """One page of each live site, after its robots.txt: posts seen, or the refusal and its cure."""
    from persona_dagster.crawl.transport import Transport

    sources = load_sources(settings.config_dir, "live", settings.accepted_dir)
    transport = Transport.live(settings)
    for line in accounts(settings):
        console.print(line)
    for source in FORUMS:
        console.print(f"{source:9} {look(source, sources, transport)}")


def accounts(settings: Settings) -> list[str]:
    """What the operator has set for the live sites, and whether it answers; asks this machine and the proxy alone."""
    import socket

    import httpx

    from persona_dagster.crawl.threads_account import TOKEN_VARIABLE, Account
    from persona_dagster.crawl.transport import Transport

    lines, account = [], Account(Transport.live(settings).state)
    if account.token:
        lines.append(f"token     {TOKEN_VARIABLE}: {account.days_left:.0f} days, {account.left()} queries left today")
    else:
        lines.append(f"token     [red]no {TOKEN_VARIABLE}[/red]; {CURES[Outcome.LOGIN_WALL]}")
    if settings.cdp_url:
        try:
            version = httpx.get(f"{settings.cdp_url}/json/version", timeout=5).json().get("Browser", "?")
            lines.append(f"cdp       [green]{version}[/green] at {settings.cdp_url}")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            cure = "start your browser with --remote-debugging-port"
            lines.append(f"cdp       [red]no browser at {settings.cdp_url}: {error}[/red]; {cure}")
    if proxy := Transport.live(settings).proxy_server():
        parts = urlsplit(proxy.server)
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5).close()
            lines.append(f"proxy     [green]answers[/green] at {proxy.server}")
        except OSError as error:
            lines.append(f"proxy     [red]{proxy.server}: {error}[/red]; look at PERSONA_PROXY")
    return lines


def look(source: Source, sources: Sources, transport: object) -> str:
    """What a site shows of its first board, in a line."""
    from persona_dagster.archive.archive import Archive
    from persona_dagster.crawl.crawl_board import crawl_board
    from persona_dagster.crawl.transport import Transport

    assert isinstance(transport, Transport)
    site = sources.site(source)
    board, pace = site.boards[0], site.pace.model_copy(update={"max_requests": 2, "max_minutes": 1.0})
    few = sources.model_copy(update={source: site.model_copy(update={"pace": pace})})
    with TemporaryDirectory() as folder:
        archive = Archive(Path(folder))
        report = crawl_board(source, board, few, archive, transport=transport, log=lambda _: None)
        index = archive.index(source, board)
        seen = len({*index.names(), *index.keys("api")})
    if seen:
        return f"[green]{seen} posts of {board} seen[/green]"
    outcome = next(
        (one for one in Outcome if report.outcomes[one.value] and one not in (Outcome.OK, Outcome.GONE)), None
    )
    cure = CURES.get(outcome, "see the reason") if outcome else "the board may not exist"
    return f"[red]{outcome or 'nothing'}: {report.why or 'no post seen'}[/red]; {cure}"
