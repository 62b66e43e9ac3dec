"""Files as they go wrong: each costs itself alone, and is named with its place and the cure."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.intake import open_and_decode
from persona_dagster_tests.intake.conftest import Home

GOOD = {"source": "ptt", "kind": "post", "board": "Hate", "id": "M.1600000000.A.ABC", "text": "一段好好的話"}
ROW = b'{"source": "ptt", "kind": "post", "text": "abc"}\n'


def zipped(members: dict[str, bytes], *, locked: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    data = bytearray(out.getvalue())
    if locked:  # the bit of both headers that says so
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(mark) + place] |= 1
    return bytes(data)


def parquet() -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"text": ["一段話"] * 99}).write_parquet(out)
    return out.getvalue()


# name, content, what the message has to say
BAD: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "is empty"),
    ("blank.csv", b"  \n\n", "nothing but spaces"),
    ("junk.bin", bytes(range(256)) * 40, "no known kind"),
    ("cut.csv.gz", gzip.compress(b"id,text\n" + b"1,abc\n" * 9999)[:-30], "ends early|cannot be read"),
    ("cut.zip", zipped({"a.csv": b"id,text\n1,a\n"})[:-30], "damaged or cut short"),
    ("locked.zip", zipped({"a.jsonl": ROW}, locked=True), "password"),
    ("bomb.zip", zipped({"a.jsonl": ROW * 200_000}), "decompression bombs"),
    ("nested.zip", zipped({"inner.zip": zipped({"a.jsonl": ROW})}), "ZIP within a ZIP"),
    ("a.tar", b"x" * 999, "not opened"),
    ("locked.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999), "password"),
    ("broken.xlsx", b"PK\x03\x04" + bytes(99), "no workbook"),
    ("broken.sqlite", b"nothing of the kind" * 99, "no SQLite database"),
    ("ptt.parquet", parquet()[:-40], "no whole Parquet file"),
    ("ptt_cut.json", b'[{"text": "abc", "id": "1"}, {"text": "a', "no whole JSON|is no JSON"),
    ("no_text.csv", b"ptt_id,n\n1,2\n3,4\n", "no column holds text"),
    ("no_site.csv", "編號,內容\n1,一段夠長的話\n".encode(), "which site it is from"),
    ("x.har", b'{"log": {}}', "is no HAR"),
    ("long.jsonl", b'{"source": "ptt", "kind": "post", "text": "' + b"x" * 5000 + b'"}\n', "a line of more than"),
    ("broken.jsonl", b'{"source": "ptt", "te\n', "is no JSON"),
    ("other.jsonl", b'{"source": "mars", "kind": "post", "text": "x"}\n', "source is 'mars'"),
    ("latin.jsonl", b'{"source": "ptt", "kind": "post", "text": "a"}\n{"text": "\xff\xfe\xfa"}\n', "byte|no JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "body", "says"), BAD, ids=[name for name, *_ in BAD])
def test_a_bad_file_is_named_with_its_cure_and_the_good_one_comes_in(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes, says: str
) -> None:
    monkeypatch.setattr(open_and_decode, "RATIO_FROM", 1 << 20)
    monkeypatch.setattr(open_and_decode, "MAX_LINE", 4096)
    home.put("good.jsonl", [GOOD])
    home.put(name, body)
    done = home.take_in()
    assert "M.1600000000.A.ABC" in [post.post_id for post in home.posts()]
    found = [problem for problem in done.problems if problem.startswith(name)]
    assert found and any(re.search(says, problem) for problem in found), done.problems
    assert all(problem.count(". ") >= 1 for problem in found), "a cure follows"
    assert home.take_in().fates["stored"] == done.fates["stored"], "nothing changes the second time"


LINKS: dict[str, Callable[[Path], None]] = {
    "circle": lambda folder: (folder / "circle").symlink_to(folder),
    "nowhere.csv": lambda folder: (folder / "nowhere.csv").symlink_to("/nowhere/at/all"),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_that_lead_nowhere_or_in_a_circle(home: Home, name: str) -> None:
    home.put("good.jsonl", [GOOD])
    LINKS[name](home.settings.imports_dir)
    done = home.take_in()
    assert done.fates == {"stored": 1} and any(problem.startswith(name) for problem in done.problems)


def test_a_header_that_comes_again_and_odd_cells(home: Home) -> None:
    rows = 'id,text\n1,一段話\nid,text\n2,"兩行\n的話"\n3,多,一格\n\n4,NUL\0在此\n'
    home.put("ptt_Hate.csv", rows)
    done = home.take_in()
    assert done.fates == {"stored": 3, "refused": 1} and "row 6: 3 cells where the header names 2" in done.problems[0]
    assert [post.text_raw for post in home.posts()] == ["一段話", "兩行\n的話", "NUL在此"]


def test_a_broken_mapping_is_named_and_the_file_is_guessed_anew(home: Home) -> None:
    home.settings.mappings_dir.mkdir(parents=True)
    (home.settings.mappings_dir / "bad.yaml").write_text("fields: [unclosed", encoding="utf-8")
    home.put("ptt_Hate.csv", "id,text\n1,一段話\n")
    done = home.take_in()
    assert any("bad.yaml" in problem for problem in done.problems)
