"""What stands in one PTT article, as the BBS keeps it: header, wrapped body, signature, station lines, pushes.

Half of the articles take an odd shape (drawn from the item's id, or named in its `shape`), each one seen on the real
site: parsers must cope, and Version 1.0 of the persona model must have residue to learn.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape

from persona_dagster.sample.clock import TAIPEI, moment
from persona_dagster.sample.content_loader import PttItem, Push, answer_times, edited, number, ptt_file
from persona_dagster.sample.ptt_pages import ORIGIN, rich

COLUMNS = 78  # 39 full-width characters: where the BBS editor breaks a line
IMAGE = ("https://i.imgur.com/", ".jpg")


def ip(*parts: object) -> str:
    """An address from the ranges that are reserved for documentation: nobody's."""
    draw = number("ip", *parts)
    return f"{('203.0.113', '198.51.100', '192.0.2')[draw % 3]}.{draw // 3 % 254 + 1}"


def ctime(at: datetime) -> str:
    return time.asctime(at.astimezone(TAIPEI).timetuple())


def width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, columns: int = COLUMNS) -> list[str]:
    """Text as the editor breaks it: hard at the column, but not within a word of Latin letters."""
    lines = []
    for line in text.split("\n"):
        rest = line
        while True:
            used = cut = 0
            while cut < len(rest) and used + width(rest[cut]) <= columns:
                used += width(rest[cut])
                cut += 1
            if cut == len(rest):
                lines.append(rest)
                break
            word = cut
            while 0 < word < len(rest) and rest[word].isascii() and rest[word].isalnum() and rest[word - 1].isascii():
                word -= 1
                if rest[word].isspace():
                    break
            cut = word if word > 0 else cut
            lines.append(rest[:cut])
            rest = rest[cut:]
    return lines


@dataclass
class Sheet:
    """An article line by line, before it is HTML. A shape changes any of it."""

    board: str
    file: str
    item: PttItem
    title: str
    body: list[str]
    quoted: list[str] = field(default_factory=list)
    meta: list[tuple[str, str]] = field(default_factory=list)
    header: str = ""  # HTML in place of the meta lines
    og_title: bool = True
    signatures: list[str] = field(default_factory=list)
    station: list[str] = field(default_factory=list)
    before_station: str = ""  # HTML
    pushes: list[tuple[Push, datetime]] = field(default_factory=list)
    push_stamp: Callable[[Push, datetime], str] = lambda push, at: f" {at.astimezone(TAIPEI):%m/%d %H:%M}"
    pad_users: bool = False
    after_push: dict[int, str] = field(default_factory=dict)  # HTML after the push of that index
    colour: Callable[[str], str] | None = None

    def html(self) -> str:
        """The inside of `#main-content`."""
        head = self.header or "".join(meta_line(tag, value) for tag, value in self.meta)
        lines = "".join(line_html(line, self.colour) for line in [*self.quoted, *self.body])
        tail = "".join(f"--\n{rich(text)}\n" for text in self.signatures)
        station = "".join(line_html(line) for line in self.station)
        pushes = "".join(
            self.push_html(push, at) + self.after_push.get(index, "") for index, (push, at) in enumerate(self.pushes)
        )
        return f"{head}\n{lines}\n{tail}{self.before_station}--\n{station}{pushes}"

    def push_html(self, push: Push, at: datetime) -> str:
        user = push.user.ljust(12) if self.pad_users else push.user
        colour = "hl" if push.tag == "推" else "f1 hl"
        return (
            f'<div class="push"><span class="{colour} push-tag">{push.tag} </span>'
            f'<span class="f3 hl push-userid">{user}</span><span class="f3 push-content">: {rich(push.text)}</span>'
            f'<span class="push-ipdatetime">{self.push_stamp(push, at)}\n</span></div>'
        )


def meta_line(tag: str, value: str) -> str:
    right = "-right" if tag in ("看板", "站內") else ""
    return (
        f'<div class="article-metaline{right}"><span class="article-meta-tag">{tag}</span>'
        f'<span class="article-meta-value">{escape(value)}</span></div>'
    )


def line_html(line: str, colour: Callable[[str], str] | None = None) -> str:
    """One line: quotes and station lines get the site's colours, a picture is shown below its address."""
    if line.startswith(("※", "==>", "◆")):
        return f'<span class="f2">{rich(line)}\n</span>'
    if line.startswith((": ", "> ")):
        return f'<span class="f6">{rich(line)}\n</span>'
    html = (colour(line) if colour and line.strip() else rich(line)) + "\n"
    if line.startswith(IMAGE[0]) and line.endswith(IMAGE[1]):
        html += f'<div class="richcontent"><img src="{escape(line)}" alt="" loading="lazy" /></div>'
    return html


def quote_lines(item: PttItem, original: PttItem) -> list[str]:
    """`※ 引述《id (nick)》之銘言：` and the lines that the author left standing."""
    text = item.quote or "\n".join(original.body.strip().split("\n")[:3])
    lines = [f": {line}" for paragraph in text.strip().split("\n") for line in wrap(paragraph, COLUMNS - 2)]
    return [f"※ 引述《{original.author} ({original.nick})》之銘言：", *lines]


def full_title(item: PttItem, originals: dict[str, PttItem]) -> str:
    """`Re: [category] title` for an answer: the title that it answers, as the editor fills it in."""
    original = originals.get(item.re) if item.re else None
    if original is not None:
        return "Re: " + full_title(original, originals).removeprefix("Re: ")
    return f"[{item.category}] {item.title}" if item.category else item.title


def pushes_by(item: PttItem, now: datetime) -> list[tuple[Push, datetime]]:
    """The pushes that have come by `now`, with their times."""
    times = answer_times(item, len(item.pushes))
    return [(push, at) for push, at in zip(item.pushes, times, strict=True) if at <= now]


def plain_sheet(board: str, item: PttItem, originals: dict[str, PttItem], day: int, now: datetime) -> Sheet:
    """The article as `day` shows it, in the usual shape. Pushes later than `now` have not come yet."""
    file, title = ptt_file(board, item), full_title(item, originals)
    changed = edited(item, day)
    body = wrap((item.edited_body if changed and item.edited_body else item.body).strip())
    if item.app:
        body += ["", "-----", f"Sent from {item.app} on my {('iPhone', 'Android')[number(item.author) % 2]}"]
    station = [
        f"※ 發信站: 批踢踢實業坊(ptt.cc), 來自: {ip(item.author)} (臺灣)",
        f"※ 文章網址: {ORIGIN}/bbs/{board}/{file}.html",
    ]
    if changed and item.edited_day is not None:
        at = moment(item.edited_day, item.time).astimezone(TAIPEI) + timedelta(seconds=number(item.id) % 3600)
        station.append(f"※ 編輯: {item.author} ({ip(item.author)} 臺灣), {at:%m/%d/%Y %H:%M:%S}")
    original = originals.get(item.re) if item.re else None
    seconds = int(file.split(".")[1])
    return Sheet(
        board=board,
        file=file,
        item=item,
        title=title,
        body=body,
        quoted=quote_lines(item, original) if original else [],
        meta=[
            ("作者", f"{item.author} ({item.nick})"),
            ("看板", board),
            ("標題", title),
            ("時間", ctime(datetime.fromtimestamp(seconds, TAIPEI))),
        ],
        signatures=[item.signature.strip() + "\n"] if item.signature else [],
        station=station,
        pushes=pushes_by(item, now),
    )
