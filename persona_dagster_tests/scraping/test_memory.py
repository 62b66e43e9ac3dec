"""A crawl's memory stays flat: what it has fetched lies in the archive, not in the process."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from persona_dagster.config.sources import Sources
from persona_dagster.sample.ptt_pages import article_page
from persona_dagster.scraping.archive import Archive
from persona_dagster.scraping.crawl import crawl_board
from persona_dagster.scraping.transport import Transport

PAGES, SOAK_PAGES = 300, 20_000
NEWEST, GAP = 1_788_235_200, 50  # seconds between two articles: 20,000 lie within 12 days
LISTED = 20
MOST_GROWTH = 48 << 20  # bytes between a tenth of the way and the end; 20,000 bodies would be 300 MB


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


def article(key: str) -> str:
    # 15 KB that do not compress away, another text for each article.
    seed = int(key.split(".")[1])
    text = "".join(
        chr(0x4E00 + (seed * 7919 + n * n * 31) % 20_000) + ("\n" if n % 38 == 37 else "") for n in range(5_000)
    )
    head = (("", "作者", "bench01 (量測)"), ("-right", "看板", "Big"), ("", "標題", "[量測] 大板"))
    metas = "".join(
        f'<div class="article-metaline{side}"><span class="article-meta-tag">{tag}</span>'
        f'<span class="article-meta-value">{value}</span></div>'
        for side, tag, value in head
    )
    return article_page("Big", key, "[量測] 大板", "量測", main=f"{metas}\n{text}\n--\n", adult=False)


@contextmanager
def big_board(pages: int) -> Iterator[str]:
    last = -(-pages // LISTED)

    class Board(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            found = re.search(r"/index(\d*)\.html", self.path)
            if "robots" in self.path:
                text = ""
            elif found:
                text = listing(int(found[1] or last), pages)
            else:
                text = article(self.path.rsplit("/", 1)[1].removesuffix(".html"))
            body = text.encode() or b"\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Board)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


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
    growth = max(seen) - seen[len(seen) // 10]
    print(f"{pages} pages: {growth / 2**20:.1f} MiB more at the highest than after a tenth")
    assert growth < MOST_GROWTH
    whole = sum(1 for (kind, _) in archive.histories("ptt", "Big") if kind == "article")
    assert whole == pages
