"""PTT's pages in the shape in which www.ptt.cc serves them (v2.27, 2026): gate, listing, article, errors, feed.

Only the markup: what stands in an article is decided by `ptt_article_text`. Style sheets come from the replica itself,
and no analytics, so that a page opened here asks nothing of the internet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from urllib.parse import quote_plus

from persona_dagster.sample.content_loader import number

ORIGIN = "https://www.ptt.cc"
URL = re.compile(r"https?://[^\s<>\"]+")
# What Cloudflare hides is whatever looks like an address, emoticons such as v@b included.
EMAIL = re.compile(r"[A-Za-z0-9_.+-]+@[A-Za-z0-9_-][A-Za-z0-9_.-]*")
FOOTER = (
    '\n    \n<div class="bbs-screen bbs-footer-message">'
    "本網站已依台灣網站內容分級規定處理。此區域為限制級，未滿十八歲者不得瀏覽。</div>\n"
)
BOUNCE = """
<script>
(() => {
    if (document.cookie.indexOf('over18=1') === -1) {
	location = '/ask/over18?from=' + encodeURIComponent(location.pathname);
    }
})();
</script>
"""


@dataclass(frozen=True)
class ListingRow:
    """One line of a listing. Without `file` the article is gone and the title says so."""

    file: str | None
    title: str
    author: str
    date: str  # " 9/06": month and day, padded to five columns
    score: int = 0
    mark: str = ""


def hide_email(match: re.Match[str]) -> str:
    """What Cloudflare makes of an address: its bytes, each xor-ed with the first."""
    key = number(match[0]) % 255 + 1
    hidden = bytes([key, *(byte ^ key for byte in match[0].encode())]).hex()
    return (
        f'<a href="/cdn-cgi/l/email-protection" class="__cf_email__" data-cfemail="{hidden}">[email&#160;protected]</a>'
    )


def rich(text: str) -> str:
    """Text as HTML: escaped, links made, addresses hidden."""
    parts, last = [], 0
    for match in URL.finditer(text):
        parts.append(EMAIL.sub(hide_email, escape(text[last : match.start()], quote=False)))
        url = escape(match[0])
        parts.append(f'<a href="{url}" target="_blank" rel="noreferrer noopener nofollow">{url}</a>')
        last = match.end()
    parts.append(EMAIL.sub(hide_email, escape(text[last:], quote=False)))
    return "".join(parts)


def file_bytes(main: str) -> int:
    """How long the article's file is: what `data-offset` says, for readers who wait for new pushes.

    Two bytes a character that is not ASCII, 102 a push, 8 the colour codes of a run that the author coloured.
    """
    text = re.sub(r'<div class="(?:richcontent|push center warning-box)">.*?</div>', "", main, flags=re.DOTALL)
    pushes = text.count('<div class="push">')
    text = re.sub(r'<div class="push">.*?</div>', "", text, flags=re.DOTALL)
    runs = len(re.findall(r'<span class="(?:f\d|b\d)[^"]*">(?!※|==&gt;|: |&gt; )', text))
    text = re.sub(r'data-cfemail="([0-9a-f]+)">[^<]*', lambda match: ">" + "." * (len(match[1]) // 2 - 1), text)
    text = text.replace('</span><span class="article-meta-value">', ": ").replace("</span></div>", "\n")
    text = unescape(re.sub(r"<[^>]*>", "", text))
    return sum(2 if ord(character) > 127 else 1 for character in text) + 102 * pushes + 8 * runs


def document(title: str, body: str, head: str = "", bounce: bool = False) -> str:
    styles = "\n".join(
        f'<link rel="stylesheet" type="text/css" href="/static/bbs/v2.27/{name}.css">'
        for name in ("bbs-common", "bbs-base", "bbs-custom", "pushstream", "bbs-print")
    )
    return f"""<!DOCTYPE html>
<html>
	<head>
		<meta charset="utf-8">


<meta name="viewport" content="width=device-width, initial-scale=1">

<title>{escape(title)}</title>
{head}
{styles}

{BOUNCE if bounce else ""}

	</head>
    <body>

{body}

    </body>
</html>
"""


def topbar(board: str | None) -> str:
    link = (
        f'\n\t\t<span>&rsaquo;</span>\n\t\t<a class="board" href="/bbs/{board}/index.html">'
        f'<span class="board-label">看板 </span>{board}</a>'
        if board
        else ""
    )
    return f"""<div id="topbar-container">
	<div id="topbar" class="bbs-content">
		<a id="logo" href="/bbs/">批踢踢實業坊</a>{link}
		<a class="right small" href="/about.html">關於我們</a>
		<a class="right small" href="/contact.html">聯絡資訊</a>
	</div>
