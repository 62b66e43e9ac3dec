"""Rows of the import schema, pages and recordings → the archive → posts."""

import gzip
import json
import os
import random
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.corpus.parsing import parse_capture
from persona_dagster.digest import author_key
from persona_dagster.intake.file_formats import Options
from persona_dagster.intake.rows_to_posts import split_pushes
from persona_dagster.intake.times import moment
from persona_dagster.records import Capture, Post, posts_frame
from persona_dagster.sample.replica import serve
from persona_dagster_tests.intake.conftest import Home

KINDS = ("post", "comment", "title", "post_flat", "post_clean")
KEY = partial(author_key, b"secret", "ptt")
ROW = {"source": "ptt", "kind": "post", "text": "第一行\n第二行", "id": "M.1600000000.A.ABC", "board": "Hate"}


def one(home: Home, source: str = "ptt", **row: object) -> Post:
    home.put("one.jsonl", [ROW | {"source": source} | row])
    assert home.take_in().problems == []
    return home.posts(source)[-1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.json"])
def test_every_packing_gives_the_same_captures(home: Home, name: str) -> None:
    rows = [ROW | {"id": f"M.160000000{n}.A.ABC"} for n in range(3)]
    home.put(name, rows)
    assert home.take_in().fates == {"stored": 3}
    captures = list(home.archive.latest("ptt", "import"))
    assert [capture.key for capture in captures] == [f"post:Hate:{row['id']}" for row in rows]
    assert {(c.kind, c.board, c.outcome.value, c.status) for c in captures} == {("row", "import", "ok", 200)}
    fields = ("source", "kind", "text", "id", "board")
    assert [orjson.loads(capture.body) for capture in captures] == [{f: row[f] for f in fields} for row in rows]


def test_one_pass_serves_all_sources_and_denied_boards_stay_out(home: Home) -> None:
    rows = [ROW, ROW | {"source": "dcard"}, ROW | {"board": "sex", "id": "x"}]
    rows.append({"source": "ptt", "kind": "post_flat", "text": FLAT.replace("看板Hate", "看板sex")})
    home.put("dump.jsonl", rows)
    assert home.take_in().fates == {"stored": 2, "denied_board": 2}
    assert [len(home.posts(source)) for source in ("ptt", "dcard", "threads")] == [1, 1, 0]


def test_a_corrupt_row_is_quarantined_by_its_place_and_taken_when_mended(home: Home) -> None:
    bad = [b'{"source": "ptt", "te', b"[1]", orjson.dumps(ROW | {"text": None}), orjson.dumps(ROW | {"kind": "poem"})]
    home.put("dump.jsonl", [ROW, *bad, b"", b"\xff\xfe", ROW | {"id": "M.1600000001.A.ABC"}])
    done = home.take_in()
    assert done.fates == {"stored": 2, "refused": 5}
    refused = home.ledger().filter(fate="refused")
    assert refused["row"].to_list() == [2, 3, 4, 5, 7] and set(refused["file"]) == {"dump.jsonl"}
    assert done.problems[0].startswith("dump.jsonl, row 2: is no JSON") and "poem" in done.problems[3]
    path = home.settings.quarantine_dir / "dump.jsonl.rows.jsonl"
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert all(line["reason"] and line["cure"] for line in lines)
    lines[3]["record"] = ROW | {"id": "M.1600000009.A.ABC", "text": "補好了"}
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    assert home.take_in().fates == {"stored": 3, "refused": 4}
    assert "補好了" in [post.text_raw for post in home.posts()]
    assert home.take_in().files[0].unchanged


def test_odd_values_cost_their_own_rows_also_where_columns_are_guessed(home: Home) -> None:
    """A row without `kind` makes it a guess: one odd source, kind or id must not take the column from the others."""
    comment = {"source": "PTT", "parent_id": ROW["id"], "text": "推一個", "tag": "推"}
    odd: list[object] = [ROW | {"source": "mars"}, ROW | {"source": {"a": 1}}, ROW | {"kind": "哈"}, ROW | {"id": []}]
    home.put("dump.jsonl", [ROW, *odd, comment, ROW | {"source": "dcard", "id": "260000001", "kind": "post"}])
    done = home.take_in()
    assert done.broken == 0 and done.fates == {"stored": 3, "refused": 4}
    assert home.ledger().filter(fate="refused")["row"].to_list() == [2, 3, 4, 5]
    assert [post.post_id for post in home.posts() if post.kind == "post"] == [ROW["id"]]
    home.put("given.jsonl", [{"source": "mars", "text": "第三行"}, {"source": "ptt", "text": "第四行"}])
    done = home.take_in(options={"given.jsonl": Options(source="dcard")})
    assert done.files[1].fates == {"stored": 2} and len(home.posts("dcard")) == 3


def test_a_file_of_something_else_costs_itself_alone_and_comes_back_when_mended(home: Home) -> None:
    bad = home.put("sub/bad.jsonl", [b"junk"] * 3)
    home.put("good.jsonl", [ROW])
    done = home.take_in()
    assert done.fates["stored"] == 1 and "sub/bad.jsonl: holds no records (is no JSON" in done.problems[0]
    held = home.settings.quarantine_dir / "sub" / "bad.jsonl"
    assert not bad.exists() and held.is_file()
    assert orjson.loads((held.parent / "bad.jsonl.why.json").read_bytes())["problems"] == done.problems
    assert home.take_in().fates["stored"] == 1 and held.is_file(), "unchanged, it is not tried again"
    held.write_bytes(orjson.dumps(ROW | {"id": "M.1600000007.A.ABC"}) + b"\n")
    assert home.take_in().fates["stored"] == 2 and bad.is_file() and not held.exists()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_cut_within_its_compression_gives_what_came_before(home: Home, suffix: str) -> None:
    rows = [ROW | {"id": f"M.{1600000000 + n}.A.ABC", "text": os.urandom(200).hex()} for n in range(3000)]
    path = home.put(f"cut.jsonl{suffix}", rows)
    path.write_bytes(path.read_bytes()[:-4000])
    done = home.take_in()
    assert 2300 < done.fates["stored"] < 3000 and "ends early or is damaged after line" in done.problems[-1]
    assert len(home.posts()) == done.fates["stored"] and path.is_file()


def test_a_row_is_known_by_source_board_and_its_own_id_else_by_content(home: Home) -> None:
    bare = {name: value for name, value in ROW.items() if name != "id"}
    home.put("a.jsonl", [bare, bare, bare | {"text": "別的"}, ROW, ROW | {"board": "Boy-Girl"}])
    home.put("b.jsonl", [ROW | {"source": "PTT"}, bare])
    assert home.take_in().fates == {"stored": 4, "repeat": 3}
    repeats = home.ledger().filter(fate="repeat").select("file", "row", "of_file", "of_row").sort("file", "row").rows()
    assert repeats == [("a.jsonl", 2, "a.jsonl", 1), ("b.jsonl", 1, "a.jsonl", 4), ("b.jsonl", 2, "a.jsonl", 1)]


def test_two_crawls_numbered_alike_lose_nothing(home: Home) -> None:
    """Rows 0 to 99 of two boards, and of one board crawled twice; comments follow the post of their own file."""

    def crawl(board: str, word: str) -> list[object]:
        base = {"source": "ptt", "board": board}
        numbers = [str(n) for n in range(100)]
        posts = [base | {"kind": "post", "id": n, "text": f"{word} {n} 的內文"} for n in numbers]
        said = [
            base | {"kind": "comment", "id": n, "parent_id": n, "text": f"{word} 推 {n}", "tag": "推"} for n in numbers
        ]
        return [*posts, *said]

    home.put("1.jsonl", crawl("Hate", "甲"))
    home.put("2.jsonl", crawl("Boy-Girl", "乙"))
    home.put("3.jsonl", crawl("Hate", "丙"))
    assert home.take_in().fates == {"stored": 600}
    posts = {(post.board, post.post_id): post for post in home.posts()}
    assert len(posts) == 600
    for post in posts.values():
        if post.kind == "comment":
            assert posts[post.board, post.parent_id or ""].text_raw[0] == post.text_raw.split(": ")[1][0]


def test_a_newer_crawl_of_the_same_post_takes_its_place(home: Home) -> None:
    old, new = home.put("old.jsonl", [ROW]), home.put("new.jsonl", [ROW | {"score": 99}])
    os.utime(old, (1e9, 1e9))
    os.utime(new, (2e9, 2e9))
    home.take_in()
    assert [post.score for post in home.posts()] == [99]


def test_a_post_beats_its_title(home: Home) -> None:
    home.put("a.jsonl", [ROW | {"kind": "title", "text": "[問題] 標題"}, ROW])
    home.take_in()
    assert [post.kind for post in home.posts()] == ["post"]


def test_a_file_that_did_not_change_is_not_read_again_and_an_edit_stores_only_what_is_new(home: Home) -> None:
    rows = [ROW | {"id": f"M.160000000{n}.A.ABC"} for n in range(3)]
    home.put("a.jsonl", rows)
    home.take_in()
    before = home.archive.digest("ptt", "import")
    assert home.take_in().files[0].unchanged and home.archive.digest("ptt", "import") == before
    home.put("a.jsonl", [*rows, ROW | {"id": "M.1600000009.A.ABC"}])
    assert home.take_in().fates == {"stored": 4}
    assert sum(pl.read_parquet(part).height for part in home.archive.parts("ptt", "import")) == 4


def test_a_ptt_post(home: Home) -> None:
    text = "※ 引述《someone (暱稱)》之銘言：\n: 原本的話\n我的話 203.0.113.9"
    post = one(home, text=text, title="Re: [抱怨] 主管", author="u_1", created_at="2020-09-13 20:26:40", score="12")
    assert post.text_raw == "※ 引述《<user> (<nick>)》之銘言：\n: 原本的話\n我的話 <ip>"
    assert (post.text, post.quoted) == ("我的話 <ip>", "原本的話")
    assert post.score == 12 and post.author_key == KEY("u_1")
    assert post.created_at == datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC), "a time without a zone is Taipei's"
    assert post.url == "https://www.ptt.cc/bbs/Hate/M.1600000000.A.ABC.html"
    assert post.thread_id and post.thread_id.startswith("re:"), "found by title, as for scraped replies"


