"""Values of the wrong type, from the bytes that a site sends to the Parquet of the corpus: a typed outcome, or rows."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.parsing import parse_board, parse_capture
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, Source, posts_frame
from persona_dagster.sites.dcard.payloads import page_of, parse_dcard
from persona_dagster.sites.json_validation import FAULT, load_json
from persona_dagster.sites.parser_results import MalformedError
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster.sites.threads.payloads import api_answer, api_refusal, named, parse_threads

ROUNDS, SOAK_ROUNDS, BATCH = 200, 20_000, 100
# As JSON writes them: some no Python value could be dumped as.
HOSTILE = [
    "null", "true", "0", "-1", "1.5", "1e999", "9" * 18, "9" * 40, "-9223372036854775809", "NaN", "[]", "{}", '""',
    '"²"', '"１２"', r'"\ud800"', r'"\u0000"', r'"a\ud83db"', '"9999-12-31T23:59:59-12:00"', '"0001-01-01T00:00:00Z"',
    '"2026-02-30T00:00:00Z"', '"' + "長" * 20_000 + '"', "[[[[[[]]]]]]", "[" * 400 + "]" * 400,
    '{"a":' * 990 + "1" + "}" * 990, '{"id":1,"id":2}', '"</script>"',
]  # fmt: skip
SCRIPT = re.compile(r'(<script\b[^>]*type="application/json"[^>]*>)(.*?)(</script>)', re.DOTALL)
FIELD = re.compile(r'(?<=>)[^<>]+(?=<)|(?<==")[^"<>]+(?=")')  # a text or an attribute of a page
HTML = ["", "0", "-1", "9" * 40, "²", "&#xD800;", "&#0;", "&#x110000;", "M.9999999999999.A.FFF", "99/99", "2/30",
        "Sun Feb 30 99:99:99 99999", "x" * 20_000, "<b>", "\u202e", "１２"]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    found, todo = [], [value]
    while todo:
        here = todo.pop()
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        found += [(here, key) for key in keys]
        todo += [here[key] for key in keys]
    return found


def changed_json(text: str, rng: random.Random) -> str:
    value = json.loads(text)
    spots = places(value)
    if not spots:
        return rng.choice(HOSTILE)
    for _ in range(rng.choice([1, 1, 1, 3])):
        into, key = rng.choice(spots)
        into[key] = "\x01hostile"
    dumped = json.dumps(value, ensure_ascii=rng.random() < 0.5).replace("</", "<\\/")
    return re.sub(r'"\\u0001hostile"', lambda _: rng.choice(HOSTILE), dumped)


def changed(body: bytes, rng: random.Random) -> bytes:
    text = body.decode()
    if not text.lstrip().startswith("<"):
        return changed_json(text, rng).encode()
    if scripts := [one for one in SCRIPT.finditer(text) if "thread_items" in one[2]]:
        one = rng.choice(scripts)
        fresh = changed_json(one[2], rng)
        opening = re.sub(r'data-content-len="\d+"', f'data-content-len="{len(fresh)}"', one[1])
        return f"{text[: one.start()]}{opening}{fresh}{one[3]}{text[one.end() :]}".encode()
    one = rng.choice(list(FIELD.finditer(text)))
    return f"{text[: one.start()]}{rng.choice(HTML)}{text[one.end() :]}".encode()


def crawl_reads(capture: Capture) -> None:
    """What a walk reads of an answer before a parser does: `MalformedError` is its one way to fail."""
    readers = {"dcard": [page_of], "threads": [api_answer, api_refusal, named], "ptt": [parse_listing]}
    for read in readers[capture.source]:
        with suppress(MalformedError):
            read(capture.body)


@pytest.mark.parametrize("source", ["ptt", "dcard", "threads"])
def test_wrong_types_from_bytes_to_parquet(source: Source, scraped: Archive, tmp_path: Path, soak: bool) -> None:
    board = {"ptt": "Boy-Girl", "dcard": "mood", "threads": "失戀"}[source]
    found = [one for one in scraped.every(source, board) if one.kind not in ("walk", "robots") and one.outcome == "ok"]
    rng, sources, seen = random.Random(22), load_sources(tmp_path, "sample"), {"rows": 0, "refused": 0}
    rounds = SOAK_ROUNDS if soak else ROUNDS
    for start in range(0, rounds, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, rounds)):
            capture = rng.choice(found)
            body = changed(capture.body, rng)
            batch.append(replace(capture, body=body, sha256=sha256(body)))
            crawl_reads(batch[-1])
            parsed = parse_capture(batch[-1], str)
            assert FAULT not in parsed.flags, (number, capture.key, parsed.why, body[:2000])
            seen["refused"] += parsed.outcome is not Outcome.OK
        posts = posts_frame(parse_board(batch, str).posts)
        cleaned = clean_posts(posts, source, sources).frame
        assert pl.read_parquet(write_parquet(cleaned, tmp_path / "posts.parquet")).height == posts.height
        seen["rows"] += posts.height
    assert seen["rows"] and seen["refused"] > rounds / 100, seen


def test_a_parser_that_fails_by_itself_is_flagged() -> None:
    def broken(_: str) -> str:
        raise LookupError("ours")

    row = {
        "id": 1, "title": "題", "excerpt": "", "content": "文", "createdAt": "2026-09-01T00:00:00Z", "updatedAt": "",
        "commentCount": 0, "likeCount": 0, "forumAlias": "mood", "school": "a", "department": "b",
    }  # fmt: skip
    parsed = parse_dcard(json.dumps([row]).encode(), board="mood", author_key=broken)
    assert (parsed.outcome, parsed.flags, parsed.posts) == (Outcome.PARSE_INCOMPLETE, [FAULT], [])


@pytest.mark.parametrize(
    ("field", "value"),
    [("likeCount", True), ("likeCount", 2**60), ("createdAt", "0001-01-01T00:00:00Z"), ("school", 7), ("id", "²")],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    row = {
        "id": 1, "title": "題", "excerpt": "", "content": "文", "createdAt": "2026-09-01T00:00:00Z", "updatedAt": "",
        "commentCount": 0, "likeCount": 0, "forumAlias": "mood",
    }  # fmt: skip
    assert parse_dcard(json.dumps([row]).encode(), board="mood", author_key=str).usable
    parsed = parse_dcard(json.dumps([row | {field: value}]).encode(), board="mood", author_key=str)
    assert parsed.outcome is Outcome.PARSE_INCOMPLETE
    assert field in parsed.why


def test_depth_and_surrogates_are_malformed() -> None:
    for text in ("[" * 5000 + "]" * 5000, r'["\ud800"]', "1" * 40):
        with pytest.raises(MalformedError):
            load_json(text)
    assert not parse_threads(b'{"a":' * 900 + b"1" + b"}" * 900, board="x", author_key=str).usable
