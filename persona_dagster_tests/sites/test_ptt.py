"""PTT's odd pages: each shape of FORMATS as the server writes it, with our own words."""

from __future__ import annotations

import html
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.corpus.parsing import assembled
from persona_dagster.intake.inspect_saved_page import parse_file
from persona_dagster.records import Outcome, Post
from persona_dagster.sites.parser_results import Parsed
from persona_dagster.sites.ptt.article import parse_article
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster.sites.ptt.markup import decode_cfemail

ID = "M.1583567480.A.C6D"  # 2020-03-07 07:51:20 UTC
METAS = (
    '<div class="article-metaline"><span class="article-meta-tag">作者</span><span class="article-meta-value">writer01 '
    '(小寫)</span></div><div class="article-metaline-right"><span class="article-meta-tag">看板</span>'
    '<span class="article-meta-value">Hate</span></div><div class="article-metaline"><span class="article-meta-tag">'
    '標題</span><span class="article-meta-value">{title}</span></div>'
)
TIME = (
    '<div class="article-metaline"><span class="article-meta-tag">時間</span>'
    '<span class="article-meta-value">Sat Mar  7 15:51:18 2020</span></div>'
)
STATION = '--\n<span class="f2">※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 10.1.2.3 (臺灣)\n</span>'


def push(text: str = ": 好", tag: str = "推", user: str = "reader22", when: str = " 03/07 16:00") -> str:
    colour = "hl" if tag == "推" else "f1 hl"
    return (
        f'<div class="push"><span class="{colour} push-tag">{tag} </span><span class="f3 hl push-userid">{user}</span>'
        f'<span class="f3 push-content">{text}</span><span class="push-ipdatetime">{when}\n</span></div>'
    )


def parse(
    main: str, *, title: str = "[討論] 排隊", metas: str | None = None, key: str = ID, home: str = "key"
) -> Parsed:
    head = METAS.format(title=title) + TIME if metas is None else metas
    page = f'<div id="main-content" class="bbs-screen bbs-content">{head}{main}</div>'
    return parse_article(page.encode(), board="Hate", article_id=key, author_key=lambda user: f"{home} of {user}")


def article(parsed: Parsed) -> Post:
    assert parsed.usable, parsed.why
    return parsed.posts[0]


def test_the_plain_case() -> None:
    parsed = parse(f"\n本文\n{STATION}{push()}{push(': 不好', '噓', 'other333')}{push(': 再說', '→')}")
    root, *pushes = parsed.posts
    assert (root.title, root.author_key, root.score) == ("[討論] 排隊", "key of writer01", 0)
    assert root.created_at == datetime(2020, 3, 7, 7, 51, 18, tzinfo=UTC)
    assert "本文" in root.text_raw
    assert "※ 發信站" in root.text_raw
    assert [(p.tag, p.score, p.floor, p.parent_id) for p in pushes] == [
        ("推", 1, 1, ID),
        ("噓", -1, 2, ID),
        ("→", 0, 3, ID),
    ]
    assert (pushes[0].text, pushes[0].text_raw) == ("好", "推 <user>: 好 03/07 16:00")
    assert pushes[0].created_at == datetime(2020, 3, 7, 8, 0, tzinfo=UTC)
    assert {p.thread_id for p in parsed.posts} == {ID}