</div>"""


def nrec(score: int) -> str:
    """The listing's lossy count: nothing near zero, 爆 from 100, X1 to X9 and XX below -10."""
    if score >= 100:
        return '<span class="hl f1">爆</span>'
    if score > 0:
        return f'<span class="hl f{2 if score < 10 else 3}">{score}</span>'
    if score <= -10:
        return f'<span class="hl f0">{"XX" if score <= -100 else f"X{-score // 10}"}</span>'
    return ""


def row_html(board: str, row: ListingRow) -> str:
    title, menu = f"\n\t\t\t\t{escape(row.title)}\n", ""
    if row.file:
        title = f'\n\t\t\t\t<a href="/bbs/{board}/{row.file}.html">{escape(row.title)}</a>\n'
        thread, base = quote_plus("thread:" + row.title.removeprefix("Re: ")), f"/bbs/{board}/search?q="
        menu = f"""
					<div class="trigger">&#x22ef;</div>
					<div class="dropdown">
						<div class="item"><a href="{base}{thread}">搜尋同標題文章</a></div>

						<div class="item"><a href="{base}author%3A{row.author}">搜尋看板內 {row.author} 的文章</a></div>

					</div>
					"""
    return f"""
		<div class="r-ent">
			<div class="nrec">{nrec(row.score)}</div>
			<div class="title">
			{title}
			</div>
			<div class="meta">
				<div class="author">{row.author}</div>
				<div class="article-menu">
					{menu}
				</div>
				<div class="date">{row.date}</div>
				<div class="mark">{row.mark}</div>
			</div>
		</div>
"""


def button(label: str, href: str | None) -> str:
    return f'<a class="btn wide" href="{href}">{label}</a>' if href else f'<a class="btn wide disabled">{label}</a>'


def index_page(
    board: str,
    rows: Sequence[ListingRow],
    pinned: Sequence[ListingRow],
    *,
    older: int | None,
    newer: int | None,
    adult: bool,
) -> str:
    """A listing. `older` and `newer` are page numbers; None greys the button out, as at the ends."""
    base = f"/bbs/{board}/index"
    paging = "\n\t\t\t\t".join(
        (
            button("最舊", f"{base}1.html"),
            button("&lsaquo; 上頁", f"{base}{older}.html" if older else None),
            button("下頁 &rsaquo;", f"{base}{newer}.html" if newer else None),
            button("最新", f"{base}.html"),
        )
    )
    entries = "".join(row_html(board, row) for row in rows)
    if pinned:
        entries += '\n\t\t<div class="r-list-sep"></div>\n' + "".join(row_html(board, row) for row in pinned)
    body = f"""{topbar(board)}

<div id="main-container">
	<div id="action-bar-container">
		<div class="action-bar">
			<div class="btn-group btn-group-dir">
				<a class="btn selected" href="{base}.html">看板</a>
				<a class="btn" href="/man/{board}/index.html">精華區</a>
			</div>
			<div class="btn-group btn-group-paging">
				{paging}
			</div>
		</div>
	</div>

	<div class="r-list-container action-bar-margin bbs-screen">
		<div class="search-bar">
			<form type="get" action="search" id="search-bar">
				<input class="query" type="text" name="q" value="" placeholder="搜尋文章&#x22ef;">
			</form>
		</div>
{entries}
	</div>
{FOOTER if adult else ""}
</div>"""
    return document(f"看板 {board} 文章列表 - 批踢踢實業坊", body, bounce=adult)


def article_page(board: str, file: str, title: str | None, description: str, *, main: str, adult: bool) -> str:
    """An article around its `#main-content`. Without a title the site calls it 閱讀文章, as for old headers."""
    about = escape(description)
    head = f"""<meta name="robots" content="all">
<meta name="keywords" content="Ptt BBS 批踢踢">
<meta name="description" content="{about}">
<meta property="og:site_name" content="Ptt 批踢踢實業坊">
"""
    if title:
        head += f'<meta property="og:title" content="{escape(title)}">\n'
    head += f'<meta property="og:description" content="{about}">\n'
    head += f'<link rel="canonical" href="{ORIGIN}/bbs/{board}/{file}.html">\n'
    offset, key = file_bytes(main), number(board, file)
    poll = f"/poll/{board}/{file}.html?cacheKey={key % 9999}-{offset}&amp;offset={offset}&amp;offset-sig={key:040x}"
    longpoll = f"/v1/longpoll?id={key:040x}"
    body = f"""{topbar(board)}
<div id="navigation-container">
	<div id="navigation" class="bbs-content">
		<a class="board" href="/bbs/{board}/index.html">返回看板</a>
		<div class="bar"></div>
	</div>
</div>
<div id="main-container">
    <div id="main-content" class="bbs-screen bbs-content">{main}</div>

    <div id="article-polling" data-pollurl="{poll}" data-longpollurl="{longpoll}" data-offset="{offset}"></div>

{FOOTER if adult else ""}
</div>"""
    name = f"{title} - 看板 {board} - 批踢踢實業坊" if title else f"閱讀文章 - 看板 {board} - 批踢踢實業坊"
    return document(name, body, head, bounce=adult)


