import gzip
import json
import os
import random
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson
import pytest
import zstandard

from persona_dagster.corpus.parsing import parse_board, parse_capture
from persona_dagster.digest import author_key
from persona_dagster.intake.dumps import BadRow, DumpError, parse_import, read_dump
from persona_dagster.intake.rows import moment, split_pushes
from persona_dagster.records import Capture, Post, posts_frame
from persona_dagster.sample.replica import serve

KINDS = ("post", "comment", "title", "post_flat", "post_clean")
KEY = partial(author_key, b"secret", "ptt")
ROW = {"source": "ptt", "kind": "post", "text": "第一行\n第二行", "id": "M.1600000000.A.ABC", "board": "Hate"}


def dump(folder: Path, rows: list[object], name: str = "dump.jsonl") -> Path:
    path = folder / name
    lines = b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(packed(lines))
    return path


def posts_of(path: Path, source: str = "ptt") -> list[Post]:
    found = []
    for capture in read_dump(path, source):  # type: ignore[arg-type]
        parsed = parse_capture(capture, KEY)
        assert parsed.outcome == "ok", parsed.why
        found += parsed.posts
    return found


def one(folder: Path, source: str = "ptt", **row: object) -> Post:
    posts = posts_of(dump(folder, [ROW | {"source": source} | row]), source)
    return posts[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "a.json"])
def test_every_packing_gives_the_same_captures(tmp_path: Path, name: str) -> None:
    rows = [ROW | {"id": f"M.160000000{n}.A.ABC"} for n in range(3)]
    captures = list(read_dump(dump(tmp_path, rows, name), "ptt"))
    assert [capture.key for capture in captures] == [f"post:{row['id']}" for row in rows]
    assert {(c.kind, c.board, c.outcome.value, c.status) for c in captures} == {("import", "import", "ok", 200)}
    assert [orjson.loads(capture.body) for capture in captures] == rows


def test_rows_of_others_and_of_denied_boards_are_passed_over(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"source": "dcard"}, ROW | {"board": "sex", "id": "x"}, {"messages": [{"role": "user"}]}]
    rows.append({"source": "ptt", "kind": "post_flat", "text": FLAT.replace("看板Hate", "看板sex")})
    problems: list[BadRow] = []
    path = dump(tmp_path, rows)
    assert len(list(read_dump(path, "ptt", problems=problems, denied=["sex"]))) == 1
    assert len(list(read_dump(path, "threads", problems=problems))) == 0 and problems == []


def test_a_corrupt_row_is_skipped_and_reported_by_line(tmp_path: Path) -> None:
    bad = [b'{"source": "ptt", "te', b"[1]", orjson.dumps(ROW | {"text": None}), orjson.dumps(ROW | {"kind": "poem"})]
    path = dump(tmp_path, [ROW, *bad, b"", b"\xff\xfe", ROW | {"id": "M.1600000001.A.ABC"}])
    problems: list[BadRow] = []
    assert len(list(read_dump(path, "ptt", problems=problems))) == 2
    assert [problem.line for problem in problems] == [2, 3, 4, 5, 7]
    assert str(problems[0]).startswith(f"{path}:2: ") and "poem" in str(problems[3])


@pytest.mark.parametrize(("good", "bad", "stops"), [(400, 19, False), (380, 22, True), (0, 3, True), (3, 5, False)])
def test_a_file_that_is_mostly_something_else_is_refused(tmp_path: Path, good: int, bad: int, stops: bool) -> None:
    rows = [b"junk"] * bad + [ROW | {"id": f"M.{1600000000 + n}.A.ABC"} for n in range(good)]
    path = dump(tmp_path, rows)
    if not stops:
        assert len(list(read_dump(path, "ptt"))) == good
        return
    with pytest.raises(DumpError, match=r"dump\.jsonl: \d+ of \d+ rows cannot be read"):
        list(read_dump(path, "ptt"))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_cut_within_its_compression_is_named(tmp_path: Path, suffix: str) -> None:
    rows = [ROW | {"id": f"M.{1600000000 + n}.A.ABC", "text": os.urandom(200).hex()} for n in range(3000)]
    path = dump(tmp_path, rows, f"cut.jsonl{suffix}")
    path.write_bytes(path.read_bytes()[:-4000])
    got = []
    with pytest.raises(DumpError, match="cannot be decompressed after line"):
        got.extend(read_dump(path, "ptt"))
    assert path.suffix == suffix


