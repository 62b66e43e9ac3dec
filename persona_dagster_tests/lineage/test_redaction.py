"""A commenter is forgotten without the page: comments are cut out, everything else stays readable and provable."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.parsing import parse_capture
from persona_dagster.corpus.tables import Tables
from persona_dagster.digest import author_key, sha256
from persona_dagster.lineage import byte_search, tombstones
from persona_dagster.lineage.dagster_storage import FORGOTTEN_MARK
from persona_dagster.lineage.distinctive_phrases import lines_of
from persona_dagster.lineage.forget import forget
from persona_dagster.lineage.redaction import blanked, cut, scrubber
from persona_dagster.lineage.trace import captures, trace
from persona_dagster.records import Capture, Outcome, Post, posts_frame
from persona_dagster.settings import Settings
from persona_dagster.sites.threads.payloads import code_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def capture(source: str, board: str, kind: str, key: str, body: bytes, url: str = "") -> Capture:  # noqa: PLR0917
    return Capture(
        source, board, kind, key, url or f"https://x.example/{key}", NOW, 200, Outcome.OK, {}, body, sha256(body)
    )  # type: ignore[arg-type]


def push(user: str, text: str, minute: int) -> str:
    return (
        f'<div class="push"><span class="hl push-tag">推 </span><span class="f3 hl push-userid">{user}</span>'
        f'<span class="f3 push-content">: {text}</span>'
        f'<span class="push-ipdatetime"> 11/20 12:{minute:02d}\n</span></div>'
    )


def page(pushes: list[str], reply: str = "") -> bytes:
    """An article of today's layout, with its stated length."""
    text = "那天的夕陽很好看，我拍了照片\n\n--\n※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 1.2.3.4\n"
    metas = [
        ("作者", "someone (某人)"),
        ("看板", "Test"),
        ("標題", "[心得] 夕陽"),
        ("時間", "Fri Nov 20 11:00:00 2026"),
    ]
    width = lambda line: 2 * len(line) - len(line.encode("ascii", "ignore"))  # noqa: E731
    length = width(text + reply) + 102 * len(pushes) + sum(width(tag + value) + 3 for tag, value in metas)
    head = "".join(
        f'<div class="article-metaline"><span class="article-meta-tag">{tag}</span>'
        f'<span class="article-meta-value">{value}</span></div>'
        for tag, value in metas
    )
    half = len(pushes) // 2
    body = f"{head}{text}{''.join(pushes[:half])}{reply}{''.join(pushes[half:])}"
    return (
        f'<!DOCTYPE html><html><head></head><body><div id="main-content" class="bbs-screen bbs-content">{body}</div>'
        f'<div id="article-polling" data-pollurl="/poll" data-longpollurl="/v1/x" '
        f'data-offset="{length}"></div></body></html>'
    ).encode()


def test_a_push_is_cut_and_the_page_still_proves_its_length(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, archive_url=None)
    pushes = [push(f"user{n % 4}", f"第{n}句話寫得不短也不長", n) for n in range(10)]
    pushes[7] = push("other", "user1 說得對", 7)
    body = page(pushes, "原po回覆在中間\n")
    key = "M.1795172400.A.123"
    article = capture("ptt", "Test", "article", key, body)
    hashed = partial(author_key, settings.author_secret, "ptt")
    before = parse_capture(article, hashed)
    assert before.outcome is Outcome.OK, before.why
    gone = {post.post_id for post in before.posts if post.author_key == hashed("user1")}
    assert len(gone) == 3
    fresh = cut(article, gone, settings)
    assert fresh is not None and b"user1" not in fresh
    after = parse_capture(capture("ptt", "Test", "article", key, fresh), hashed)
    assert after.outcome is Outcome.OK and "removed_pushes" in after.flags, after.why
    kept = {
        post.post_id: (post.floor, post.author_key, post.parent_id) for post in before.posts if post.post_id not in gone
    }
    assert {post.post_id: (post.floor, post.author_key, post.parent_id) for post in after.posts} == kept
    assert "xxxxx 說得對" in next(p.text_raw for p in after.posts if p.floor == 8)