def test_nobody_is_named() -> None:
    quoted = '※ 引述《other333 (別人)》之銘言：\n<span class="f6">: 引文\n</span>我回 reader22\n'
    edited = '<span class="f2">※ 編輯: writer01 (10.9.8.7 臺灣), 08/17/2020 02:49:57\n</span>'
    parsed = parse(
        f"\n{quoted}{STATION}{edited}{push(': 樓上writer01說得對 10.0.0.1')}{push(': 沒錯', user='other333')}"
    )
    text = "\n".join(post.text_raw + (post.text or "") + (post.quoted or "") for post in parsed.posts)
    for name in ("writer01", "reader22", "other333", "小寫", "別人", "10.1.2.3", "10.9.8.7", "10.0.0.1"):
        assert name not in text, name
    assert "※ 引述《<user> (<nick>)》之銘言：" in text
    assert article(parsed).quoted == "引文"
    assert "edited" in parsed.flags


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (" 12/31 23:59", datetime(2020, 12, 31, 15, 59, tzinfo=UTC)),
        ("03/07 16:00", datetime(2020, 3, 7, 8, 0, tzinfo=UTC)),
        ("   10.0.0.1 03/07 16:00", datetime(2020, 3, 7, 8, 0, tzinfo=UTC)),
        (" 02/01 10:00", datetime(2021, 2, 1, 2, 0, tzinfo=UTC)),
        (" 03/08", datetime(2020, 3, 7, 16, 0, tzinfo=UTC)),
        (" 03/32 03:24", None),
    ],
)
def test_pushes_have_no_year(when: str, expected: datetime | None) -> None:
    parsed = parse(f"\n本文\n{STATION}{push(when=when)}")
    assert parsed.posts[1].created_at == expected
    assert "10.0.0.1" not in parsed.posts[1].text_raw


def test_the_year_rolls_over_once_a_new_year() -> None:
    days = [" 12/30 10:00", " 01/02 10:00", " 11/02 10:00", " 01/05 10:00"]
    parsed = parse("\n本文\n" + STATION + "".join(push(f": {n}", when=day) for n, day in enumerate(days)))
    assert [post.created_at.year for post in parsed.posts[1:] if post.created_at] == [2020, 2021, 2021, 2022]


def test_headers_of_older_articles() -> None:
    ansi = (
        '<span class="f4 b7"> 作者 </span><span class="b4"> OLDWRITER       </span><span class="f4 b7"> 看板 </span>'
        '<span class="b4"> Hate </span>\n<span class="f4 b7"> 標題 </span><span class="b4"> [名人] 舊文    </span>\n'
        '<span class="f4 b7"> 時間 </span><span class="b4"> Sat Mar  7 15:51:18 2020   </span>\n'
    )
    for metas in (ansi, "\n作者: OLDWRITER (舊人) 站內: Hate\n標題: [名人] 舊文\n時間: Sat Mar  7 15:51:18 2020\n"):
        parsed = parse("\n內容\n", metas=metas)
        root = article(parsed)
        assert (root.title, root.author_key) == ("[名人] 舊文", "key of OLDWRITER")
        assert root.created_at == datetime(2020, 3, 7, 7, 51, 18, tzinfo=UTC)
        assert "no_metalines" in parsed.flags
        assert "OLDWRITER" not in root.text_raw


def test_a_time_fused_into_the_title() -> None:
    metas = METAS.format(title="[閒聊] 開版時間: Sat Mar  7 15:51:18 2020")
    parsed = parse("\n內容\n", metas=metas)
    assert article(parsed).title == "[閒聊] 開版"
    assert article(parsed).created_at == datetime(2020, 3, 7, 7, 51, 18, tzinfo=UTC)


def test_pushes_above_the_station_are_part_of_the_article() -> None:
    parsed = parse(f"\n看這串\n{push(': 貼來的')}\n如上\n{STATION}{push(': 真的')}")
    assert [post.kind for post in parsed.posts] == ["post", "comment"]
    assert "貼來的" in article(parsed).text_raw
    assert "pushes_in_body" in parsed.flags


def test_the_author_answers_between_pushes() -> None:
    parsed = parse(
        f'\n本文\n{STATION}{push(": 為何")}因為\n真的\n<span class="f2">※ 編輯: x (1.1.1.1), 1\n</span>{push(": 喔")}'
    )
    _, question, reply, other = parsed.posts
    assert (reply.kind, reply.parent_id, reply.author_key) == ("reply", question.post_id, "key of writer01")
    assert reply.text_raw == "因為\n真的"
    assert other.kind == "comment"


