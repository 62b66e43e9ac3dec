"""`persona clean`: a dump in, a dump out, compressed or not, whole or not at all."""

from __future__ import annotations

import gzip
from functools import partial

import orjson
import pytest
import zstandard

from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.digest import author_key
from persona_dagster.intake.open_and_decode import IntakeError

STATION = "※ 發信站: 批踢踢實業坊(ptt.cc)"
ROWS = [
    {"source": "ptt", "kind": "post", "id": "M.1", "board": "Hate", "text": f"好煩\n{STATION}", "score": "9"},
    {"source": "dcard", "kind": "comment", "id": "c1", "parent_id": "1", "text": "B2 抱抱你 0912345678", "floor": "3"},
    {"source": "ptt", "kind": "post", "id": "M.2", "board": "Suicide", "text": "不該留下的板"},
    {"source": "threads", "kind": "post", "id": "t1", "text": "好累 #上班 #心累"},
]  # fmt: skip


def packed(path, rows):
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def read(path):
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return [orjson.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_dump_is_cleaned_in_order(tmp_path, sources, suffix):
    out = tmp_path / f"out.jsonl{suffix}"
    funnel = clean_file(packed(tmp_path / f"in.jsonl{suffix}", ROWS), out, sources)
    rows = read(out)
    assert [(row["id"], row["text"]) for row in rows] == [("M.1", "好煩"), ("c1", "抱抱你 <PHONE>"), ("t1", "好累")]
    assert (rows[0]["score"], rows[1]["floor"], rows[1]["parent_id"]) == (9, 3, "1")
    assert (funnel.rows_in, funnel.rows_out, funnel.removed["denied_board"]) == (4, 3, 1)
    assert funnel.personal_data["PHONE"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_authors_go_by_their_key_or_not_at_all(tmp_path, sources):
    rows = [{"source": "ptt", "kind": "comment", "text": "好喔", "author": name} for name in ("kitty99", None)]
    source, out = packed(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    clean_file(source, out, sources, author_key=partial(author_key, b"secret"))
    assert [row["author"] for row in read(out)] == [author_key(b"secret", "ptt", "kitty99"), None]
    clean_file(source, out, sources)
    assert b"kitty99" not in out.read_bytes()


def test_what_was_cleaned_comes_out_the_same(tmp_path, sources):
    cut = "我覺得這件事情其實沒有那麼簡單因為大家都只看到表面"
    pushes = [f"推 a: {cut} 08/17 02:53", f"→ a: {cut} 08/17 02:53", "→ a: 你說是不是啊 08/17 02:53"]
    rows = [{"source": "ptt", "kind": "comment", "parent_id": "M.1", "author": "a", "text": text} for text in pushes]
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    clean_file(packed(tmp_path / "in.jsonl", rows), once, sources, author_key=lambda *_: "key")
    assert [row["flags"] for row in read(once)] == [[], ["joined"], ["joined"]]
    clean_file(once, twice, sources, author_key=lambda *_: "key")
    assert read(twice) == read(once)


def test_sources_in_other_spellings_are_known(tmp_path, sources):
    rows = [{"source": name, "kind": "comment", "text": f"好喔{name}"} for name in ("PTT", "批踢踢", "Ｄcard", "脆")]
    clean_file(packed(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", sources)
    assert [row["source"] for row in read(tmp_path / "out.jsonl")] == ["ptt", "ptt", "dcard", "threads"]


def test_persona_labels_of_a_dump_become_tags(tmp_path, sources):
    rows = [{"source": "threads", "kind": "post", "text": text} for text in ("[人格:NLP助教] 梯度", "[人格:x] 好")]
    personas = load_personas(tmp_path).personas
    funnel = clean_file(packed(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", sources, personas=personas)
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == ["[NLP 技術助教] 梯度", "[人格:x] 好"]
    assert funnel.unknown_labels["人格:x"] == 1


def test_a_file_without_a_row_leaves_the_old_output(tmp_path, sources):
    out = tmp_path / "out.jsonl"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(IntakeError, match=r"source is 'plurk'"):
        clean_file(packed(tmp_path / "in.jsonl", [{"source": "plurk", "kind": "post", "text": "x"}]), out, sources)
    assert out.read_text(encoding="utf-8") == "old"


def test_a_broken_line_costs_itself_alone(tmp_path, sources):
    path = packed(tmp_path / "in.jsonl", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b'{"source": "ptt", "te\n')
    funnel = clean_file(path, tmp_path / "out.jsonl", sources)
    assert (funnel.rows_in, funnel.rows_out, funnel.removed["refused"]) == (5, 3, 1)
    assert "in.jsonl, row 5: is no JSON" in funnel.problems[0]
