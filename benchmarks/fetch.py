"""CPU a page and pages a second of the bulk path, against full navigation, Scrapy and crawlee, on one loopback site.

Every contender runs in a process of its own, sequentially, on the same pages; its CPU is that of the process and
all its descendants (browsers included), without start-up. Scrapy and crawlee run in environments of their own:
    benchmarks/peers.sh scrapy crawlee
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve()
PEERS = HERE.parent.parent / ".bench-venvs"  # made by benchmarks/peers.sh scrapy crawlee
PAGES = {"ours": 2000, "ours+parse": 2000, "scrapy": 2000, "crawlee": 2000, "navigation": 150}
NAMES = {
    "ours": "persona_dagster, HTTP bulk path",
    "ours+parse": "  … and parsed into posts",
    "scrapy": "Scrapy",
    "crawlee": "crawlee HttpCrawler (memory)",
    "navigation": "Playwright navigation",
}


def article() -> bytes:
    """A page of 20 KB in the site's shape, with 70 pushes of our own words."""
    from persona_dagster.sample.ptt_pages import article_page

    pushes = "".join(
        f'<div class="push"><span class="hl push-tag">推 </span><span class="f3 hl push-userid">reader{n:03d}</span>'
        f'<span class="f3 push-content">: 第 {n} 樓，路過說一句</span>'
        f'<span class="push-ipdatetime"> 09/01 12:{n % 60:02d}\n</span></div>'
        for n in range(70)
    )
    metas = "".join(
        f'<div class="article-metaline{side}"><span class="article-meta-tag">{tag}</span>'
        f'<span class="article-meta-value">{value}</span></div>'
        for side, tag, value in (
            ("", "作者", "bench01 (量測)"),
            ("-right", "看板", "Bench"),
            ("", "標題", "[心得] 量測"),
            ("", "時間", "Tue Sep  1 12:00:00 2026"),
        )
    )
    body = "\n" + "今天也要好好量測，一頁一頁慢慢來。\n" * 40 + "--\n"
    body += '<span class="f2">※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 10.0.0.1 (臺灣)\n</span>'
    return article_page(
        "Bench", "M.1788235200.A.000", "[心得] 量測", "量測", main=metas + body + pushes, adult=False
    ).encode()


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    page = b""

    def do_GET(self) -> None:
        body = self.page if self.path.startswith("/bbs/") else b"User-agent: *\nAllow: /\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def serve(page: bytes, ready: multiprocessing.Queue[int]) -> None:
    Site.page = page
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    ready.put(server.server_address[1])
    server.serve_forever()


@contextmanager
def site() -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    ready: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=serve, args=(article(), ready), daemon=True)
    process.start()
    try:
        yield ready.get(timeout=30)
    finally:
        process.terminate()


# Contenders: each returns after `count` pages; `clock` marks where start-up ends.


def cpu() -> float:
    import psutil

    me = psutil.Process()
    total = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def ours(port: int, count: int, parse: bool) -> tuple[float, float]:
    from persona_dagster.crawl.http import HttpFetcher
    from persona_dagster.crawl.transport import Transport
    from persona_dagster.crawl.url_allowlist import UrlPolicy
    from persona_dagster.sites.ptt.article import parse_article

    transport = Transport({"https://www.ptt.cc": f"http://127.0.0.1:{port}"})
    fetcher = HttpFetcher(UrlPolicy(["www.ptt.cc"], transport), transport, 8 << 20)
    fetcher.fetch("https://www.ptt.cc/bbs/warm")
    began, spent = time.perf_counter(), cpu()
    for number in range(count):
        fetched = fetcher.fetch(f"https://www.ptt.cc/bbs/Bench/{number}.html")
        assert fetched.ok, fetched.why
        if parse:
            parsed = parse_article(
                fetched.body, board="Bench", article_id="M.1788235200.A.000", author_key=lambda user: user
            )
            assert parsed.complete, parsed.why
            assert len(parsed.posts) == 71
    return cpu() - spent, time.perf_counter() - began