def comment(number: int, department: str) -> dict[str, object]:
    return {
        "id": f"{number:08d}-0000-0000-0000-000000000000", "postId": 230000001, "anonymous": False, "gender": "M",
        "createdAt": "2026-11-20T01:02:03Z", "updatedAt": "2026-11-20T01:02:03Z", "floor": number, "likeCount": number,
        "content": f"留言第{number}句，我覺得應該先冷靜三天再說", "withNickname": True, "department": department,
        "school": "某大學",
    }  # fmt: skip


def home_of_comments(tmp_path: Path, quote: str = "") -> tuple[Settings, list[Post]]:
    """Forty comments of five people; uid3 says `quote` in the third, and uid0 repeats it in the last."""
    settings = Settings(home=tmp_path / "home", archive_url=None)
    rows = [comment(n, f"uid{n % 5}") for n in range(1, 41)]
    if quote:
        rows[2]["content"], rows[-1]["content"] = quote, f"上面說\n{quote}\n我也是"
    body = json.dumps(rows, ensure_ascii=False).encode()
    page = capture("dcard", "mood", "comments", "230000001@0", body, "https://www.dcard.tw/f/mood/p/230000001")
    Archive(settings.raw_dir).append([page])
    posts = parse_capture(page, partial(author_key, settings.author_secret, "dcard")).posts
    Tables(settings.tables_dir).write("posts", "all", posts_frame(posts))
    return settings, posts


def test_a_commenter_takes_nobody_along(tmp_path: Path) -> None:
    settings, posts = home_of_comments(tmp_path)
    own = {post.post_id for post in posts if post.author_key == author_key(settings.author_secret, "dcard", "@uid3")}
    text = next(post.text_raw for post in posts if post.post_id in own)[3:20]
    report = forget("dcard:@uid3", settings)
    assert (report.own, report.others, report.left) == (8, 0, [])
    assert byte_search.find(settings.home, byte_search.spellings(text)) == []
    left = Tables(settings.tables_dir).query("FROM posts")
    assert set(left["post_id"]) == {post.post_id for post in posts} - own
    archive = Archive(settings.raw_dir)
    (page,) = archive.every("dcard", "mood")
    assert archive.verify("dcard", "mood") == [] and len(archive.redactions("dcard", "mood")) == 1
    again = parse_capture(page, str)
    assert again.outcome is Outcome.OK
    assert {p.post_id for p in again.posts if p.text_raw} == {post.post_id for post in posts} - own
    # Fetched again, it is cut again; traced, the page as it is now is shown.
    fresh = capture(
        "dcard",
        "mood",
        "comments",
        "230000001@0",
        json.dumps([comment(n, f"uid{n % 5}") for n in range(1, 43)]).encode(),
    )
    assert b"uid3" not in scrubber(settings)(fresh).body and b"uid4" in scrubber(settings)(fresh).body
    kept = next(post for post in posts if post.post_id not in own)
    shown = list(captures(trace(f"dcard:mood:{kept.post_id}", settings), settings))
    assert [found.body for found in shown] == [page.body]


def test_marks_and_lines_of_the_site_are_nobody_s_words() -> None:
    own = "這一句才是他自己說過的話"
    lines = [
        f"標題 Re: {FORGOTTEN_MARK}",
        "時間 Fri Nov 20 11:00:00 2026",
        "※ 文章網址: https://x.example/a",
        "(<USER> 刪除 <USER> 的推文)",
        own,
    ]
    said = "\n".join(lines)
    rows = posts_frame([a_post("1", said)]).with_columns(doc_id=pl.lit("ptt:Test:1"))
    assert lines_of(rows, rows.clear()) == [own]


def a_post(post_id: str, text: str, minute: int = 0, **more: str | None) -> Post:
    said_at = NOW.replace(minute=minute)
    return Post("ptt", "Test", "post", post_id, f"https://x.example/{post_id}", text, created_at=said_at, **more)  # type: ignore[arg-type]