def test_the_site_cuts_huge_articles() -> None:
    box = '<div class="push center warning-box">檔案過大！部分文章無法顯示</div>'
    parsed = parse(f"\n本文\n{STATION}{push()}{box}{push(': 尾')}")
    assert parsed.usable
    assert not parsed.complete
    assert "truncated_by_site" in parsed.flags
    assert len(parsed.posts) == 3


def test_hidden_addresses_links_pictures_and_black_text() -> None:
    mail = (
        '<a class="__cf_email__" data-cfemail="30467052" href="/cdn-cgi/l/email-protection">[email&#160;protected]</a>'
    )
    link = '<a href="https://example.org/" target="_blank" rel="nofollow">https://example.org/</a>'
    rich = '<div class="richcontent"><blockquote class="imgur-embed-pub" data-id="x"><a href="//i">y</a></blockquote>'
    rich += '<script async src="//s.imgur.com/min/embed.js" charset="utf-8"></script></div>'
    parsed = parse(f'\n@{mail} {link}\n{rich}<span class="f0">藏</span>\n{STATION}{push(f": {mail} {link}")}')
    root, comment = parsed.posts
    assert "@v@b https://example.org/" in root.text_raw
    assert "藏" in root.text_raw
    assert "hidden_text" in parsed.flags
    assert comment.text_raw == "推 <user>: v@b https://example.org/ 03/07 16:00"
    assert decode_cfemail("30467052") == "v@b"


def test_a_reply_finds_its_thread() -> None:
    old = article(parse(f"\n一\n{STATION}"))
    answer = parse(f"\n二\n{STATION}{push()}", title="Re: [討論]  排隊", key="M.1583569480.A.AAA")
    orphan = article(parse(f"\n三\n{STATION}", title="Re: [討論] 別的", key="M.1583569481.A.AAB"))
    assembled([old, *answer.posts, orphan])
    reply, comment = answer.posts
    assert (reply.parent_id, reply.thread_id, comment.thread_id) == (ID, ID, ID)
    assert orphan.parent_id is None
    assert orphan.thread_id and orphan.thread_id.startswith("re:")


@pytest.mark.parametrize(
    "main",
    [
        "\n本文<div>",
        "\n本文</div>x",
        "\n<p>段落</p>",
        '\n<span class="xf2">※</span>',
        push()[:-12],
        "\n" + "<span class=hl>" * 99,
    ],
)
def test_what_the_server_does_not_write_is_no_success(main: str) -> None:
    assert parse(main).outcome is Outcome.PARSE_INCOMPLETE


def test_a_push_keeps_its_name_when_another_goes() -> None:
    both = parse(f"\n本文\n{STATION}{push(': 一')}{push(': 二')}{push(': 二')}")
    one = parse(f"\n本文\n{STATION}{push(': 二')}{push(': 二')}")
    assert [post.post_id for post in both.posts[2:]] == [post.post_id for post in one.posts[1:]]
    assert len({post.post_id for post in both.posts}) == 4


def test_two_homes_name_a_push_alike() -> None:
    """Under whatever key they write pseudonyms: by these names the split is drawn."""
    main = f"\n本文\n{STATION}{push(': 一')}\n回你\n{push(': 一', user='other11')}{push(': 二')}"
    here, there = parse(main).posts, parse(main, home="another key").posts
    assert [post.post_id for post in here] == [post.post_id for post in there]
    assert len({post.post_id for post in here}) == 5
    assert not {post.author_key for post in here} & {post.author_key for post in there}


def test_a_push_keeps_its_name_whoever_else_comes() -> None:
    """Ids of the page's people are masked: a name that is masked later is the same push."""
    said = push(": other11 說得對，打 0912345678 問我")
    before, after = (parse(f"\n本文\n{STATION}{said}{more}") for more in ("", push(": 是我", user="other11")))
    assert before.posts[1].text_raw != after.posts[1].text_raw
    assert before.posts[1].post_id == after.posts[1].post_id