def test_a_ptt_push_takes_its_year_from_the_article(home: Home) -> None:
    # 2020-12-31 23:30 in Taipei: the push of 01/01 is next year's.
    parent = "M.1609428600.A.ABC"
    values = {"kind": "comment", "id": f"{parent}#3", "parent_id": parent, "tag": "噓", "text": ":到底"}
    post = one(home, **values, created_at="203.0.113.9 01/01 00:10")
    assert post.created_at == datetime(2020, 12, 31, 16, 10, tzinfo=UTC)
    assert (post.text_raw, post.tag, post.score) == ("噓 <user>: 到底 01/01 00:10", "噓", -1)
    assert (post.parent_id, post.thread_id) == (parent, parent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-12-19T15:28:56.538Z", "2021-12-19T15:28:56.538000+00:00"),
        ("2025-12-23 21:23:06+08:00", "2025-12-23T13:23:06+00:00"),
        ("2025-06-20 3:40:41", "2025-06-19T19:40:41+00:00"),
        ("2008-12-23", "2008-12-22T16:00:00+00:00"),
        ("2017/10/26", "2017-10-25T16:00:00+00:00"),
        ("Mon Oct 29 12:34:46 2018", "2018-10-29T04:34:46+00:00"),
        ("Sat Feb  3 01:37:44 2024", "2024-02-02T17:37:44+00:00"),
        ("1600000000", "2020-09-13T12:26:40+00:00"),
        ("1600000000123", "2020-09-13T12:26:40.123000+00:00"),
        ("99999999999999999999", None),
        ("10/01", None),
        ("02/30 10:00", None),
        ("昨天", None),
        ("", None),
    ],
)
def test_times_in_every_spelling_met(text: str, expected: str | None) -> None:
    at = moment(text)
    assert (at.isoformat() if at else None) == expected


