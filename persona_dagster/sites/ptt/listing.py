"""PTT listings: which articles a board's page names, which are deleted or pinned, and where older ones are.

A listing is evidence of what exists; it never proves a deletion (a row may move to another page between two
requests).
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from itertools import pairwise

from persona_dagster.sites.parser_results import MalformedError, decode
from persona_dagster.sites.ptt.article import ARTICLE_ID
from persona_dagster.sites.ptt.markup import decode_cfemail

PAGE_ROWS = 20
MOST_DIGITS = 7  # of a page number
MOST_ODD = 6  # steps back in time on one page
CONTAINER = re.compile(r'<div class="r-list-container[^"]*">')
ROW = re.compile(r'<div class="r-ent">')
SEPARATOR = re.compile(r'<div class="r-list-sep">')
CELL = {
    name: re.compile(rf'<div class="{name}">(.*?)</div>', re.DOTALL)
    for name in ("nrec", "title", "author", "date", "mark")
}
SITE = r"(?:[^\"]*://www\.ptt\.cc)?"  # pages saved by a browser hold absolute links, archives put their own before
LINK = re.compile(rf'<a href="{SITE}/bbs/([^/"]+)/([^/"]+)\.html">(.*?)</a>', re.DOTALL)
OLDER = re.compile(rf'<a class="btn wide"[^>]*href="{SITE}/bbs/([^/"]+)/index(\d+)\.html"[^>]*>(?:&lsaquo;|‹) 上頁</a>')
PAGING = re.compile(r'<div class="btn-group btn-group-paging">')
TAGS = re.compile(r"<[^>]*>")
HIDDEN = re.compile(r'<(span|a)\b[^>]*\bdata-cfemail="([0-9a-f]+)"[^>]*>[^<]*</\1>')  # Cloudflare's, around any @


@dataclass(frozen=True, slots=True)
class ListedArticle:
    """One line of a listing; `article_id` is None when the article was deleted."""

    article_id: str | None
    title: str
    date: str  # M/DD, no year
    pushes: str  # as shown: '', '12', '爆', 'X1'…: lossy, 100 and 1,500 look the same
    mark: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class Listing:
    rows: tuple[ListedArticle, ...]
    older: int | None  # number of the page before; None on the oldest

    @property
    def positions(self) -> list[str | None]:
        """The article of each row in order, oldest first; None for one that was deleted. Pinned notices stand apart."""
        return [row.article_id for row in self.rows if not row.pinned]

    @property
    def ids(self) -> list[str]:
        """The articles that the page lists, pinned ones left out: their ids are older than the page."""
        return [key for key in self.positions if key]


def unix_time(article_id: str) -> int:
    """Seconds: an article's id holds the moment when it was posted."""
    match = ARTICLE_ID.fullmatch(article_id)
    if match is None:
        raise MalformedError(f"{article_id!r} is no article id")
    return int(match[1])


def disproof(listing: Listing, number: int, now: float) -> str:
    """Why page `number`, which is not the newest, cannot be all that stands on it; "" when nothing speaks against it.

    The server puts 20 rows on such a page, deleted ones included, links the one before it, and counts from the oldest,
    so that times rise. A few odd ids (moved articles, clocks) may break the order.
    """
    rows, times = listing.positions, [unix_time(key) for key in listing.ids]
    if len(rows) != PAGE_ROWS:
        return f"{len(rows)} rows where {PAGE_ROWS} belong"
    if listing.older != (number - 1 or None):
        return f"it links page {listing.older} before it, and was asked for as {number}"
    if sum(late > early for late, early in pairwise(times)) > MOST_ODD:
        return "its rows are not in order of time"
    if len(times) > 2 and sorted(times)[len(times) // 2] > now + 86_400:
        return "its rows lie in the future"
    return ""


def parse_listing(body: bytes, board: str = "") -> Listing:
    """Every row of the page. Raises `MalformedError` when the page is cut, spliced, another board's or no listing."""
    source = decode(body)
    container = CONTAINER.search(source)
    if container is None or CONTAINER.search(source, container.end()):
        raise MalformedError("not one .r-list-container")
    if not source.rstrip().endswith("</html>"):
        raise MalformedError("the page does not end with </html>")
    if not PAGING.search(source):
        raise MalformedError("no paging buttons")
    end = source.find("<script", container.end())
    listed = source[container.end() : end if end > 0 else len(source)]
    if listed.count("<div") > listed.count("</div>"):
        raise MalformedError("the listing's markup is not balanced")
    separators = list(SEPARATOR.finditer(listed))
    if len(separators) > 1:
        raise MalformedError("two separators before pinned articles")
    pinned_from = separators[0].start() if separators else len(listed)
    starts = [row.start() for row in ROW.finditer(listed)]
    pieces = [listed[a:b] for a, b in pairwise([*starts, len(listed)])]
    rows = tuple(_row(piece, start > pinned_from, board) for piece, start in zip(pieces, starts, strict=True))
    named = [row.article_id for row in rows if row.article_id and not row.pinned]
    if len(set(named)) != len(named):
        raise MalformedError("an article is listed twice")
    older = OLDER.search(source)
    if older and len(older[2]) > MOST_DIGITS:
        raise MalformedError(f"a page whose number has {len(older[2])} digits")
    return Listing(rows, int(older[2]) if older else None)


def _row(piece: str, pinned: bool, board: str) -> ListedArticle:
    cells = {}
    for name, pattern in CELL.items():
        found = pattern.findall(piece)
        if len(found) != 1:
            raise MalformedError(f"a row with {len(found)} .{name}")
        cells[name] = found[0]
    links = LINK.findall(cells["title"])
    if len(links) > 1 or (links and not ARTICLE_ID.fullmatch(links[0][1])):
        raise MalformedError(f"a row that links {[link[1] for link in links]}")
    if board and links and links[0][0].lower() != board.lower():
        raise MalformedError(f"a row of board {links[0][0]}")
    cells["title"] = HIDDEN.sub(lambda found: html.escape(decode_cfemail(found[2])), cells["title"])
    text = {name: html.unescape(TAGS.sub("", value)).strip() for name, value in cells.items()}
    # A deleted article has no link, and a dash for its author.
    if not links and text["author"] != "-":
        raise MalformedError("a row without a link that is not deleted")
    return ListedArticle(
        links[0][1] if links else None, text["title"], text["date"], text["nrec"], text["mark"], pinned
    )
