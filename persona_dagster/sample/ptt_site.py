"""www.ptt.cc: the over18 gate, listings, articles, search, feed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from html import escape
from urllib.parse import quote

from persona_dagster.sample.clock import TAIPEI, Clock
from persona_dagster.sample.content_loader import Content, PttItem, Push, deleted, number, ptt_file, visible
from persona_dagster.sample.http_messages import Request, Response, page, redirect
from persona_dagster.sample.ptt_article_text import Sheet, full_title, plain_sheet, pushes_by
from persona_dagster.sample.ptt_article_variants import shaped
from persona_dagster.sample.ptt_pages import (
    ORIGIN,
    STYLE,
    ListingRow,
    article_page,
    error_page,
    gate_page,
    hot_boards_page,
    index_page,
)

PAGE = 20  # rows a listing page, counted from the oldest
DELETED = 45  # rows in a row, more than two pages of them
ADULT = frozenset({"Hate"})  # boards behind the gate


class PttSite:
    def __init__(self, content: Content, clock: Clock):
        self.content = content
        self.clock = clock
        self.expired: dict[str, int] = {}  # rows that each board has lost at its old end: page numbers shift by it

    def respond(self, request: Request, faults: Collection[str] = ()) -> Response:  # noqa: PLR0911
        parts = request.path.strip("/").split("/")
        match parts:
            case ["ask", "over18"]:
                return self.gate(request)
            case ["static", *_]:
                return Response(body=STYLE.encode(), content_type="text/css; charset=utf-8")
            case ["bbs"] | ["bbs", "index.html" | "hotboards.html"]:
                return page(hot_boards_page([(board, "閒談", f"{board} 複本") for board in self.content.ptt]))
            case ["atom", name] if (board := name.removesuffix(".xml")) in self.content.ptt:
                return self.feed(board)
            case ["bbs", board, name] if board in self.content.ptt:
                asks = board in ADULT and not request.cookies.get("over18") and "over18_script" not in faults
                if "over18" in faults or asks:  # else the page's own script asks, of browsers alone
                    return redirect(f"/ask/over18?from={quote(request.target, safe='')}")
                if name == "search":
                    return self.search(board, request.query.get("q", ""), request.query.get("page", "1"))
                if name.startswith("index"):
                    return self.listing(board, name, faults)
                return self.article(board, name.removesuffix(".html"), faults)
        return not_found()

    def gate(self, request: Request) -> Response:
        """The form, and what comes of sending it: a session cookie and the page that was asked for."""
        if request.method != "POST":
            return page(gate_page(request.query.get("from", "/bbs/")))
        back = request.form.get("from", "/bbs/")
        if request.form.get("yes") != "yes" or not back.startswith("/") or back.startswith("//"):
            return redirect("/")
        return redirect(back, cookie="over18=1; Path=/")

    def rows(self, board: str) -> list[tuple[PttItem, ListingRow]]:
        """All rows of the board, oldest first."""
        day, items = self.clock.day, self.content.ptt[board]
        by_id = {item.id: item for item in items}
        rows = [(item, listing_row(board, item, by_id, day, self.clock.now())) for item in visible(items, day)]
        return sorted(rows, key=lambda pair: ptt_file(board, pair[0]))

    def listing(self, board: str, name: str, faults: Collection[str]) -> Response:
        if "shift" in faults:
            self.expired[board] = self.expired.get(board, 0) + 7
        pairs = self.rows(board)
        rows = [row for _, row in pairs]
        if "deleted" in faults:
            rows[len(rows) // 2 : len(rows) // 2] = [ListingRow(None, "(本文已被刪除) [gone]", "-", " 9/01")] * DELETED
        rows = rows[self.expired.get(board, 0) :]
        if "empty" in faults:
            rows = []
        last = max(1, -(-len(rows) // PAGE))
        wanted = name.removeprefix("index").removesuffix(".html")
        if wanted and not (wanted.isdecimal() and 1 <= int(wanted) <= last):
            return not_found()
        number_ = int(wanted) if wanted else last
        newest = not wanted and "empty" not in faults
        pinned = [row for item, row in pairs if item.pinned and row.file] if newest else []
        if "pinned" in faults and newest:  # the board's oldest articles, as rules and notices are
            pinned = [row for row in rows if row.file][:3]
        chunk = rows[(number_ - 1) * PAGE : number_ * PAGE]
        older = number_ - 1 if number_ > 1 else None
        newer = number_ + 1 if wanted and number_ < last else None
        return page(index_page(board, chunk, pinned, older=older, newer=newer, adult=board in ADULT))

    def search(self, board: str, query: str, number_: str) -> Response:
        """`author:id`, `thread:title` or words of the title; newest first."""
        if not number_.isdecimal() or int(number_) < 1:
            return page(error_page("400", "400 - Bad Request."), 400)
        rows = [row for _, row in reversed(self.rows(board)) if row.file and matches(row, query)]
        start = (int(number_) - 1) * PAGE
        return page(index_page(board, rows[start : start + PAGE], [], older=None, newer=None, adult=board in ADULT))

    def article(self, board: str, file: str, faults: Collection[str]) -> Response:
        item = self.content.ptt_files.get((board, file))
        day = self.clock.day
        if item is None or item.day > day or deleted(item, day):
            return not_found()
        originals = {other.id: other for other in self.content.ptt[board]}
        sheet = plain_sheet(board, item, originals, day, self.clock.now())
        sheet = huge(sheet) if "huge" in faults else shaped(sheet)
        title = sheet.title if sheet.og_title else None
        html = article_page(board, file, title, "\n".join(sheet.body[:5]), main=sheet.html(), adult=board in ADULT)
        return page(html)

    def feed(self, board: str) -> Response:
        """/atom: the newest articles; it stands outside the gate."""
        entries = "".join(
            f'<entry><title>{escape(row.title)}</title><link href="{ORIGIN}/bbs/{board}/{row.file}.html"/>'
            f"<id>{ORIGIN}/bbs/{board}/{row.file}.html</id><author><name>{row.author}</name></author>"
            f"<updated>{item.at.astimezone(TAIPEI).isoformat()}</updated></entry>"
            for item, row in reversed(self.rows(board)[-PAGE:])
            if row.file
        )
        body = (
            f'<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom"><title>{board}</title>'
            f'<link href="{ORIGIN}/bbs/{board}/index.html"/>{entries}</feed>'
        )
        return Response(body=body.encode(), content_type="application/atom+xml; charset=utf-8")


def not_found() -> Response:
    return page(error_page("404", "404 - Not Found."), 404)


def listing_row(board: str, item: PttItem, by_id: dict[str, PttItem], day: int, now: datetime) -> ListingRow:
    date = f"{item.at.astimezone(TAIPEI):%-m/%d}".rjust(5)
    if deleted(item, day):
        by_author = number(item.id, "deleted") % 3
        title = f"(本文已被刪除) [{item.author}]" if by_author else f"(已被{board[:4]}M刪除) <{item.author}> 板規"
        return ListingRow(None, title, "-", date)
    pushes = pushes_by(item, now)
    score = sum({"推": 1, "噓": -1}.get(push.tag, 0) for push, _ in pushes)
    mark = "M" if item.pinned or len(pushes) >= 20 else ""
    return ListingRow(ptt_file(board, item), full_title(item, by_id), item.author, date, score, mark)


def matches(row: ListingRow, query: str) -> bool:
    if query.startswith("author:"):
        return row.author == query.removeprefix("author:")
    if query.startswith("thread:"):
        return row.title.removeprefix("Re: ") == query.removeprefix("thread:")
    return query in row.title


def huge(sheet: Sheet) -> Sheet:
    """The article with far more pushes than the site shows, and its notice in the middle of them."""
    at = sheet.pushes[-1][1] if sheet.pushes else sheet.item.at
    many = [(Push(user=f"crowd{index:04d}", text=f"第 {index} 樓排隊"), at) for index in range(3000)]
    return shaped(replace(sheet, pushes=sheet.pushes + many), "cut_short")