def test_dcard_rows(home: Home) -> None:
    values = {"id": "uuid-1", "parent_id": "234", "floor": "3", "score": "12", "created_at": "2020-12-14T08:40:03.025Z"}
    comment = one(home, "dcard", kind="comment", text="抱抱", board=None, **values)
    assert comment.text == "抱抱"
    assert comment.text_raw == "B3 抱抱 12月14日 16:40" and comment.score == 12 and comment.thread_id == "234"
    assert comment.url == "https://www.dcard.tw/f/all/p/234#comment-uuid-1" and comment.board == "import"
    values["id"] = "uuid-2"
    hidden = one(home, "dcard", kind="comment", text="", deleted=True, **values)
    assert hidden.text_raw == "" and hidden.flags == ["hidden"]


def test_threads_rows_get_the_code_that_pages_use(home: Home) -> None:
    post = one(
        home, "threads", id="3877274894497645456", text="找 @some.body 嘴", created_at="2026-01-01 08:00:00+08:00"
    )
    assert post.post_id == "DXO2PlPEoOQ" and post.url == "https://www.threads.com/t/DXO2PlPEoOQ"
    assert post.text == "找 @<user> 嘴" and post.text_raw == "找 @<user> 嘴\n1月1日 08:00"


FLAT = """作者somebody (暱稱)看板Hate標題[抱怨] 電梯時間Fri Jun 20 03:26:07 2025
每天都有人按關門
: → other: 這行是引文，不是推文 06/20 03:30
推 fake: 這行在內文裡，後面還有字 06/20 03:31

--
※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 203.0.113.7 (臺灣)
推 reader1: 笑死 06/20 03:40
→ reader2   : 真的 06/20 03:41
噓 reader1: http://a.example/b 203.0.113.8 06/21 00:00"""