def navigation(port: int, count: int) -> tuple[float, float]:
    from playwright.sync_api import sync_playwright

    from persona_dagster.crawl.browser import FLAGS, find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/bbs/warm")
        began, spent = time.perf_counter(), cpu()
        for number in range(count):
            page.goto(f"http://127.0.0.1:{port}/bbs/Bench/{number}.html")
            assert "量測" in page.content()
        result = cpu() - spent, time.perf_counter() - began
        browser.close()
    return result


def scrapy(port: int, count: int) -> tuple[float, float]:
    from scrapy import Spider
    from scrapy.crawler import CrawlerProcess

    marks: dict[str, float] = {}

    class Bulk(Spider):
        name = "bulk"
        start_urls = (f"http://127.0.0.1:{port}/bbs/warm",)
        seen = 0

        def parse(self, response):
            if not marks:
                marks.update(cpu=cpu(), began=time.perf_counter())
                for number in range(count):
                    yield response.follow(f"/bbs/Bench/{number}.html", self.page)

        def page(self, response):
            assert len(response.body) > 10_000
            self.seen += 1
            if self.seen == count:
                marks.update(spent=cpu() - marks["cpu"], took=time.perf_counter() - marks["began"])

    process = CrawlerProcess({"LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False})
    process.crawl(Bulk)
    process.start()
    return marks["spent"], marks["took"]


def crawlee(port: int, count: int) -> tuple[float, float]:
    import asyncio

    from crawlee.crawlers import HttpCrawler
    from crawlee.storage_clients import MemoryStorageClient

    async def main() -> tuple[float, float]:
        crawler = HttpCrawler(storage_client=MemoryStorageClient(), configure_logging=False)

        @crawler.router.default_handler
        async def handle(context) -> None:
            assert len(await context.http_response.read()) > 10_000

        await crawler.run([f"http://127.0.0.1:{port}/bbs/warm"])
        began, spent = time.perf_counter(), cpu()
        await crawler.run([f"http://127.0.0.1:{port}/bbs/Bench/{number}.html" for number in range(count)])
        return cpu() - spent, time.perf_counter() - began

    return asyncio.run(main())


CONTENDERS = {
    "ours": lambda port, count: ours(port, count, False),
    "ours+parse": lambda port, count: ours(port, count, True),
    "scrapy": scrapy,
    "crawlee": crawlee,
    "navigation": navigation,
}


def measure(name: str, port: int, count: int) -> dict[str, float] | None:
    peer = PEERS / name / "bin" / "python"
    if name in ("scrapy", "crawlee") and not peer.is_file():
        print(f"{NAMES[name]}: not installed (benchmarks/peers.sh {name})", file=sys.stderr)
        return None
    python = str(peer) if name in ("scrapy", "crawlee") else sys.executable
    command = [python, str(HERE), "--one", name, "--port", str(port), "--count", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{NAMES[name]}: failed\n{done.stderr[-800:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--one", choices=CONTENDERS)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--count", type=int, default=0)
    given = arguments.parse_args()
    if given.one:
        spent, took = CONTENDERS[given.one](given.port, given.count)
        print(json.dumps({"cpu_ms": 1000 * spent / given.count, "pages_s": given.count / took}))
        return
    with site() as port:
        results = {name: result for name, count in PAGES.items() if (result := measure(name, port, count))}
    ours_ms = results["ours"]["cpu_ms"]
    print("| path | CPU ms/page | pages/s | CPU against ours |\n|---|---|---|---|")
    for name, result in results.items():
        ratio = result["cpu_ms"] / ours_ms
        print(f"| {NAMES[name]} | {result['cpu_ms']:.2f} | {result['pages_s']:.0f} | {ratio:.1f}× |")


if __name__ == "__main__":
    main()
