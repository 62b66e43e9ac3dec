import re

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content, ptt_file
from persona_dagster.sample.http_messages import Request
from persona_dagster.sample.ptt_article_text import width, wrap
from persona_dagster.sample.ptt_article_variants import SHAPES
from persona_dagster.sample.ptt_pages import nrec, rich
from persona_dagster.sample.ptt_site import PAGE, PttSite
from persona_dagster.sample.replica import Replica
from persona_dagster.sites.ptt.article import parse_article
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster_tests.sample.conftest import ptt_item

PTT = "https://www.ptt.cc"


def get(site: PttSite, target: str, cookie: str = "over18=1") -> str:
    response = site.respond(Request("GET", target, {"cookie": cookie}))
    assert response.status == 200, response
    return response.body.decode()


def site_of(*items: object, day: int = 20, board: str = "Boy-Girl") -> PttSite:
    return PttSite(Content({board: list(items)}, {}, {}), Clock(day=day))  # type: ignore[list-item]


def test_the_gate_lets_nobody_in_without_a_yes(replica: Replica) -> None:
    listing = replica.url(f"{PTT}/bbs/Hate/index.html")
    with httpx.Client() as client:
        answer = client.get(listing)
        assert answer.status_code == 302 and answer.headers["location"].startswith("/ask/over18?from=")
        gate = client.get(listing, follow_redirects=True)
        form = LexborHTMLParser(gate.text).css_first("form[action='/ask/over18']")
        assert form and LexborHTMLParser(gate.text).css_first(".over18-notice")
        asked_for = form.css_first("input[name=from]").attributes["value"]
        post = replica.url(f"{PTT}/ask/over18")
        assert client.post(post, data={"from": asked_for, "no": "no"}).headers["location"] == "/"
        assert client.get(listing).status_code == 302
        passed = client.post(post, data={"from": asked_for, "yes": "yes"}, follow_redirects=True)
        assert passed.status_code == 200 and "r-ent" in passed.text
        assert client.get(replica.url(f"{PTT}/bbs/Boy-Girl/index.html")).status_code == 200


def test_the_gate_sends_nobody_elsewhere(replica: Replica) -> None:
    post = replica.url(f"{PTT}/ask/over18")
    for target in ("//evil.example/", "https://evil.example/"):
        assert httpx.post(post, data={"from": target, "yes": "yes"}).headers["location"] == "/"


def test_walking_back_meets_every_article_once(replica: Replica, adult: httpx.Client) -> None:
    path, found = "/bbs/Hate/index.html", []
    while path:
        page = adult.get(replica.url(PTT + path)).text
        rows = LexborHTMLParser(page).css("div.r-ent")
        separator = page.find("r-list-sep")
        shown = re.findall(
            r'class="title">\s*<a href="/bbs/Hate/(M[^"]+)\.html', page[: separator if separator > 0 else None]
        )
        assert len(rows) <= PAGE + 5 and len(shown) <= PAGE
        found += shown
        older = re.search(r'href="([^"]+)">&lsaquo; 上頁', page)
        path = older[1] if older else ""
    items = [item for item in replica.content.ptt["Hate"] if item.day <= 20 and (item.deleted_day or 99) > 20]
    assert sorted(found) == sorted(ptt_file("Hate", item) for item in items)


def test_pages_are_counted_from_the_oldest_and_end(replica: Replica) -> None:
    base = replica.url(f"{PTT}/bbs/Boy-Girl/")
    first = httpx.get(base + "index1.html").text
    assert first.count('<div class="r-ent">') == PAGE
    assert '<a class="btn wide disabled">&lsaquo; 上頁</a>' in first
    newest = httpx.get(base + "index.html").text
    assert '<a class="btn wide disabled">下頁 &rsaquo;</a>' in newest
    assert httpx.get(base + "index99.html").status_code == 404
    assert httpx.get(base + "index0.html").status_code == 404
    assert httpx.get(replica.url(f"{PTT}/robots.txt")).status_code == 404
    assert httpx.get(replica.url(f"{PTT}/bbs/NoSuchBoard/index.html")).status_code == 404