def test_flat_text_is_taken_to_pieces_as_far_as_certain(home: Home) -> None:
    row = {name: value for name, value in ROW.items() if name not in ("id", "board")}
    home.put("flat.jsonl", [row | {"kind": "post_flat", "text": FLAT}])
    assert home.take_in().problems == []
    posts = home.posts()
    root, *pushes = posts
    assert (root.kind, root.board, root.title) == ("post", "Hate", "[抱怨] 電梯")
    assert root.created_at == datetime(2025, 6, 19, 19, 26, 7, tzinfo=UTC) and root.author_key == KEY("somebody")
    assert [push.tag for push in pushes] == ["推", "→", "噓"] and root.score == 0
    assert "推 fake" in root.text_raw and "reader1" not in root.text_raw and "somebody" not in root.text_raw
    assert root.quoted == "→ other: 這行是引文，不是推文 06/20 03:30\n推 fake: 這行在內文裡，後面還有字 06/20 03:31"
    assert root.text and root.text.strip() == "每天都有人按關門" and pushes[1].text == "真的"
    assert "203.0.113" not in "".join(post.text_raw for post in posts)
    assert pushes[0].author_key == pushes[2].author_key != pushes[1].author_key
    assert pushes[2].created_at == datetime(2025, 6, 20, 16, 0, tzinfo=UTC)
    assert all("flat" in post.flags and post.parent_id in (None, root.post_id) for post in posts)
    assert len({post.post_id for post in posts}) == 4


def test_flat_text_without_a_header_stays_one_text(home: Home) -> None:
    post = one(home, kind="post_flat", text="沒有標頭的文字\n推 a1: 推 06/20 03:40")
    assert post.flags == ["flat"] and "沒有標頭" in post.text_raw