def test_a_row_without_an_id_is_the_same_row_when_read_again(tmp_path: Path) -> None:
    row = {name: value for name, value in ROW.items() if name != "id"}
    keys = [capture.key for capture in read_dump(dump(tmp_path, [row, row, row | {"text": "別的"}]), "ptt")]
    assert keys[0] == keys[1] != keys[2]


def test_a_ptt_post(tmp_path: Path) -> None:
    text = "※ 引述《someone (暱稱)》之銘言：\n: 原本的話\n我的話 203.0.113.9"
    post = one(tmp_path, text=text, title="Re: [抱怨] 主管", author="u_1", created_at="2020-09-13 20:26:40", score="12")
    assert post.text_raw == "※ 引述《<user> (<nick>)》之銘言：\n: 原本的話\n我的話 <ip>"
    assert post.quoted == "原本的話" and post.score == 12 and post.author_key == KEY("u_1")
    assert post.created_at == datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC), "a time without a zone is Taipei's"
    assert post.url == "https://www.ptt.cc/bbs/Hate/M.1600000000.A.ABC.html"
    assert post.thread_id and post.thread_id.startswith("re:"), "found by title, as for scraped replies"


def test_a_ptt_push_takes_its_year_from_the_article(tmp_path: Path) -> None:
    # 2020-12-31 23:30 in Taipei: the push of 01/01 is next year's.
    parent = "M.1609428600.A.ABC"
    values = {"kind": "comment", "id": f"{parent}#3", "parent_id": parent, "tag": "噓", "text": ":到底"}
    post = one(tmp_path, **values, created_at="203.0.113.9 01/01 00:10")
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


def test_dcard_rows(tmp_path: Path) -> None:
    values = {"id": "uuid-1", "parent_id": "234", "floor": "3", "score": "12", "created_at": "2020-12-14T08:40:03.025Z"}
    comment = one(tmp_path, "dcard", kind="comment", text="抱抱", board=None, **values)
    assert comment.text_raw == "B3 抱抱 12月14日 16:40" and comment.score == 12 and comment.thread_id == "234"
    assert comment.url == "https://www.dcard.tw/f/all/p/234#comment-uuid-1" and comment.board == "import"
    hidden = one(tmp_path, "dcard", kind="comment", text="", deleted=True, **values)
    assert hidden.text_raw == "" and hidden.flags == ["hidden"]


def test_threads_rows_get_the_code_that_pages_use(tmp_path: Path) -> None:
    post = one(
        tmp_path, "threads", id="3877274894497645456", text="找 @some.body 嘴", created_at="2026-01-01 08:00:00+08:00"
    )
    assert post.post_id == "DXO2PlPEoOQ" and post.url == "https://www.threads.com/t/DXO2PlPEoOQ"
    assert post.text_raw == "找 @<user> 嘴\n1月1日 08:00"


FLAT = """作者somebody (暱稱)看板Hate標題[抱怨] 電梯時間Fri Jun 20 03:26:07 2025
每天都有人按關門
: → other: 這行是引文，不是推文 06/20 03:30
推 fake: 這行在內文裡，後面還有字 06/20 03:31

--
※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 203.0.113.7 (臺灣)
推 reader1: 笑死 06/20 03:40
→ reader2   : 真的 06/20 03:41
噓 reader1: http://a.example/b 203.0.113.8 06/21 00:00"""