def test_pinned_rows_repeat_below_the_line_of_the_newest_page_only() -> None:
    items = [ptt_item(n, pinned=n == 0, day=n // 2) for n in range(30)]
    site = site_of(*items)
    newest, oldest = get(site, "/bbs/Boy-Girl/index.html"), get(site, "/bbs/Boy-Girl/index1.html")
    pinned = ptt_file("Boy-Girl", items[0])
    assert pinned in newest.split("r-list-sep")[1] and pinned in oldest
    assert "r-list-sep" not in oldest
    assert sum(row.pinned for row in parse_listing(newest.encode()).rows) == 1


def test_a_deleted_article_leaves_a_row_and_a_404() -> None:
    item = ptt_item(2, deleted_day=21)
    before, after = site_of(item), site_of(item, day=21)
    file = ptt_file("Boy-Girl", item)
    assert file in get(before, "/bbs/Boy-Girl/index.html")
    listing = get(after, "/bbs/Boy-Girl/index.html")
    assert file not in listing and "刪除)" in listing and '<div class="author">-</div>' in listing
    assert after.respond(Request("GET", f"/bbs/Boy-Girl/{file}.html", {})).status == 404


def test_an_edit_changes_the_text_and_says_when() -> None:
    item = ptt_item(2, edited_day=21, edited_body="改寫過的內容")
    target = f"/bbs/Boy-Girl/{ptt_file('Boy-Girl', item)}.html"
    before, after = get(site_of(item), target), get(site_of(item, day=21), target)
    assert "改寫過的內容" not in before and "※ 編輯" not in before
    assert "改寫過的內容" in after and "※ 編輯: writer (" in after and "09/22/2026" in after


def test_pushes_that_have_not_come_yet_are_not_shown() -> None:
    pushes = [{"tag": "推", "user": "reader", "text": f"第{n}推"} for n in range(30)]
    item = ptt_item(2, day=20, time="23:00", shape="plain", pushes=pushes)
    target = f"/bbs/Boy-Girl/{ptt_file('Boy-Girl', item)}.html"
    now, later = get(site_of(item), target), get(site_of(item, day=30), target)
    assert "第29推" not in now
    assert all(f"第{n}推" in later for n in range(30))


@pytest.mark.parametrize("shape", ["plain", *SHAPES])
def test_every_shape_is_an_article_that_the_parser_reads_whole(shape: str) -> None:
    pushes = [{"tag": tag, "user": f"reader{n}", "text": f"第 {n} 則 {'http://x.example/' * (n == 2)}"}
              for n, tag in enumerate("推噓→推推→")]  # fmt: skip
    original = ptt_item(1, body="原文第一行\n原文第二行\n")
    item = ptt_item(2, re="p1", shape=shape, pushes=pushes, signature="簽名", app="JPTT", body="我覺得" * 60 + "\n\n完")
    site = site_of(original, item)
    file = ptt_file("Boy-Girl", item)
    page = get(site, f"/bbs/Boy-Girl/{file}.html")
    parsed = parse_article(page.encode(), board="Boy-Girl", article_id=file, author_key=str)
    assert parsed.usable, parsed.why
    root, *answers = parsed.posts
    assert "我覺得我覺得" in root.text_raw and "Sent from JPTT" in root.text_raw and "簽名" in root.text_raw
    assert root.quoted == "原文第一行\n原文第二行"
    assert root.text and "我覺得我覺得" in root.text, "the author's own words, without what stands around them"
    around = ["原文", "發信站", "引述"]
    if shape not in ("no_station", "two_signatures"):  # a mark that is not the last may part paragraphs
        around.append("簽名")
    assert not [word for word in around if word in root.text]
    assert shape in ("old_header", "forwarded") or "作者" not in root.text
    comments = [post for post in answers if post.kind == "comment"]
    cut = shape == "cut_short"
    assert len(comments) == (4 if cut else 6)
    assert ("truncated_by_site" in parsed.flags) is cut
    if shape not in ("fused_title", "old_header"):
        assert root.title == "Re: [閒聊] 第 1 篇"


def test_the_shapes_show_on_the_page() -> None:
    marks = {
        "no_time": lambda page: 'article-meta-tag">時間' not in page,
        "within_site": lambda page: "站內</span>" in page,
        "no_nick": lambda page: 'article-meta-value">writer</span>' in page,
        "fused_title": lambda page: re.search(r"篇時間: \w{3} \w{3}", page),
        "old_header": lambda page: "article-metaline" not in page and "閱讀文章" in page and "og:title" not in page,
        "forwarded": lambda page: page.count("※ 發信站") == 2 and "本文轉錄自" in page,
        "no_station": lambda page: "※ 發信站" not in page,
        "from_line": lambda page: "◆ From: " in page,
        "forged_push": lambda page: page.index('class="push"') < page.index("※ 發信站"),
        "inline_replies": lambda page: re.search(r"</div>[^<\n]+\n<span class=\"f2\">※ 編輯", page),
        "push_ips": lambda page: re.search(r'push-ipdatetime"> +\d+\.\d+\.\d+\.\d+ \d\d/\d\d', page),
        "old_pushes": lambda page: re.search(r'push-userid">reader0 {5}<', page) and re.search(r"> \d\d/\d\d\n", page),
        "eaten_emoticon": lambda page: "data-cfemail" in page,
        "picture": lambda page: '<div class="richcontent"><img' in page,
        "hidden_text": lambda page: '<span class="f0">' in page,
        "two_signatures": lambda page: page.count("\n--\n") == 3,
        "colours": lambda page: re.search(r'<span class="f\d hl">', page),
        "cut_short": lambda page: "檔案過大" in page,
    }
    assert set(marks) == set(SHAPES)
    pushes = [{"tag": "推", "user": f"reader{n}", "text": "嗯"} for n in range(6)]
    body = "\n".join(f"這一行是第 {n} 行" for n in range(12))
    for shape, shows in marks.items():
        item = ptt_item(2, shape=shape, pushes=pushes, body=body)
        page = get(site_of(item), f"/bbs/Boy-Girl/{ptt_file('Boy-Girl', item)}.html")
        plain = item.model_copy(update={"shape": "plain"})
        usual = get(site_of(plain), f"/bbs/Boy-Girl/{ptt_file('Boy-Girl', plain)}.html")
        assert shows(page), shape
        assert not shows(usual), shape


def test_lines_break_at_39_full_columns_and_not_within_latin_words() -> None:
    lines = wrap("中" * 100)
    assert [len(line) for line in lines] == [39, 39, 22]
    text = "用 Transformer 做微調，" * 20
    lines = wrap(text)
    assert "".join(lines) == text
    assert all(sum(map(width, line)) <= 78 for line in lines)
    assert not any(line[-1].isalpha() and line[-1].isascii() and lines[i + 1][0].isascii() and lines[i + 1][0].isalpha()
                   for i, line in enumerate(lines[:-1]))  # fmt: skip


@pytest.mark.parametrize(
    ("score", "shown"),
    [(0, ""), (-9, ""), (1, ">1<"), (99, ">99<"), (100, ">爆<"), (-10, ">X1<"), (-99, ">X9<"), (-100, "XX")],
)
def test_nrec_is_as_lossy_as_on_the_site(score: int, shown: str) -> None:
    assert (shown in nrec(score)) if shown else nrec(score) == ""


def test_addresses_are_hidden_as_cloudflare_hides_them() -> None:
    html = rich("寫信到 someone@example.com 或 @v@b <b>")
    hidden = re.findall(r'data-cfemail="([0-9a-f]+)"', html)
    plain = ["".join(chr(byte ^ data[0]) for byte in data[1:]) for data in map(bytes.fromhex, hidden)]
    assert plain == ["someone@example.com", "v@b"]
    assert "&lt;b&gt;" in html and "someone" not in html


def test_search_and_feed(replica: Replica, adult: httpx.Client) -> None:
    item = next(item for item in replica.content.ptt["Hate"] if item.day <= 20)
    found = adult.get(replica.url(f"{PTT}/bbs/Hate/search"), params={"q": f"author:{item.author}"}).text
    assert ptt_file("Hate", item) in found
    assert adult.get(replica.url(f"{PTT}/bbs/Hate/search"), params={"q": "x", "page": "0"}).status_code == 400
    feed = httpx.get(replica.url(f"{PTT}/atom/Hate.xml"))
    assert feed.status_code == 200, "the feed stands outside the gate"
    assert feed.text.count("<entry>") >= 15 and feed.headers["content-type"].startswith("application/atom+xml")
    assert "Hate" in httpx.get(replica.url(f"{PTT}/bbs/hotboards.html")).text