def test_pushes_are_only_split_from_the_end() -> None:
    body, pushes = split_pushes(["內文", "推 aa: 早 01/01 10:00", "又是內文", "推 bb: 晚 01/01 11:00"])
    assert body == ["內文", "推 aa: 早 01/01 10:00", "又是內文"] and [push["user"] for push in pushes] == ["bb"]
    assert split_pushes(["推 bb: 沒有時間"])[1] == []


def test_zeeschuimer(home: Home) -> None:
    data = {
        "pk": "3877274894497645456",
        "id": "3877274894497645456_1",
        "code": "DXO2PlPEoOQ",
        "taken_at": 1776427215,
        "user": {"username": "someone.else"},
        "caption": {"text": "一句話"},
        "like_count": 7,
        "text_post_app_info": {"is_reply": False},
    }
    row = {"item_id": data["pk"], "source_platform": "threads.net", "timestamp_collected": 1, "data": data}
    home.put("zee.ndjson", [row, row | {"item_id": "2", "data": None}])
    assert home.take_in().fates == {"stored": 1, "refused": 1}
    (post,) = home.posts("threads")
    assert post.post_id == "DXO2PlPEoOQ" and post.score == 7 and post.text_raw.startswith("一句話")


def test_a_browser_recording_and_saved_pages(home: Home) -> None:
    import httpx

    with serve() as replica:
        item = next(item for item in replica.content.threads["職場"] if item.day < 15 and item.replies)
        from persona_dagster.sample.content_loader import ptt_file, threads_code
        from persona_dagster.sample.threads_site import pk_of

        url = f"https://www.threads.com/@{item.user}/post/{threads_code(pk_of(item))}"
        page = httpx.get(replica.url(url)).text
        article = next(i for i in replica.content.ptt["Boy-Girl"] if i.day < 15 and not i.shape and i.pushes)
        ptt_url = f"https://www.ptt.cc/bbs/Boy-Girl/{ptt_file('Boy-Girl', article)}.html"
        ptt_page = httpx.get(replica.url(ptt_url)).text

    def entry(url: str, text: str, status: int = 200) -> dict[str, object]:
        content = {"mimeType": "text/html", "text": text}
        request = {"url": url, "headers": [{"name": "Cookie", "value": "sessionid=SECRET"}]}
        at = "2026-09-20T10:00:00.000+08:00"
        return {"request": request, "response": {"status": status, "content": content}, "startedDateTime": at}

    entries = [
        entry(url + "?token=SECRET", page),
        entry(ptt_url, ptt_page),
        entry(url, page, 403),
        entry("https://ads.example/x", page),
    ]
    home.put("mine.har", orjson.dumps({"log": {"entries": entries}}))
    assert home.take_in().fates == {"stored": 2, "refused": 2}
    (capture,) = home.archive.latest("threads", "import")
    assert b"SECRET" not in capture.body and "SECRET" not in capture.url and capture.headers == {}
    assert capture.fetched_at == datetime(2026, 9, 20, 2, 0, tzinfo=UTC)
    recorded = [post.post_id for post in home.posts("threads")]
    assert home.posts("threads")[0].text_raw.startswith((item.text or "")[:10])
    assert {post.board for post in home.posts("ptt")} == {"Boy-Girl"}

    home.put("thread.html", page)
    assert home.take_in().fates == {"stored": 3, "refused": 2}
    assert [post.post_id for post in home.posts("threads")] == recorded
    home.put("mine.har", orjson.dumps({"log": {"entries": [{}, {"request": 1}, entries[0]]}}))
    assert home.take_in().fates == {"stored": 2, "refused": 2}
    home.put("not.har", "{}")
    assert any(line.startswith("not.har: is no HAR") for line in home.take_in().problems)


FIELDS = ("id", "parent_id", "board", "title", "author", "created_at", "score", "tag", "floor", "text", "kind", "data")
ODD: tuple[object, ...] = (
    None,
    "",
    0,
    -1,
    2.5,
    10**25,
    True,
    [],
    ["x"],
    {},
    {"a": 1},
    "\ud83d".encode("utf-16", "surrogatepass").hex(),
    "M.1.A",
    "\x00",
)


