"""Everybody in the sample is forgotten, one after the other, and looked for by a search that shares nothing with the
package's: its own spellings, its own unpacking, the words as the archived pages have them."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import quopri
import re
import shutil
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from email import message_from_bytes
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from functools import partial
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.parsing import parse_board, parse_capture
from persona_dagster.digest import author_key
from persona_dagster.lineage import stored_artifacts
from persona_dagster.lineage.forget import forget
from persona_dagster.lineage.trace import captures, trace
from persona_dagster.records import FORUMS, Post, posts_frame
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import furnish

# What forgetting keeps, and what is no store.
ASIDE = {"forgotten", "forgetting", "tombstones", "models", "replica", ".safetensors", ".lock"}
PARTS = 6  # of the soak: each forgets every sixth of a home of its own


def spellings(text: str) -> set[bytes]:
    """Twenty ways in which programs write a text down."""
    utf8, marks = text.encode(), [ord(letter) for letter in text]
    found = {
        utf8,
        json.dumps(text)[1:-1].encode(),
        json.dumps(json.dumps(text))[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        html.escape(text).encode(),
        "".join(f"&#{mark};" if mark > 127 else chr(mark) for mark in marks).encode(),
        "".join(f"&#x{mark:x};" if mark > 127 else chr(mark) for mark in marks).encode(),
        "".join(f"&#x{mark:X};" if mark > 127 else chr(mark) for mark in marks).encode(),
        quote(text).encode(),
        quote(text).lower().encode(),
        quote(text, safe="").encode(),
        str(utf8)[2:-1].encode(),
        text.encode("unicode_escape"),
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        text.encode("utf-32-le"),
        quopri.encodestring(utf8).replace(b"=\n", b""),
        *(base64.b64encode(b" " * shift + utf8)[4:-4] for shift in range(3)),
    }
    for encoding in ("big5", "gb18030"):
        try:
            found.add(text.encode(encoding))
        except UnicodeEncodeError:
            continue
    return {spelled for spelled in found if len(spelled) > 8}


def unpacked(name: str, data: bytes) -> Iterator[bytes]:
    """A file's bytes, and what is packed in them."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(name, gzip.decompress(data))
    elif data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in packed.namelist():
                yield from unpacked(inner, packed.read(inner))
    elif data[:4] == b"PAR1":
        frame = pl.read_parquet(io.BytesIO(data))
        for series in frame.select(pl.col(pl.Binary)):
            for value in series.drop_nulls():
                yield from unpacked("", value)
        yield frame.select(pl.exclude(pl.Binary)).write_ndjson().encode()
    elif name.endswith((".eml", ".mhtml")):
        yield from (part.get_payload(decode=True) or b"" for part in message_from_bytes(data).walk())  # type: ignore[misc]
    elif name.endswith(".har"):
        for entry in json.loads(data)["log"]["entries"]:
            yield base64.b64decode(entry["response"]["content"]["text"])