def test_a_pushs_name_tells_no_address() -> None:
    """A digest of it could be guessed: there are only so many addresses."""
    one, other = (parse(f"\n本文\n{STATION}{push(when=f' {ip} 03/07 16:00')}") for ip in ("10.0.0.1", "10.0.0.2"))
    assert one.posts[1].post_id == other.posts[1].post_id


def test_every_real_page(shared_data: Path) -> None:
    """Counted by hand once: 61 articles, 2,877 pushes after their article, 23 listings with 14 deleted rows."""
    folder = shared_data / "pages" / "ptt_html"
    kinds: Counter[str] = Counter()
    for path in sorted(folder.glob("article*/*")):
        found = parse_file(path)
        assert found["outcome"] == "ok", (path.name, found["why"])
        kinds.update(row["kind"] for row in found["rows"])
        assert found["rows"][0]["title"]
        assert found["rows"][0]["created_at"]
    assert kinds["post"] == 61
    assert kinds["comment"] == 2878
    rows = [row for path in folder.glob("index/*") for row in parse_listing(path.read_bytes()).rows]
    assert (len(rows), sum(row.article_id is None for row in rows)) == (451, 14)
    outcomes = {
        path.parent.name: parse_file(path)["outcome"] for path in [*folder.glob("error/*"), *folder.glob("over18/*")]
    }
    assert outcomes == {"error": "gone", "over18": "gate"}


def test_a_removed_push_is_nobodys_reply() -> None:
    removed = '<span class="f0 hl">(chief00 刪除 reader22 的推文: 廣告)\n</span>'
    parsed = parse(f"\n本文\n{STATION}{push(': 一')}{removed}{push(': 三')}")
    assert [(post.kind, post.floor) for post in parsed.posts] == [("post", None), ("comment", 1), ("comment", 3)]
    assert "removed_pushes" in parsed.flags
    assert not any("chief00" in post.text_raw for post in parsed.posts)


@pytest.mark.parametrize("when", ["", " 昨天", " 推 10.0.0.1 03/07"])
def test_the_end_of_a_forged_or_old_push(when: str) -> None:
    parsed = parse(f"\n本文\n{STATION}{push(when=when)}")
    assert parsed.usable
    assert ("odd_push" in parsed.flags) == ("/" not in when)


def states(main: str, length: int) -> Parsed:
    page = f'<html><div id="main-content">{main}</div><div id="article-polling" data-offset="{length}"></div></html>'
    return parse_article(page.encode(), board="Hate", article_id=ID, author_key=str)


def test_the_length_that_the_page_states() -> None:
    plain, coloured = f"\n本文\n{STATION}{push()}", f'\n本文<span class="f1 hl">紅</span>\n{STATION}{push()}'
    length = 1 + 5 + 3 + 53 + 102 + 1
    assert states(plain, length).complete
    assert states(plain, length + 102).outcome is Outcome.PARSE_INCOMPLETE, "a push is missing"
    assert states(coloured, length + 12).complete
    # Colour codes that change nothing do not show: it may be whole, and is not called so.
    loose = states(coloured, length + 100)
    assert loose.usable
    assert not loose.complete
    assert states(coloured, length + 1000).outcome is Outcome.PARSE_INCOMPLETE
    pasted = states(f"\n{push()}\n{STATION}", length - 60)
    assert pasted.usable
    assert "length_unproven" in pasted.flags


def test_a_title_that_cloudflare_took_for_an_address(scraped: Archive) -> None:
    page = next(one.body for one in scraped.latest("ptt", "Boy-Girl") if one.kind == "listing").decode()
    hidden = '<span class="__cf_email__" data-cfemail="30467052">[email&#160;protected]</span>'
    title = next(row.title for row in parse_listing(page.encode()).rows if row.article_id)
    again = parse_listing(page.replace(html.escape(title), f"@{hidden} 早", 1).encode())
    assert "@v@b 早" in [row.title for row in again.rows]
