"""By which pieces of text a forgotten post is found again wherever it was copied, and which pieces prove nothing.

A line that stands in a page's markup, in a log of Dagster or in many posts is nobody's own. It may be somebody's post
all the same: the post goes by its id, and the line is then no reason to touch anything else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

import polars as pl

from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.quality import PLACEHOLDER
from persona_dagster.lineage import byte_search
from persona_dagster.lineage.dagster_storage import FORGOTTEN_MARK
from persona_dagster.settings import PROJECT_ROOT, Settings

# A line this long hardly occurs twice by chance: who has it, quotes or repeats it. Shorter ones are no proof.
MIN_LINE = byte_search.WINDOW
# In more rows than this, a line is a signature ("Sent from…") or a header, and nobody's own.
BOILERPLATE = 5
# Lines of the site, at a page's head and foot: they begin as those of many others do.
SITE_LINE = r"^(?:(?:時間|日期)[:：]?\s|※ \S{2,4}[:：])"
# What marks a line as repeated: a quotation's sign, a title's prefix.
REPEATED = r"^(?:標題 )?(?:(?:Re|Fw): ?|[:>：] ?)+"
PROGRAMS = ("dagster", "dagster_shared", "dagster_pipes", "persona_dagster")
SOURCES = (".py", ".yaml", ".j2", ".html", ".sql", ".css", ".json")

WHOSE = ("created_at", "author_key", "thread_id")
SAID = pl.concat_str(pl.col("text_raw", "text", "quoted", "title").fill_null(""), separator="\n")


def lines_of(gone: pl.DataFrame, posts: pl.DataFrame) -> list[str]:
    """The lines by which the rows' text is found again: long ones, but for those that many others have as well, and
    those that somebody else said before: who quotes or echoes them is not whose they are."""

    def lines(frame: pl.DataFrame) -> pl.DataFrame:
        said = SAID.str.replace_all(FORGOTTEN_MARK, "\n", literal=True)  # of an earlier forgetting
        every = frame.select("doc_id", *WHOSE, line=said.str.split("\n")).explode("line")
        every = every.with_columns(pl.col("line").str.replace(REPEATED, "").str.strip_chars()).filter(
            pl.col("line").str.replace_all(PLACEHOLDER, "").str.len_chars() >= MIN_LINE,
            ~pl.col("line").str.contains(SITE_LINE),
        )
        return every.unique()

    others = posts.join(gone.select("doc_id"), on="doc_id", how="anti")
    usual = lines(others).group_by("line").len().filter(pl.col("len") > BOILERPLATE)
    own = lines(gone).join(usual, on="line", how="anti")
    own = own.group_by("line").agg(pl.col("created_at").min(), "author_key", "thread_id")
    if not (said := own["line"].to_list()):
        return []
    again = others.filter(SAID.str.contains_any(said))
    again = again.select(*WHOSE, line=SAID.str.extract_many(said, overlapping=True)).explode("line")
    # Another person's: an earlier row of the same author, or of nobody known in another thread, may be a copy.
    theirs = (~pl.col("author_key").is_in("author_key_own")).fill_null(pl.col("thread_id").is_in("thread_id_own"))
    before = again.join(own, on="line", suffix="_own").filter(pl.col("created_at") < pl.col("created_at_own"), theirs)
    return own.join(before, on="line", how="anti")["line"].sort().to_list()


def pieces_of(lines: Iterable[str]) -> list[str]:
    return sorted({piece for line in lines for piece in byte_search.windows(line)})


def own_pieces(
    lines: Iterable[str],
    said: pl.Series,
    markup: Callable[[Collection[bytes]], Iterable[bytes]],
    settings: Settings,
) -> list[str]:
    """The pieces of the lines that stand nowhere else by right: not in what others said (`said`), not in archived
    bytes that hold nothing of the post (`markup`, given what to look for), not in the personas' prompts nor in any
    program's text."""
    pieces = pieces_of(lines)
    prompts = [
        (one.system_prompt, *one.probes)
        for one in load_personas(settings.config_dir, settings.accepted_dir).personas.values()
    ]
    ours = pl.Series("said", [text for texts in prompts for text in texts], dtype=pl.String)
    common = _standing_in(pieces, pl.concat([said.alias("said"), ours]))
    left = [piece for piece in pieces if piece not in common]
    common |= _standing_in(left, pl.Series("said", list(_programs()), dtype=pl.String)) if left else set()
    left = [piece for piece in left if piece not in common]
    common |= _in_bytes(left, markup) if left else set()
    return [piece for piece in left if piece not in common]


def _standing_in(pieces: list[str], texts: pl.Series) -> set[str]:
    if not pieces:
        return set()
    return set(texts.str.extract_many(pieces, overlapping=True).explode().drop_nulls())


def _in_bytes(pieces: list[str], bodies: Callable[[Collection[bytes]], Iterable[bytes]]) -> set[str]:
    by_spelling = {spelling: piece for piece in pieces for spelling in byte_search.spellings(piece)}
    return {by_spelling[spelling] for spelling in byte_search.occurring_in(bodies(by_spelling), by_spelling)}


@cache
def _programs() -> tuple[str, ...]:
    """The text of the programs whose words stand in logs, storage and pages: ours and Dagster's."""
    folders = [
        Path(spec.origin).parent for name in PROGRAMS if (spec := importlib.util.find_spec(name)) and spec.origin
    ]
    return tuple(_texts([*folders, PROJECT_ROOT / "docs"]))


def _texts(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            # The sample's posts are texts of people, if invented ones.
            if path.suffix in SOURCES and "sample" not in path.parts and path.is_file():
                yield path.read_text(encoding="utf-8", errors="replace")