def test_flat_text_is_taken_to_pieces_as_far_as_certain(tmp_path: Path) -> None:
    row = {name: value for name, value in ROW.items() if name not in ("id", "board")}
    posts = posts_of(dump(tmp_path, [row | {"kind": "post_flat", "text": FLAT}]))
    root, *pushes = posts
    assert (root.kind, root.board, root.title) == ("post", "Hate", "[抱怨] 電梯")
    assert root.created_at == datetime(2025, 6, 19, 19, 26, 7, tzinfo=UTC) and root.author_key == KEY("somebody")
    assert [push.tag for push in pushes] == ["推", "→", "噓"] and root.score == 0
    assert "推 fake" in root.text_raw and "reader1" not in root.text_raw and "somebody" not in root.text_raw
    assert root.quoted == "→ other: 這行是引文，不是推文 06/20 03:30"
    assert "203.0.113" not in "".join(post.text_raw for post in posts)
    assert pushes[0].author_key == pushes[2].author_key != pushes[1].author_key
    assert pushes[2].created_at == datetime(2025, 6, 20, 16, 0, tzinfo=UTC)
    assert all("flat" in post.flags and post.parent_id in (None, root.post_id) for post in posts)
    assert len({post.post_id for post in posts}) == 4


def test_flat_text_without_a_header_stays_one_text(tmp_path: Path) -> None:
    post = one(tmp_path, kind="post_flat", text="沒有標頭的文字\n推 a1: 推 06/20 03:40")
    assert post.flags == ["flat"] and "沒有標頭" in post.text_raw


def test_pushes_are_only_split_from_the_end() -> None:
    body, pushes = split_pushes(["內文", "推 aa: 早 01/01 10:00", "又是內文", "推 bb: 晚 01/01 11:00"])
    assert body == ["內文", "推 aa: 早 01/01 10:00", "又是內文"] and [push["user"] for push in pushes] == ["bb"]
    assert split_pushes(["推 bb: 沒有時間"])[1] == []


def test_zeeschuimer(tmp_path: Path) -> None:
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
    (post,) = posts_of(dump(tmp_path, [row], "zee.ndjson"), "threads")
    assert post.post_id == "DXO2PlPEoOQ" and post.score == 7 and post.text_raw.startswith("一句話")
    assert posts_of(dump(tmp_path, [row], "zee.ndjson"), "ptt") == []


def test_a_browser_recording_and_saved_pages(tmp_path: Path) -> None:
    import httpx

    with serve() as replica:
        item = next(item for item in replica.content.threads["職場"] if item.day < 15 and item.replies)
        from persona_dagster.sample.content import ptt_file, threads_code
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
    har = tmp_path / "mine.har"
    har.write_bytes(orjson.dumps({"log": {"entries": entries}}))
    (capture,) = read_dump(har, "threads")
    assert b"SECRET" not in capture.body and "SECRET" not in capture.url and capture.headers == {}
    assert capture.fetched_at == datetime(2026, 9, 20, 2, 0, tzinfo=UTC)
    parsed = parse_import(capture, KEY)
    assert parsed.complete and parsed.posts[0].text_raw.startswith((item.text or "")[:10])
    (capture,) = read_dump(har, "ptt")
    assert parse_import(capture, KEY).posts[0].board == "Boy-Girl"

    saved = tmp_path / "thread.html"
    saved.write_text(page, encoding="utf-8")
    (from_page,) = read_dump(saved, "threads")
    assert [p.post_id for p in parse_import(from_page, KEY).posts] == [p.post_id for p in parsed.posts]
    assert list(read_dump(saved, "ptt")) == []
    har.write_bytes(orjson.dumps({"log": {"entries": [{}, {"request": 1}, entries[0]]}}))
    problems: list[BadRow] = []
    assert len(list(read_dump(har, "threads", problems=problems))) == 1 and [p.line for p in problems] == [1, 2]
    with pytest.raises(DumpError, match="is no HAR"):
        (tmp_path / "not.har").write_text("{}", encoding="utf-8")
        list(read_dump(tmp_path / "not.har", "ptt"))


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
def test_whatever_a_row_holds_it_is_read_whole_or_refused_by_type(tmp_path: Path, rounds: int) -> None:
    """Fields of a wrong type, truncation and noise: posts of the right types, a bad row, or `parse_incomplete`."""
    draw = random.Random(7)
    for _ in range(rounds):
        row: dict[str, object] = ROW | {"source": draw.choice(["ptt", "dcard", "threads"]), "kind": draw.choice(KINDS)}
        for name in draw.sample(FIELDS, draw.randint(1, 3)):
            row[name] = draw.choice(ODD)
        line = bytearray(
            orjson.dumps(row, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
            if 10**25 not in row.values()
            else json.dumps(row).encode()
        )
        if draw.random() < 0.3:
            line[draw.randrange(len(line))] = draw.randrange(256)
        if draw.random() < 0.2:
            del line[draw.randrange(len(line)) :]
        path = dump(tmp_path, [ROW, bytes(line).replace(b"\n", b" ")])
        problems: list[BadRow] = []
        captures = [c for source in ("ptt", "dcard", "threads") for c in read_dump(path, source, problems=problems)]  # type: ignore[arg-type]
        assert len(captures) >= 1
        for capture in captures:
            parsed = parse_import(capture, KEY)
            assert parsed.outcome in ("ok", "parse_incomplete")
            assert parsed.complete is bool(parsed.posts)
            posts_frame(parsed.posts)  # polars checks every column's type


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"source":"ptt"}', b'{"source":"mars","kind":"post","text":"x"}'])
def test_a_damaged_capture_is_incomplete_and_no_exception(body: bytes, tmp_path: Path) -> None:
    capture = next(iter(read_dump(dump(tmp_path, [ROW]), "ptt")))
    broken = Capture(**{name: getattr(capture, name) for name in Capture.__slots__} | {"body": body})  # type: ignore[attr-defined]
    for key in ("post:x", "zeeschuimer:x", "saved:x:y"):
        changed = Capture(**{name: getattr(broken, name) for name in Capture.__slots__} | {"key": key})  # type: ignore[attr-defined]
        assert parse_import(changed, KEY).outcome == "parse_incomplete"