def values(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for value in (value for row in connection.execute(f'SELECT * FROM "{table.decode()}"') for value in row):
                if isinstance(value, bytes):
                    yield zlib.decompress(value) if value[:1] == b"\x78" and value[1:2] in b"\x01\x9c\xda" else value


@dataclass
class Search:
    """Remembers what a file held, so that hundreds of searches unpack only what changed."""

    home: Path
    seen: dict[Path, tuple[int, int, bytes]] = field(default_factory=dict)

    def holding(self, texts: list[str]) -> list[str]:
        needles = {spelled for text in texts for spelled in spellings(text)}
        found = []
        for path in self.home.rglob("*"):
            parts = path.relative_to(self.home).parts
            if not path.is_file() or not ASIDE.isdisjoint({*parts, path.suffix}):
                continue
            if any(needle in self.read(path) for needle in needles):
                found.append("/".join(parts))
        return found

    def read(self, path: Path) -> bytes:
        now = path.stat().st_mtime_ns, path.stat().st_size
        if self.seen.get(path, ())[:2] != now:
            data = path.read_bytes()
            held = [*unpacked(path.name, data), *(values(path) if data[:6] == b"SQLite" else ())]
            self.seen[path] = (*now, b"\n".join(held))
        return self.seen[path][2]


def planted(settings: Settings, line: str) -> None:
    """The line in what people bring, in every container, and in Dagster's own storage."""
    folder = settings.imports_dir
    folder.mkdir(parents=True, exist_ok=True)
    page, packed = MIMEMultipart("related"), io.BytesIO()
    page.attach(MIMEText(f"<p>{line}</p>", "html", "utf-8"))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:t>{line}</w:t>")
    coded = base64.b64encode(f'{{"content": "{line}"}}'.encode()).decode()
    files = {
        "a.har": json.dumps({"log": {"entries": [{"response": {"content": {"text": coded}}}]}}).encode(),
        "b.mhtml": page.as_bytes(),
        "c.txt": line.encode("utf-16"),
        "d.txt": line.encode("big5", "replace"),
        "e.docx": packed.getvalue(),
        "f.html": "".join(f"&#{ord(letter)};" for letter in line).encode(),
        "g.jsonl.gz": gzip.compress(json.dumps({"text": line}).encode()),
        "h.txt": quote(line).lower().encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    pl.DataFrame({"text": [line, "另一列"]}).write_parquet(folder / "i.parquet")
    for path in (folder / "j.sqlite", settings.home / "dagster" / "more.db"):
        path.parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS events (body TEXT)")
            connection.execute("INSERT INTO events VALUES (?)", (json.dumps({"said": line, "n": 3}),))
            connection.commit()


def a_home(settings: Settings, scraped: Archive) -> None:
    """A copy of the home that `make demo` left ($PERSONA_SAMPLE_HOME), else one made of a board of each site."""
    if made := os.environ.get("PERSONA_SAMPLE_HOME"):
        shutil.copytree(made, settings.home, ignore=shutil.ignore_patterns("*.safetensors", "models", "releases"))
        return
    shutil.copytree(scraped.root, settings.raw_dir)
    sources, frames = load_sources(settings.config_dir, "tiny"), []
    for source, posts in said(settings, keyed=True):
        frames.append(clean_posts(posts_frame(posts), source, sources).frame)
    furnish(settings, pl.concat(frames, how="diagonal_relaxed"))


def said(settings: Settings, *, keyed: bool) -> Iterator[tuple[str, list[Post]]]:
    """The posts of each source as its pages have them, under the names of their authors or those names' keys."""
    archive = Archive(settings.raw_dir)
    for source in FORUMS:
        name = partial(author_key, settings.author_secret, source) if keyed else str
        yield source, [p for b in archive.boards(source) for p in parse_board(archive.latest(source, b), name).posts]


@dataclass
class Tally:
    targets: int = 0
    texts: int = 0
    own: int = 0  # rows of commenters
    others: int = 0  # rows of other people lost with those


def forget_everyone(settings: Settings, kind: str, part: slice, plant_every: int) -> Tally:
    """Forgets the authors or the pages of a home, each followed by the search."""
    posts = [post for _, found in said(settings, keyed=False) for post in found]
    lines = {id(post): {line.strip() for line in f"{post.title or ''}\n{post.text_raw}".split("\n")} for post in posts}
    if kind == "author":
        targets = sorted({f"{post.source}:{post.author_key}" for post in posts if post.author_key})
    else:
        targets = sorted({post.url for post in posts if post.kind == "post" and post.url})
    search, tally = Search(settings.home), Tally()
    for number, target in enumerate(targets[part]):
        own = [p for p in posts if target == (f"{p.source}:{p.author_key}" if kind == "author" else p.url)]
        pages = {(post.source, post.post_id) for post in own if post.kind == "post"}
        gone = own + [post for post in posts if (post.source, post.thread_id) in pages]
        rest = "\n".join(
            f"{post.title or ''}\n{post.text_raw}\n{post.quoted or ''}" for post in posts if post not in gone
        )
        mine = sorted(
            {
                line
                for post in own
                for line in lines[id(post)]
                if len(line) >= 14 and not re.search("<|://|^時間 |^※ |^[:>]|^(標題 )?Re: ", line) and line not in rest
            },
            key=len,
        )[-4:]
        before = stored_artifacts.posts(settings)
        if not before["doc_id"].is_in([f"{p.source}:{p.board}:{p.post_id}" for p in own]).any():
            continue  # gone with the page of another
        if mine and number % plant_every == 0:
            planted(settings, mine[-1])
            assert len(search.holding(mine[-1:])) >= 11, target
        report = forget(target, settings)
        assert report.left == [] and search.holding(mine) == [], (target, report.left, search.holding(mine))
        shutil.rmtree(settings.home / "forgotten", ignore_errors=True)
        after = stored_artifacts.posts(settings)
        tally.targets, tally.texts = tally.targets + 1, tally.texts + len(mine)
        if kind == "author" and not pages:
            tally.own += report.own
            tally.others += before.height - after.height - report.own
    return tally


def as_left(text: str) -> list[str]:
    """The lines but those that lost a quote: a page has blanks there as wide as it was, a row a mark. And without the
    site's note of a comment that was cut."""
    return [line for line in text.split("\n") if not re.search(r"■|x{4}|\[forgotten\]|> 刪除 <", line)]


def traced(settings: Settings, count: int) -> int:
    """Rows drawn at random, half of them from pages that were cut: each shows the page that it was read from, as it is
    now. Returns how many of those pages were cut."""
    archive, sources = Archive(settings.raw_dir), load_sources(settings.config_dir, "tiny")
    cut = {record["old"] for s in FORUMS for b in archive.boards(s) for record in archive.redactions(s, b).values()}
    rows = stored_artifacts.posts(settings).filter(pl.col("source").is_in(FORUMS) & pl.col("snapshot").is_not_null())
    redacted = rows.filter(pl.col("snapshot").is_in(list(cut)))
    drawn = pl.concat([frame.sample(min(count // 2, frame.height), seed=23) for frame in (redacted, rows)])
    for row in drawn.iter_rows(named=True):
        (page,) = captures(trace(row["doc_id"], settings), settings)
        (post,) = [post for post in parse_capture(page, str).posts if post.post_id == row["post_id"]]
        (shown,) = clean_posts(posts_frame([post]), row["source"], sources).frame["text_raw"]
        assert as_left(shown) == as_left(row["text_raw"]), row["doc_id"]
        assert (page.sha256 != row["snapshot"]) == (row["snapshot"] in cut)
    assert drawn.height
    return min(count // 2, redacted.height)


def test_some_are_forgotten_and_found_nowhere(
    scraped: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("PERSONA_SAMPLE_HOME", raising=False)
    settings = Settings(home=tmp_path / "home", archive_url=None)
    a_home(settings, scraped)
    tally = forget_everyone(settings, "author", slice(3, None, 40), plant_every=2)
    assert tally.targets >= 3 and tally.texts and tally.others <= 0.05 * tally.own, tally
    assert traced(settings, 20)


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["author", "post"])
def test_everyone_is_forgotten_and_found_nowhere(
    kind: str, part: int, scraped: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = Settings(home=tmp_path / "home", archive_url=None)
    a_home(settings, scraped)
    tally = forget_everyone(settings, kind, slice(part, None, PARTS), plant_every=5)
    print(f"{kind} {part}: {tally}; of 200 traced rows {traced(settings, 200)} on pages that were cut")
    assert tally.targets and tally.others <= 0.05 * tally.own, tally
