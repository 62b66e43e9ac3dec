"""One new day on a board of a million rows, against cleaning the board whole: CPU-seconds, and the share.

    python benchmarks/new_day.py [ROWS] [DUMP.jsonl.gz]

The claim: under 5 %. Articles have the sample's pages with the words of real rows (marked, so that they are no
copies), 39 pushes each. A day brings 70 articles, and six more pushes on the 140 before them. Both sides count all
that the asset does: captures looked up, rows cleaned, the table and its data card written, the digest.
"""

from __future__ import annotations

import gzip
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import orjson
from real_data import real_data

from persona_dagster.archive.archive import Archive
from persona_dagster.config.personas import load_personas
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.data_card import write_data_card
from persona_dagster.corpus.incremental_cleaning import BoardCleaner
from persona_dagster.corpus.tables import Tables
from persona_dagster.digest import POST_MEANING, author_key, frame_digest, sha256
from persona_dagster.records import POST_SCHEMA, Capture, Outcome
from persona_dagster.sample.content_loader import PttItem, Push, ptt_file
from persona_dagster.sample.ptt_article_text import plain_sheet
from persona_dagster.sample.ptt_pages import article_page

BOARD, A_DAY, PUSHES = "Boy-Girl", 70, 39
AGAIN, LATER = 140, 6  # articles of the days before that are looked at again, and the pushes that came to them
START = datetime(2025, 11, 1, tzinfo=UTC)


def words(path: Path) -> dict[str, list[str]]:
    """Real posts and comments of PTT."""
    found: dict[str, list[str]] = {"post": [], "comment": []}
    with gzip.open(path) as file:
        for line in file:
            row = orjson.loads(line)
            if row["source"] == "ptt" and row["kind"] in found and row["text"]:
                found[row["kind"]].append(row["text"])
    return found


def mark(*numbers: int) -> str:
    """Numbers in characters that no detector of numbers looks at."""
    return "、" + "、".join(
        str(number).translate(str.maketrans("0123456789", "甲乙丙丁戊己庚辛壬癸")) for number in numbers
    )


def article(number: int, pushes: int, text: dict[str, list[str]], board: str = BOARD) -> Capture:
    """The page of the article with this number, 70 a day, as it stands with so many pushes."""
    posts, comments = text["post"], text["comment"]
    said = (f"{comments[(number * PUSHES + at) % len(comments)][:60]}{mark(number, at)}" for at in range(pushes))
    item = PttItem(
        id=f"n{number}", day=number // A_DAY, time=f"{number % A_DAY // 3:02d}:{number % 3 * 20:02d}",
        author=f"writer{number % 997}", title=f"第{number}篇",
        body=f"{posts[number % len(posts)][:1500]}{mark(number)}",
        pushes=tuple(Push(user=f"user{(number + at * 7) % 4999}", text=line) for at, line in enumerate(said)),
    )  # fmt: skip
    at = START + timedelta(days=number // A_DAY, hours=30 + pushes)
    sheet = plain_sheet(board, item, {}, 10**6, at + timedelta(days=400))
    body = article_page(board, ptt_file(board, item), sheet.title, "", main=sheet.html(), adult=False).encode()
    key = ptt_file(board, item)
    url = f"https://www.ptt.cc/bbs/{board}/{key}.html"
    return Capture("ptt", board, "article", key, url, at, 200, Outcome.OK, {}, body, sha256(body))


def cleaned(cleaner: BoardCleaner, home: Path) -> tuple[float, float, int, int]:
    """CPU-seconds and seconds of one materialisation, rows, and captures that were cleaned."""
    cpu, wall = time.process_time(), time.perf_counter()
    result, tally = cleaner.clean([BOARD])
    print(f"    cleaned {time.process_time() - cpu:.1f}", end="")
    Tables(home / "tables").write("ptt_posts", BOARD, result.frame, POST_SCHEMA)
    print(f", written {time.process_time() - cpu:.1f}", end="")
    write_data_card(result.frame, result.funnel, None, home / "card")
    print(f", card {time.process_time() - cpu:.1f}", end="")
    frame_digest(result.frame, POST_MEANING)
    print(f", digest {time.process_time() - cpu:.1f} CPU-s")
    return time.process_time() - cpu, time.perf_counter() - wall, result.frame.height, tally.fresh


def main(rows: int = 1_000_000, path: Path | None = None) -> None:
    text, articles = words(path or real_data("corpus", "forum_posts.jsonl.gz")), rows // (PUSHES + 1)

    def day(first: int, last: int) -> Iterator[Capture]:
        return (article(number, PUSHES, text) for number in range(first, last))

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sources, personas = load_sources(home, "sample"), load_personas(home).personas
        pseudonym = partial(author_key, b"key", "ptt")
        cleaner = BoardCleaner("ptt", Archive(home / "raw"), sources, personas, pseudonym, home / "cleaned")
        cleaner.archive.append(day(0, articles))
        whole, wall, made, fresh = cleaned(cleaner, home)
        print(f"whole: {made:,} rows of {fresh:,} captures, {whole:.1f} CPU-s, {wall:.1f} s")
        more = (article(number, PUSHES + LATER, text) for number in range(articles - AGAIN, articles))
        cleaner.archive.append(itertools.chain(day(articles, articles + A_DAY), more))
        again, wall, made, fresh = cleaned(cleaner, home)
        print(f"a new day: {made:,} rows, {fresh:,} captures cleaned, {again:.1f} CPU-s, {wall:.1f} s")
        print(f"share {again / whole:.1%}")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, Path), sys.argv[1:], strict=False)))