@pytest.mark.parametrize("rounds", [300, pytest.param(5000, marks=pytest.mark.soak)])
def test_whatever_a_row_holds_it_is_read_whole_or_refused_by_type(home: Home, rounds: int) -> None:
    """Fields of a wrong type, truncation and noise: posts of the right types, a refused row, or `parse_incomplete`."""
    draw = random.Random(7)
    lines = []
    for _ in range(rounds):
        row: dict[str, object] = ROW | {"source": draw.choice(["ptt", "dcard", "threads"]), "kind": draw.choice(KINDS)}
        for name in draw.sample(FIELDS, draw.randint(1, 3)):
            row[name] = draw.choice(ODD)
        line = bytearray(json.dumps(row).encode())
        if draw.random() < 0.3:
            line[draw.randrange(len(line))] = draw.randrange(256)
        if draw.random() < 0.2:
            del line[draw.randrange(len(line)) :]
        lines.append(bytes(line).replace(b"\n", b" ") or b"x")
    home.put("odd.jsonl", [ROW, *lines])
    done = home.take_in()
    assert done.fates.total() == sum(bool(line.strip()) for line in lines) + 1 and done.fates["stored"] > rounds / 4
    for source in ("ptt", "dcard", "threads"):
        for capture in home.archive.latest(source, "import"):  # type: ignore[arg-type]
            parsed = parse_capture(capture, KEY)
            assert parsed.outcome in ("ok", "parse_incomplete")
            assert parsed.complete is bool(parsed.posts)
            posts_frame(parsed.posts)  # polars checks every column's type


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"source":"ptt"}', b'{"source":"mars","kind":"post","text":"x"}'])
def test_a_damaged_capture_is_incomplete_and_no_exception(body: bytes, home: Home) -> None:
    home.put("a.jsonl", [ROW])
    home.take_in()
    (capture,) = home.archive.latest("ptt", "import")
    for kind in ("row", "import", "item", "saved"):
        changed = Capture(**{name: getattr(capture, name) for name in Capture.__slots__} | {"body": body, "kind": kind})  # type: ignore[attr-defined]
        assert parse_capture(changed, KEY).outcome == "parse_incomplete"


def test_real_saved_pages_are_taken_in_or_reported(shared_data: Path, home: Home) -> None:
    """Every page and payload at hand, as an operator would drop them into the imports folder."""
    paths = sorted((shared_data / "pages").rglob("*.*"))
    for path in paths:
        home.put(path.relative_to(shared_data / "pages").as_posix(), path.read_bytes())
    done = home.take_in()
    assert len(done.files) == len(paths)
    taken: Counter[str] = Counter()
    for source in ("ptt", "dcard", "threads"):
        taken.update(capture.source for capture in home.archive.latest(source, "import"))  # type: ignore[arg-type]
    assert all(sum(file.fates.values()) + len(file.problems) >= 1 for file in done.files)
    assert taken == {"ptt": 61, "dcard": 3, "threads": 2}, "lists name posts and hold none: they are reported"


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.soak)])
def test_the_real_corpus(shared_data: Path, home: Home, every: int) -> None:
    """All rows read, none lost; the speed is measured by benchmarks/intake.py."""
    path = shared_data / "corpus" / "forum_posts.jsonl.gz"
    with gzip.open(path) as file:
        lines = [line.rstrip(b"\n") for number, line in enumerate(file) if number % every == 0]
    home.put("part.jsonl", lines)
    done = home.take_in()
    assert done.fates.total() == len(lines) and done.fates["refused"] == 0 and done.problems == []
    kinds: Counter[str] = Counter()
    for source in ("ptt", "dcard", "threads"):
        posts = home.posts(source)
        kinds.update(post.kind for post in posts)
        assert all(post.created_at is None or post.created_at.year >= 1995 for post in posts)
        assert not any("203.0.113" in post.text_raw for post in posts)
    assert {"post", "comment", "title"} <= set(kinds)