def test_what_somebody_said_before_is_not_whose_who_repeats_it() -> None:
    first, answer = "今天的夕陽比哪一天的都好看", "我在另一邊看見的是一片烏雲喔"
    quoting = f"標題 Re: 夕陽真的很美你們看見了嗎\n※ 引述《<USER>》之銘言：\n: {first}\n{answer}"
    posts = [
        a_post("1", f"標題 夕陽真的很美你們看見了嗎\n{first}", title="夕陽真的很美你們看見了嗎", author_key="a"),
        a_post("2", quoting, minute=5, title="Re: 夕陽真的很美你們看見了嗎", author_key="b"),
        a_post("3", f": {first}\n: {answer}\n那片烏雲後來也到我家了啦", minute=9, author_key="c"),
    ]
    rows = posts_frame(posts).with_columns(doc_id=pl.concat_str(pl.lit("ptt:Test:"), "post_id"))
    assert lines_of(rows[1:2], rows) == [answer]
    assert lines_of(rows[2:3], rows) == ["那片烏雲後來也到我家了啦"]
    below = posts_frame([a_post("4", "同感，那片烏雲我也看見了喔", minute=7, author_key="a")])
    gone = pl.concat([rows[1:2], below.with_columns(doc_id=pl.lit("ptt:Test:4"))])  # whose they are, below the answer
    assert lines_of(gone, rows) == ["同感，那片烏雲我也看見了喔", answer]
    assert {first, "夕陽真的很美你們看見了嗎"} <= set(lines_of(rows[:1], rows))  # whoever repeats it later, it goes


@pytest.mark.parametrize(
    ("author", "thread", "own"),
    [("a", "9", True), (None, "9", True), (None, "2", False), ("b", "9", False)],
    ids=["the same author's", "a copy of nobody known", "nobody known, above it", "somebody else's"],
)
def test_an_earlier_copy_of_the_same_post_is_no_other_s_word(author: str | None, thread: str, own: bool) -> None:
    line = "我在另一邊看見的是一片烏雲喔"
    posts = [
        a_post("1", line, author_key=author, thread_id=thread),
        a_post("2", line, minute=5, author_key="a", thread_id="2"),
    ]
    rows = posts_frame(posts).with_columns(doc_id=pl.concat_str(pl.lit("ptt:Test:"), "post_id"))
    assert lines_of(rows[1:], rows) == [line] * own


@pytest.mark.parametrize("before", [None, "dcard:@uid1"])
def test_a_page_that_loses_comments_loses_what_quotes_them_too(tmp_path: Path, before: str | None) -> None:
    """Also where the page was cut for somebody else before, and is stored under another hash than its rows name."""
    text = "星期三的晚上我一個人在河堤把戒指丟進水裡了"
    settings, _ = home_of_comments(tmp_path, text)
    if before:
        assert forget(before, settings).left == []
    report = forget("dcard:@uid3", settings)
    assert report.left == [] and byte_search.find(settings.home, byte_search.spellings(text)) == []
    archive = Archive(settings.raw_dir)
    (page,) = archive.every("dcard", "mood")
    assert "我也是" in page.body.decode() and archive.verify("dcard", "mood") == []


def threads_post(pk: int, name: str, text: str) -> dict[str, object]:
    return {
        "pk": str(pk), "code": code_of(str(pk)), "user": {"username": name}, "taken_at": 1_795_000_000,
        "caption": {"text": text}, "text_post_app_info": {"is_reply": pk > 1000},
    }  # fmt: skip


def threads_page(posts: list[dict[str, object]], others: list[dict[str, object]] = []) -> bytes:  # noqa: B006
    """A page of these posts, below which some of other threads are offered."""
    edges, related = ([{"thread_items": [{"post": one}]} for one in some] for some in (posts, others))
    data = json.dumps({"data": {"edges": edges, "relatedPosts": related}}, ensure_ascii=False)
    head = f'<script type="application/json" data-content-len="{len(data)}" data-sjs>'
    return f"<html>{head}{data}</script></html>".encode()


