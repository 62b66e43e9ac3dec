"""Commands that speak of crawling: where each board stands, and whether the sites answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

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
    """Where each board's crawl stands: what is covered, what is owed, what is in quarantine, and for how long yet."""
    from persona_dagster.archive.archive import Archive
    from persona_dagster.crawl.frontier import NAME, Frontier

    settings = Settings()
    archive = Archive(settings.archive_url or settings.raw_dir)
    table = Table("board", "covered", "stored", "owed", "gaps", "quarantine", "nights left")
    for source in FORUMS:
        for name in archive.boards(source):
            path = archive.place(source, name, NAME)
            if path is None or not path.is_file() or board not in (None, f"{source}/{name}"):
                continue
            state = Frontier(path)
            standing = state.standing(time.time())
            left = standing.passes_left
            table.add_row(
                f"{source}/{name}", f"{_day(standing.oldest)} – {_day(standing.newest)}", str(standing.stored),
                str(standing.todo + standing.failing + standing.unread), str(standing.gaps), str(standing.quarantined),
                "?" if left is None else f"{left:.0f}",
            )  # fmt: skip
            if reasons:
                for item in state.items("quarantined", "failing"):
                    console.print(f"{source}/{name} {item.key}: {item.why} ({item.tries} tries)")
            state.close()
    console.print(table)


def _day(seconds: int | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC) + timedelta(hours=8):%Y-%m-%d}" if seconds else "…"


def look_at_sites(settings: Settings) -> None:
    """One careful look at each live site, of three requests at most: posts seen, or the refusal and its cure."""
    from persona_dagster.crawl.transport import Transport

    sources = load_sources(settings.config_dir, "live")
    transport = Transport.live(settings)
    for source in FORUMS:
        console.print(f"{source:9} {look(source, sources, transport)}")


def look(source: Source, sources: Sources, transport: object) -> str:
    """What a site shows of its first board, in a line."""
    from persona_dagster.archive.archive import Archive
    from persona_dagster.crawl.boards import crawl_board
    from persona_dagster.crawl.transport import Transport

    assert isinstance(transport, Transport)
    site = sources.site(source)
    board, pace = site.boards[0], site.pace.model_copy(update={"max_requests": 3, "max_minutes": 1.0})
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
