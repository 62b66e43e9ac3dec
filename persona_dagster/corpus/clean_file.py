"""A file cleaned outside the graph, by the graph's own steps: taken in to a home of its own, parsed, cleaned, written.

What `persona import` reads comes out as JSON lines in the import schema, compressed where the name says so.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import polars as pl
import zstandard

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import writing
from persona_dagster.config.sources import IMPORT_BOARD, Sources
from persona_dagster.corpus.clean import Simplified
from persona_dagster.corpus.funnel import Funnel
from persona_dagster.corpus.incremental_cleaning import BoardCleaner
from persona_dagster.corpus.quality import usable
from persona_dagster.intake.file_formats import Options
from persona_dagster.intake.import_to_archive import STORED, Intake, places_of, take_in
from persona_dagster.intake.open_and_decode import IntakeError
from persona_dagster.intake.schema import SOURCES
from persona_dagster.records import Source
from persona_dagster.settings import Settings

AuthorKey = Callable[[str, str], str]  # of a source and an author
COLUMNS = (
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
)
JUDGED = ("lang", "quoted", "flags", "usable")


def clean_file(
    src: Path,
    dst: Path,
    sources: Sources,
    *,
    simplified: Simplified = "convert",
    personas: Mapping[str, Any] | None = None,
    author_key: AuthorKey | None = None,
    options: Options | None = None,
    name_model: str | None = None,
) -> Funnel:
    """`src` cleaned into `dst` (JSON lines, put in place whole); returns what was read and what the rules did.

    `author_key` (source, author) names authors in `dst`; without it they are left out. Rows that cannot be read are
    counted by reason, and named in the funnel's `problems`. Raises `IntakeError` where nothing can be read.
    """
    src = src.resolve()
    with TemporaryDirectory(prefix="persona-clean-") as folder:
        settings = Settings(home=Path(folder), archive_url=None)
        settings.imports_dir.mkdir(parents=True)
        (settings.imports_dir / src.name).symlink_to(src)
        archive = Archive(settings.raw_dir)
        done = take_in(
            settings, archive, denied=sources.denied_boards, options={src.name: options} if options else None
        )
        if not done.fates[STORED]:
            raise IntakeError(
                src.name, "; ".join(done.problems) or "holds no rows", "See docs/own-data.md for what is read"
            )
        places = places_of(settings.intake_dir)
        funnel, cleaned = _read(done), []
        for source in cast(tuple[Source, ...], SOURCES):
            if not archive.parts(source, IMPORT_BOARD):
                continue
            key = partial(author_key, source) if author_key else str  # nobody is named below without one
            cleaner = BoardCleaner(
                source, archive, sources, personas or {}, key, settings.cleaned_dir, simplified, name_model
            )
            result, _ = cleaner.clean([IMPORT_BOARD], places)
            funnel.add(result.funnel)
            place = pl.col("snapshot").replace_strict(places, default=0, return_dtype=pl.Int64)
            cleaned.append(result.frame.with_columns(usable().alias("usable"), place.alias("place")))
    funnel.rows_in = done.fates.total()
    out = pl.concat(cleaned) if cleaned else None
    if out is None:
        raise IntakeError(src.name, "holds no posts", "Dialogues and notes are not cleaned by forum rules")
    out = out.sort("place", maintain_order=True)
    rows = out.rename({"post_id": "id", "author_key": "author"}).with_columns(
        pl.col("created_at").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"),
        pl.when(author_key is not None).then("author").alias("author"),
    )
    with writing(dst) as fresh, fresh.open("wb") as file, _packed(file, dst.suffix) as target:
        rows.select(*COLUMNS, *JUDGED).write_ndjson(target)
    return funnel


def _read(done: Intake) -> Funnel:
    funnel = Funnel(problems=done.problems)
    funnel.removed.update({fate: count for fate, count in done.fates.items() if fate != STORED})
    return funnel


def _packed(file: IO[bytes], suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0))
    if suffix == ".zst":
        return cast(IO[bytes], zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False))
    return cast(IO[bytes], io.BufferedWriter(cast(io.RawIOBase, file)))
