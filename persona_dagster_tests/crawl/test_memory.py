"""A crawl's memory stays flat: what it has fetched lies in the archive, not in the process."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.transport import Transport
from persona_dagster.sample.ptt_pages import article_page

PAGES, SOAK_PAGES = 300, 20_000
NEWEST, GAP = 1_788_235_200, 50  # seconds between two articles: 20,000 lie within 12 days
LISTED = 20
MOST_GROWTH = 8 << 20  # bytes between a tenth of the walk and its end; 20,000 bodies would be 300 MB
INDEX_A_PAGE, SLACK = 2048, 16 << 20  # at the end the index of the whole board is read, from 1,000 small parts


def name(number: int, pages: int) -> str:
    return f"M.{NEWEST - (pages - 1 - number) * GAP}.A.{number % 4096:03X}"


def listing(page: int, pages: int) -> str:
    """Page `page` of the board, counted from the oldest, 1-based."""
    rows = "".join(
        '<div class="r-ent"><div class="nrec"></div><div class="title">'
        f'<a href="/bbs/Big/{name(n, pages)}.html">[量測] {n}</a>'
        '</div><div class="meta"><div class="author">bench01</div><div class="date"> 9/01</div><div class="mark"></div>'
        "</div></div>"
        for n in range((page - 1) * LISTED, min(page * LISTED, pages))
    )
    older = f'<a class="btn wide" href="/bbs/Big/index{page - 1}.html">&lsaquo; 上頁</a>' if page > 1 else ""
    return (
        f'<!DOCTYPE html><html><body><div class="btn-group btn-group-paging">{older}</div>'
        f'<div class="r-list-container action-bar-margin bbs-screen">{rows}</div></body></html>'
    )


@lru_cache
def block(number: int) -> str:
    return "".join(chr(0x4E00 + (number * 7919 + n * n * 31) % 20_000) + "\n" * (n % 38 == 37) for n in range(100))


def article(key: str) -> str:
    # 15 KB that do not compress away, another text for each article.
    seed = int(key.split(".")[1])
    text = "".join(block((seed * 7919 + n * 31) % 997) for n in range(50))
    head = (("", "作者", "bench01 (量測)"), ("-right", "看板", "Big"), ("", "標題", "[量測] 大板"))
    metas = "".join(
        f'<div class="article-metaline{side}"><span class="article-meta-tag">{tag}</span>'
        f'<span class="article-meta-value">{value}</span></div>'
        for side, tag, value in head
    )
    return article_page("Big", key, "[量測] 大板", "量測", main=f"{metas}\n{text}\n--\n", adult=False)


class Board(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pages = 0

    def do_GET(self) -> None:
        found = re.search(r"/index(\d*)\.html", self.path)
        if "robots" in self.path:
            text = "User-agent: *\nAllow: /\n"
        elif found:
            text = listing(int(found[1] or -(-self.pages // LISTED)), self.pages)
        else:
            text = article(self.path.rsplit("/", 1)[1].removesuffix(".html"))
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def serve(pages: int, ports: Any) -> None:
    Board.pages = pages
    server = ThreadingHTTPServer(("127.0.0.1", 0), Board)
    ports.put(server.server_address[1])
    server.serve_forever()


@contextmanager
def big_board(pages: int) -> Iterator[str]:
    """The site in a process of its own, so that ours holds the crawl alone."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=serve, args=(pages, ports), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=60)}"
    finally:
        process.kill()  # Dagster may have made SIGTERM be ignored here and below
        process.join()


def test_memory_is_flat(tiny: Sources, tmp_path: Path, soak: bool) -> None:
    pages = SOAK_PAGES if soak else PAGES
    pace = tiny.ptt.pace.model_copy(
        update={"requests_per_second": 5_000.0, "max_requests": 10 * pages, "max_minutes": 60.0, "cache_minutes": 15.0}
    )
    sources = tiny.model_copy(update={"ptt": tiny.ptt.model_copy(update={"pace": pace})})
    seen: list[int] = []

    def log(_: str) -> None:
        seen.append(psutil.Process().memory_info().rss)

    with big_board(pages) as origin:
        archive = Archive(tmp_path)
        report = crawl_board(
            "ptt", "Big", sources, archive, transport=Transport({"https://www.ptt.cc": origin}), log=log
        )
    assert report.complete, report.why
    assert report.new == pages
    assert len(seen) >= 5
    walk, end = seen[:-1], seen[-1]  # the last line is the summary
    early = walk[len(walk) // 10]
    growth = max(walk) - early
    print(
        f"{pages} pages in {report.seconds:.0f} s: {early / 2**20:.0f} MiB after a tenth, {growth / 2**20:.1f} MiB more"
        f" at most while walking, {(end - early) / 2**20:.1f} with the index at the end"
    )
    assert growth < MOST_GROWTH
    assert end - early < pages * INDEX_A_PAGE + SLACK
    whole = sum(1 for (kind, _) in archive.histories("ptt", "Big") if kind == "article")
    assert whole == pages
