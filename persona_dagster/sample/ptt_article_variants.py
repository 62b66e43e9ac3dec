"""The odd shapes of real PTT articles, one function each: what the site's editors, forwards and ANSI codes make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html import escape

from persona_dagster.sample.clock import TAIPEI
from persona_dagster.sample.content_loader import Push, number
from persona_dagster.sample.ptt_article_text import IMAGE, Sheet, ip
from persona_dagster.sample.ptt_pages import rich


def no_time(sheet: Sheet) -> None:
    sheet.meta = sheet.meta[:3]


def within_site(sheet: Sheet) -> None:
    """站內 in place of 看板, as for articles posted to several places."""
    sheet.meta[1] = ("站內", sheet.board)


def no_nick(sheet: Sheet) -> None:
    sheet.meta[0] = ("作者", sheet.item.author)


def fused_title(sheet: Sheet) -> None:
    """The time line ran into the title."""
    title, at = sheet.meta[2][1], sheet.meta[3][1]
    sheet.meta = [*sheet.meta[:2], ("標題", f"{title}時間: {at}")]


def old_header(sheet: Sheet) -> None:
    """An ANSI header that is no meta line: the site then knows neither author nor title."""
    labels = (("作者", sheet.meta[0][1]), ("標題", sheet.title), ("時間", sheet.meta[3][1]))
    sheet.header = "".join(
        f'<span class="f4 b7"> {label} </span><span class="b4"> {escape(value)}   \n</span>' for label, value in labels
    )
    sheet.header += f'<span class="f6">{"─" * 39}\n</span>'
    sheet.og_title = False


def forwarded(sheet: Sheet) -> None:
    """A forward: a second header block within the text, and two stations."""
    board = ("StupidClown", "WomenTalk", "Gossiping", "marriage")[number(sheet.file) % 4]
    sheet.body = [
        f"※ [本文轉錄自 {board} 看板 #1gX{number(sheet.file) % 99999:05d} ]",
        "",
        f"作者: {sheet.item.author} ({sheet.item.nick}) 看板: {board}",
        f"標題: {sheet.title}",
        f"時間: {sheet.meta[3][1]}",
        "",
        *sheet.body,
        "",
        "--",
        sheet.station[0],
    ]
    sheet.station = [
        *sheet.station,
        f"※ 轉錄者: {sheet.item.author} ({ip(sheet.item.author)} 臺灣), {sheet.meta[3][1]}",
    ]


def no_station(sheet: Sheet) -> None:
    sheet.station = sheet.station[1:]


def from_line(sheet: Sheet) -> None:
    """◆ From: on a line of its own, as before 2013."""
    sheet.station = ["※ 發信站: 批踢踢實業坊(ptt.cc)", f"◆ From: {ip(sheet.item.author)}", *sheet.station[1:]]


def forged_push(sheet: Sheet) -> None:
    """A push pasted into the text, before the station line."""
    if sheet.pushes:
        push, at = sheet.pushes[0]
        sheet.before_station = sheet.push_html(replace_text(push, "這行是我自己貼上來的"), at)


def replace_text(push: Push, text: str) -> Push:
    return push.model_copy(update={"text": text})


def inline_replies(sheet: Sheet) -> None:
    """The author answers within the pushes, and the edit line stands between them."""
    for index in [i for i, (push, _) in enumerate(sheet.pushes) if push.user != sheet.item.author][1:6:2]:
        answer = ("謝謝，我再想想", "真的，我也這樣覺得", "有看到，謝謝提醒", "推這一句")[number(sheet.file, index) % 4]
        at = sheet.pushes[index][1].astimezone(TAIPEI) + timedelta(minutes=3)
        line = f"※ 編輯: {sheet.item.author} ({ip(sheet.item.author)} 臺灣), {at:%m/%d/%Y %H:%M:%S}"
        sheet.after_push[index] = f'{answer}\n<span class="f2">{line}\n</span>'


def push_ips(sheet: Sheet) -> None:
    """Boards that show the address of who pushes."""
    sheet.push_stamp = lambda push, at: f"{ip(push.user):>16} {at.astimezone(TAIPEI):%m/%d %H:%M}"


def old_pushes(sheet: Sheet) -> None:
    """Names padded to 12 columns, dates without a time."""
    sheet.pad_users = True
    sheet.push_stamp = lambda push, at: f" {at.astimezone(TAIPEI):%m/%d}"


def eaten_emoticon(sheet: Sheet) -> None:
    """An emoticon that Cloudflare takes for an address."""
    sheet.pushes = [
        (replace_text(push, push.text + " @v@b") if index == 0 else push, at)
        for index, (push, at) in enumerate(sheet.pushes)
    ]


def picture(sheet: Sheet) -> None:
    sheet.body += ["", f"{IMAGE[0]}replica{number(sheet.file) % 10**6:06d}{IMAGE[1]}"]


def hidden_text(sheet: Sheet) -> None:
    """Black on black, for those who select it."""
    sheet.before_station = '<span class="f0">（反白給你看：其實我打完就後悔了）\n</span>'


def two_signatures(sheet: Sheet) -> None:
    sheet.signatures = [*(sheet.signatures or ["本人不代表本人立場\n"]), "★ 簽名檔第二號 ★\n"]


def colours(sheet: Sheet) -> None:
    """One line in four stands out in colour."""

    def paint(line: str) -> str:
        draw = number(sheet.file, line)
        html = rich(line)
        return html if draw % 4 else f'<span class="f{draw // 4 % 7 + 1} hl">{html}</span>'

    sheet.colour = paint


def cut_short(sheet: Sheet) -> None:
    """The site shows 100 KiB of the head and 50 of the tail of a huge article, and says that part is missing."""
    keep = max(1, len(sheet.pushes) // 3)
    if len(sheet.pushes) >= 3:
        sheet.pushes = sheet.pushes[:keep] + sheet.pushes[-keep:]
        sheet.after_push[keep - 1] = '<div class="push center warning-box">檔案過大！部分文章無法顯示</div>'
    else:
        sheet.before_station = '<div class="push center warning-box">檔案過大！部分文章無法顯示</div>'


Shape = Callable[[Sheet], None]
SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        no_time, within_site, no_nick, fused_title, old_header, forwarded, no_station, from_line, forged_push,
        inline_replies, push_ips, old_pushes, eaten_emoticon, picture, hidden_text, two_signatures, colours, cut_short,
    )
}  # fmt: skip
DRAWN = [name for name in SHAPES if name not in ("old_header", "cut_short")]  # these two lose text: only where named


def shape_of(sheet: Sheet) -> str:
    """The shape that an article takes: the one it names, else one drawn from its id, else `plain`."""
    if sheet.item.shape:
        return sheet.item.shape
    draw = number("shape", sheet.board, sheet.item.id) % (2 * len(DRAWN))
    name = DRAWN[draw] if draw < len(DRAWN) else "plain"
    return "plain" if name == "forwarded" and sheet.item.re else name  # nobody forwards an answer to its own board


def shaped(sheet: Sheet, name: str | None = None) -> Sheet:
    """The article in its own shape, or in the shape `name`."""
    copy = replace(sheet, meta=list(sheet.meta), body=list(sheet.body), after_push=dict(sheet.after_push))
    if shape := SHAPES.get(name or shape_of(sheet)):
        shape(copy)
    return copy