def test_real_saved_pages_are_taken_in_or_reported(shared_data: Path) -> None:
    """Every page and payload at hand, as an operator would drop them into the imports folder."""
    taken, reported = Counter[str](), Counter[str]()
    for path in sorted((shared_data / "pages").rglob("*.*")):
        before = sum(taken.values()) + sum(reported.values())
        for source in ("ptt", "dcard", "threads"):
            problems: list[BadRow] = []
            for capture in read_dump(path, source, problems=problems):
                parsed = parse_import(capture, KEY)
                assert parsed.posts or "listed" in parsed.flags, path
                taken[source] += 1
            if source == "ptt":
                reported.update(problem.why.split(":")[0] for problem in problems)
        assert sum(taken.values()) + sum(reported.values()) == before + 1, f"{path} vanished"
    assert taken == {"ptt": 61, "dcard": 8, "threads": 2}
    assert set(reported) == {"listing", "boards", "refusal", "error", "forums"}


@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.soak)])
def test_the_real_corpus(shared_data: Path, tmp_path: Path, every: int) -> None:
    """All rows read, none lost; the speed is measured by benchmarks/importing.py."""
    path = shared_data / "corpus" / "forum_posts.jsonl.gz"
    with gzip.open(path) as file:
        lines = [line for number, line in enumerate(file) if number % every == 0]
    part = dump(tmp_path, [line.rstrip(b"\n") for line in lines])
    problems: list[BadRow] = []
    start, total, kinds = time.process_time(), 0, Counter[str]()
    for source in ("ptt", "dcard", "threads"):
        captures = list(read_dump(part, source, problems=problems))  # type: ignore[arg-type]
        total += len(captures)
        board = parse_board(captures, KEY)
        assert board.problems == []
        kinds.update(post.kind for post in board.posts)
        assert all(post.created_at is None or post.created_at.year >= 1995 for post in board.posts)
        assert not any("203.0.113" in post.text_raw for post in board.posts)
    assert total == len(lines) and problems == []
    assert {"post", "comment", "title"} <= set(kinds)
    assert time.process_time() - start < total / 1000 + 5, "three orders of magnitude would be a hang"
