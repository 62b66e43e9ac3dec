"""A dump cleaned outside the graph: the same steps over JSON lines, in batches, so that memory stays flat.

Reads and writes the import schema (`source`, `kind`, `text`, …); compressed where the name ends in .gz or .zst.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import zstandard

from persona_dagster.artifacts import writing
from persona_dagster.config.sources import Sources
from persona_dagster.corpus.clean import Simplified, clean_posts
from persona_dagster.corpus.funnel import Funnel
from persona_dagster.corpus.labels import standardise_source
from persona_dagster.corpus.quality import usable
from persona_dagster.corpus.rules import KINDS, SOURCES
from persona_dagster.records import POST_SCHEMA

AuthorKey = Callable[[str, str], str]  # of a source and an author
BATCH_BYTES = 12 << 20  # about 30,000 posts: under 500 MB with all columns of a batch in memory (16: 529 MB)
# The import schema; what a row has besides is not written again.
ROW_SCHEMA = pl.Schema(
    dict.fromkeys(
        (
            "source",
            "kind",
            "id",
            "parent_id",
            "board",
            "title",
            "text",
            "author",
            "created_at",
            "score",
            "tag",
            "floor",
        ),
        pl.String(),
    )
    | {"flags": pl.List(pl.String)}  # of a dump that was cleaned before
)


UNSAID = (
    "thread_id",
    "url",
    "created_at",
    "text",
    "quoted",
    "score",
    "floor",
    "lang",
    "dup_of",
    "fetched_at",
    "snapshot",
)


class DumpFormatError(ValueError):
    """A file that is not JSON lines in the import schema."""


def _reader(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    file = path.open("rb")
    if path.suffix == ".zst":
        return cast(IO[bytes], io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, closefd=True)))
    return file


def _writer(file: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0))
    if suffix == ".zst":
        return cast(IO[bytes], zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False))
    return cast(IO[bytes], io.BufferedWriter(cast(io.RawIOBase, file)))


def batches(path: Path, size: int = BATCH_BYTES) -> Iterator[pl.DataFrame]:
    """The rows of a dump, a frame of `ROW_SCHEMA` at a time."""
    with _reader(path) as file:
        number, rest = 0, b""
        while chunk := file.read(size):
            block, cut, rest = (rest + chunk).rpartition(b"\n")
            if cut:
                yield _rows(block, path, number)
                number += 1
        if rest.strip():
            yield _rows(rest, path, number)


def _rows(block: bytes, path: Path, number: int) -> pl.DataFrame:
    try:
        frame = pl.read_ndjson(block, schema=ROW_SCHEMA)
    except pl.exceptions.PolarsError as error:
        raise DumpFormatError(
            f"{path}: block {number} ({BATCH_BYTES >> 20} MB each) is not one JSON object a line: {error}"
        ) from error
    spelt = {name: standardise_source(name) or name for name in frame["source"].drop_nulls().unique()}
    frame = frame.with_columns(pl.col("source").replace(old=spelt))
    strange = frame.filter(
        ~pl.col("source").is_in(SOURCES) | ~pl.col("kind").is_in(list(KINDS)) | pl.col("source").is_null()
    )
    if len(strange):
        raise DumpFormatError(
            f"{path}: block {number} holds {len(strange)} rows of unknown source or kind, the first "
            f"{strange['source'][0]!r}, {strange['kind'][0]!r}; known are {', '.join(SOURCES)} and {', '.join(KINDS)}"
        )
    return frame


def as_posts(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a dump as posts: what the dump does not say stays null."""
    return rows.select(
        "source", "kind", "parent_id", "title", "tag",
        pl.col("board").fill_null("import"),
        pl.col("id").fill_null(pl.int_range(pl.len()).cast(pl.String)).alias("post_id"),
        pl.col("text").fill_null("").alias("text_raw"),
        pl.col("author").alias("author_key"),
        *(pl.lit(None, dtype=POST_SCHEMA[name]).alias(name) for name in UNSAID),
        # What went into the row before it went there once and for all; the rest is judged anew.
        pl.col("flags").fill_null([]).list.set_intersection(["joined"]),
    ).select(list(POST_SCHEMA))  # fmt: skip


def _pseudonyms(rows: pl.DataFrame, author_key: AuthorKey | None) -> pl.Series:
    """Authors by key; nobody, without one."""
    pairs = rows.select("source", "author")
    keys = {pair: author_key(*pair) for pair in pairs.drop_nulls().unique().iter_rows()} if author_key else {}
    return pl.Series("author", [keys.get(pair) for pair in pairs.iter_rows()], dtype=pl.String)


def clean_batch(
    rows: pl.DataFrame,
    sources: Sources,
    funnel: Funnel,
    *,
    simplified: Simplified = "convert",
    personas: Mapping[str, Any] | None = None,
    author_key: AuthorKey | None = None,
) -> pl.DataFrame:
    """One batch cleaned: the import schema again, with `text` clean and `lang`, `quoted`, `flags`, `usable` added."""
    posts = as_posts(rows).with_row_index("place")
    cleaned = []
    for (source,), part in posts.group_by("source", maintain_order=True):
        denied = [board.casefold() for board in sources.denied_boards]
        kept = part.filter(~pl.col("board").str.to_lowercase().is_in(denied))
        result = clean_posts(part.drop("place"), str(source), sources, simplified=simplified, personas=personas)
        funnel.add(result.funnel)
        cleaned.append(result.frame.with_columns(kept["place"], usable().alias("usable")))
    out = pl.concat(cleaned).sort("place")
    carried = rows.select("id", _pseudonyms(rows, author_key), "created_at", "score", "floor")[out["place"]]
    return pl.concat(
        [
            out.select(
                "source", "kind", "parent_id", "board", "title", "text", "tag", "lang", "quoted", "flags", "usable"
            ),
            carried,
        ],
        how="horizontal",
    )


def clean_file(
    src: Path,
    dst: Path,
    sources: Sources,
    *,
    simplified: Simplified = "convert",
    personas: Mapping[str, Any] | None = None,
    author_key: AuthorKey | None = None,
) -> Funnel:
    """`src` cleaned into `dst` (JSON lines, put in place whole); returns what the rules did.

    `author_key` (source, author) names authors in `dst`; without it they are left out.
    Floods and copypasta are judged within a batch of 12 MB. Raises DumpFormatError naming the file and block.
    """
    funnel = Funnel()
    with writing(dst) as fresh, fresh.open("wb") as file, _writer(file, dst.suffix) as target:
        for rows in batches(src):
            clean_batch(
                rows, sources, funnel, simplified=simplified, personas=personas, author_key=author_key
            ).write_ndjson(target)
    return funnel