def gate_page(origin_path: str) -> str:
    return document(
        "批踢踢實業坊",
        f"""<div class="bbs-screen bbs-content">
    <div class="over18-notice">
        <p>本網站已依網站內容分級規定處理</p>

        <p>警告︰您即將進入之看板內容需滿十八歲方可瀏覽。</p>

        <p>若您尚未年滿十八歲，請點選離開。本頁是練習用的複本，沒有任何人的資料。</p>
    </div>
</div>

<div class="bbs-screen bbs-content center clear">
    <form action="/ask/over18" method="post">
        <input type="hidden" name="from" value="{escape(origin_path)}">
        <div class="over18-button-container">
            <button class="btn-big" type="submit" name="yes" value="yes">我同意<br><small>進入</small></button>
        </div>
        <div class="over18-button-container">
            <button class="btn-big" type="submit" name="no" value="no">不同意<br><small>離開</small></button>
        </div>
    </form>
</div>""",
    )


def error_page(title: str, message: str) -> str:
    """404 and the back end's 500: `404 - Not Found.`, `500 - Internal Server Error / Server Too Busy.`"""
    return document(
        title, f'<div class="main-container">\n\t<div class="bbs-screen bbs-content">{escape(message)}</div>\n</div>'
    )


def hot_boards_page(boards: Sequence[tuple[str, str, str]]) -> str:
    """`boards`: (name, class, title)."""
    entries = "".join(
        f"""
        <div class="b-ent">
            <a class="board" href="/bbs/{name}/index.html">
                <div class="board-name">{name}</div>
                <div class="board-nuser"><span class="hl">{number(name) % 900}</span></div>
                <div class="board-class">{kind}</div>
                <div class="board-title">&#9678;{escape(title)}</div>
            </a>
        </div>
"""
        for name, kind, title in boards
    )
    body = f"""{topbar(None)}

<div id="main-container">
	<div class="b-list-container action-bar-margin bbs-screen">
{entries}
	</div>
</div>"""
    return document("熱門看板 - 批踢踢實業坊", body)


STYLE = """
.f4.hl { color: #88f; } .b7 { background: #bbb; }
body { background: #000; color: #bbb; margin: 0; font: 16px/1.3 "Noto Sans Mono CJK TC", monospace; }
a { color: #999; } #topbar, #navigation, .action-bar { padding: 8px 16px; background: #00a; }
#topbar a, #topbar span { color: #ccc; margin-right: 8px; text-decoration: none; } .right { float: right; }
.bbs-screen { max-width: 800px; margin: 0 auto; padding: 12px; } #main-content { white-space: pre-wrap; }
.article-metaline, .article-metaline-right { background: #008; } .article-metaline-right { float: right; }
.article-meta-tag { background: #bbb; color: #008; padding: 0 6px; } .article-meta-value { padding: 0 8px; }
.r-ent { border-bottom: 1px solid #222; padding: 6px 0; } .nrec { float: left; width: 48px; text-align: center; }
.title a { color: #ddd; text-decoration: none; } .meta { color: #777; font-size: 13px; padding-left: 48px; }
.meta > div { display: inline-block; margin-right: 12px; } .dropdown { display: none; }
.r-list-sep { height: 8px; background: #333; } .btn { color: #ddd; margin-right: 10px; } .btn.disabled { color: #555; }
.f0 { color: #000; } .f1 { color: #a00; } .f2 { color: #0a0; } .f3 { color: #aa0; } .f4 { color: #00a; }
.f5 { color: #a0a; } .f6 { color: #0aa; } .f1.hl { color: #f66; } .f3.hl { color: #ff6; } .f2.hl { color: #6f6; }
.b4 { background: #00a; } .push-ipdatetime { color: #777; float: right; } .center { text-align: center; }
.btn-big { font-size: 18px; padding: 8px 24px; } .warning-box { background: #600; }
.richcontent img { max-width: 100%; }
"""