def test_a_threads_post_becomes_one_that_is_not_shown(tmp_path: Path) -> None:
    posts = [
        threads_post(1000, "opener.x", "開串的人說的話"),
        threads_post(1001, "gone_99", "要刪的話"),
        threads_post(1002, "other", "@gone_99 同意"),
    ]
    held = capture("threads", "search", "search", "q", threads_page(posts))
    before = parse_capture(held, str)
    assert len(before.posts) == 3, before.why
    fresh = cut(held, {before.posts[1].post_id}, Settings(home=tmp_path))
    assert fresh is not None and "要刪的話".encode() not in fresh and b"gone_99" not in fresh
    after = parse_capture(capture("threads", "search", "search", "q", fresh), str)
    assert [post.post_id for post in after.posts] == [before.posts[0].post_id, before.posts[2].post_id]


def test_a_threads_post_goes_from_the_pages_that_offer_it_too(tmp_path: Path) -> None:
    """As a post of another thread it makes no row there; of a forgotten author also one that never made a row."""
    settings = Settings(home=tmp_path, archive_url=None)
    own = threads_post(900, "gone_99", "我昨天在捷運站把傘借給一個陌生人")
    never = threads_post(901, "gone_99", "那支傘後來一直沒有還回來我也不在意了")
    asked = threads_page([threads_post(1000, "opener.x", "開串的人說的話")], [own, never])
    key_of = partial(author_key, settings.author_secret, "threads")
    page = capture("threads", "q", "page", code_of("1000"), asked)
    archive = Archive(settings.raw_dir)
    archive.append([capture("threads", "q", "page", code_of("900"), threads_page([own])), page])
    posts = [post for held in archive.every("threads", "q") for post in parse_capture(held, key_of).posts]
    Tables(settings.tables_dir).write(
        "posts", "all", clean_posts(posts_frame(posts), "threads", load_sources(settings.config_dir, "tiny")).frame
    )
    assert forget("threads:gone_99", settings).left == []
    (left,) = archive.every("threads", "q")
    assert b"gone_99" not in left.body and "開串的人說的話" in left.body.decode()
    assert all(
        byte_search.find(tmp_path, byte_search.spellings(text)) == [] for text in ("借給一個陌生人", "一直沒有還回來")
    )
    again = scrubber(settings)(page)
    assert b"gone_99" not in again.body and "開串的人說的話" in again.body.decode()


@pytest.mark.parametrize(
    ("body", "needle", "expected"),
    [
        ("前面秘密abc1後面", "秘密abc1", "前面■■xxxx後面"),
        ('{"a": "\\u79d8\\u5bc6!"}', "\\u79d8\\u5bc6", '{"a": "\\u25a0\\u25a0!"}'),
        ("沒有", "秘密", "沒有"),
    ],
)
def test_a_blank_is_as_wide_as_what_stood_there(body: str, needle: str, expected: str) -> None:
    assert blanked(body.encode(), [needle.encode()]).decode() == expected
    assert blanked(body.encode(), []).decode() == body  # of a post none of whose words are its own


def test_the_log_of_tombstones_shows_what_was_changed(tmp_path: Path) -> None:
    stones = [tombstones.Tombstone(f"2026-01-0{n}", [f"ptt:a:{n}"]) for n in (1, 2, 3)]
    tombstones.write(tmp_path, *stones)
    tombstones.write(tmp_path, *stones)  # known ones are not written twice
    assert tombstones.read(tmp_path) == stones and tombstones.faults(tmp_path) == []
    log = tmp_path / tombstones.FOLDER / tombstones.LOG
    with log.open("ab") as file:
        file.write(b'{"half')  # a power cut
    assert tombstones.read(tmp_path) == stones
    tombstones.write(tmp_path, tombstones.Tombstone("2026-01-04", ["ptt:a:4"]))
    assert len(tombstones.read(tmp_path)) == 4 and tombstones.faults(tmp_path) == []
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert "line 2" in tombstones.faults(tmp_path)[0]
    log.write_bytes(b"".join([lines[0], orjson.dumps({"no": 1}) + b"\n"]))
    assert "no tombstone" in tombstones.faults(tmp_path)[0]
