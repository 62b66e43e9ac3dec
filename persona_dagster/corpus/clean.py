"""Parsed posts in, posts that an expert would train on out: the order of the steps.

mask `text_raw` and the own words that the parser gave -> rules until nothing moves -> join cut pushes -> Simplified
to Taiwanese -> mask what came to light -> flags. Rows are flagged, never dropped; only denied boards leave, counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from persona_dagster.config.sources import IMPORT_BOARD, Sources
from persona_dagster.corpus import language, privacy
from persona_dagster.corpus.canonical_names import standardise_boards, standardise_tags
from persona_dagster.corpus.funnel import Funnel
from persona_dagster.corpus.personal_data.name_model import mask_names
from persona_dagster.corpus.quality import repeated, row_flags, usable, with_values
from persona_dagster.corpus.rule_engine import apply_rules
from persona_dagster.corpus.rules import FORUM, KINDS, MAX_PASSES, rules_for
from persona_dagster.pipes_reporting import progress
from persona_dagster.records import FORUMS, POST_SCHEMA, Columns
from persona_dagster.sites.ptt import quotes_and_line_wrapping
from persona_dagster.sites.ptt.merge_cut_pushes import join_pushes

Simplified = Literal["convert", "flag"]
SLICE = 20_000  # rows; a hundred million characters at most


# What `Cleaning.rows` leaves for `Cleaning.board`, besides the columns of a post.
WORKING: Columns = {
    "own": pl.String,  # of a push what its own line says, where `text` differs
    "before": pl.List(pl.String),  # its flags before pushes were joined
    "head": pl.String,  # its text with what went on below, before the last steps
    "tail": pl.Boolean,  # it went into the one before
    "words": pl.UInt32,
    "squeezed": pl.UInt64,  # of the letters of a text that can be told from others
}


@dataclass
class Cleaned:
    frame: pl.DataFrame  # records.POST_SCHEMA, rows in their order
    funnel: Funnel


def _spelt(texts: pl.Series) -> pl.Series:
    """The parsers already put <user> (<nick>) and <ip> where the site itself prints them."""
    return texts.str.replace_all(r"@?<user>(?: ?\(<nick>\))?|<nick>", "<USER>").str.replace_all("<ip>", "<IP>")


def _mask(frame: pl.DataFrame, column: str, counts: Counter[str], name_model: str | None) -> pl.DataFrame:
    masked, found = privacy.mask_series(_spelt(frame[column]))
    counts.update(found)
    if name_model:
        masked, names = mask_names(masked, name_model)
        counts["NAME"] += names
    return frame.with_columns(masked.alias(column))


def _mask_forum(frame: pl.DataFrame, counts: Counter[str], name_model: str | None) -> pl.DataFrame:
    """Titles, quotes and both levels. Where the raw one shows nobody, the other, which is of it, does not either."""
    plain = _spelt(frame["text_raw"])
    for column in ("text_raw", "title", "quoted"):
        frame = _mask(frame, column, counts, name_model)
    found = (frame["text_raw"] != plain).arg_true()
    texts = _spelt(frame["text"])
    return frame.with_columns(texts.scatter(found, privacy.mask_series(texts.gather(found))[0]).alias("text"))


def _deny(frame: pl.DataFrame, sources: Sources, funnel: Funnel) -> pl.DataFrame:
    denied = [board.casefold() for board in sources.denied_boards]
    kept = frame.filter(~pl.col("board").fill_null("").str.to_lowercase().is_in(denied))
    if len(kept) < len(frame):
        funnel.removed["denied_board"] += len(frame) - len(kept)
    return kept


def _flag(frame: pl.DataFrame, rows: pl.Series, flag: str) -> pl.DataFrame:
    if not len(rows):
        return frame
    here = pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(frame)).scatter(rows, True)
    return frame.with_columns(
        pl.when(here).then(pl.col("flags").list.concat(pl.lit([flag]))).otherwise(pl.col("flags")).alias("flags")
    )


def _run_rules(frame: pl.DataFrame, source: str, funnel: Funnel) -> pl.DataFrame:
    """`text` by the rules of each row's kind, `title` by those of titles, `quoted` by those of posts."""
    kinds = frame["kind"].replace_strict(KINDS, default="post", return_dtype=pl.String)
    for kind in kinds.unique().sort():
        rows = (kinds == kind).arg_true()
        cleaned, unsettled = apply_rules(frame["text"].gather(rows), rules_for(source, kind), funnel.trace)
        frame = frame.with_columns(frame["text"].clone().scatter(rows, cleaned))
        frame = _flag(frame, rows.filter(unsettled), "unstable")
    for column, kind in (("title", "title"), ("quoted", "post")):
        rows = frame[column].is_not_null().arg_true()
        if len(rows):
            cleaned, _ = apply_rules(frame[column].gather(rows), rules_for(source, kind), funnel.trace)
            frame = frame.with_columns(frame[column].clone().scatter(rows, cleaned))
    return frame


def _own_words(frame: pl.DataFrame, source: str, funnel: Funnel) -> pl.DataFrame:
    """`text` by the rules. What they take off a PTT line can make it a wrapped one, or a quote: until that settles."""
    frame = _run_rules(frame, source, funnel)
    post = pl.col("kind").replace_strict(KINDS, default="post").eq("post")
    marked = post & pl.col("text").str.contains(quotes_and_line_wrapping.GATE)
    rows = frame.select(marked.arg_true()).to_series() if source == "ptt" else pl.Series(dtype=pl.UInt32)
    for _ in range(MAX_PASSES):
        before = frame["text"].gather(rows)
        parted = [quotes_and_line_wrapping.take_apart(text) for text in before]
        own = pl.Series([words.own for words in parted], dtype=pl.String)
        moved = (own != before).arg_true()
        rows = rows.gather(moved)
        if not len(rows):
            break
        quoted = pl.Series([parted[place].quoted for place in moved], dtype=pl.String)
        again = frame[rows].with_columns(own.gather(moved).alias("text"), pl.coalesce("quoted", quoted))
        again = _run_rules(again, source, Funnel())
        frame = frame.with_columns(frame[name].clone().scatter(rows, again[name]) for name in ("text", "quoted"))
    return frame


def _languages(frame: pl.DataFrame, simplified: Simplified) -> pl.DataFrame:
    frame = frame.with_columns(language.language(pl.col("text")).alias("lang"))
    rows = (frame["lang"] == "zh-Hans").arg_true()
    if not len(rows):
        return frame
    if simplified == "flag":
        return _flag(frame, rows, "simplified")
    converted = language.convert(frame["text"].gather(rows))
    return _flag(frame.with_columns(frame["text"].clone().scatter(rows, converted)), rows, "converted")


def clean_posts(
    frame: pl.DataFrame,
    source: str,
    sources: Sources,
    *,
    personas: Mapping[str, Any] | None = None,
    simplified: Simplified = "convert",
    name_model: str | None = None,
) -> Cleaned:
    """Posts of one source as parsed (`records.POST_SCHEMA`), with `text` at the clean level.

    `text_raw`, `text`, `title` and `quoted` come out with personal data masked; `lang` and `flags` are set;
    `dup_of` is left to `mark_duplicates`. With `personas` (config.personas) a label that a text begins with becomes
    the persona's tag. `name_model`: what finds names beside the rules (Settings). Rows keep their order.
    """
    cleaning = Cleaning(source, sources, personas, simplified, name_model)
    rows = cleaning.rows(frame.select(list(POST_SCHEMA)))
    return cleaning.board(rows.frame, rows.funnel)


@dataclass(frozen=True)
class Cleaning:
    """The two halves of cleaning: `rows`, nearly all of the work, for any part of a board; and `board`, for what only
    all of its rows tell together."""

    source: str
    sources: Sources
    personas: Mapping[str, Any] | None = None
    simplified: Simplified = "convert"
    name_model: str | None = None

    def rows(self, frame: pl.DataFrame) -> Cleaned:
        """Some of a board's rows, in their order. The frame has the columns of `WORKING` besides, for `board`."""
        funnel, source = Funnel(rows_in=len(frame)), self.source
        frame = frame.with_columns(pl.col(name).cast(kind) for name, kind in POST_SCHEMA.items())
        frame = _deny(frame, self.sources, funnel)
        frame = frame.with_columns(pl.col("flags").fill_null([]), pl.col("text_raw").fill_null(""))
        frame = frame.with_columns(pl.coalesce("text", "text_raw").alias("text"))
        frame = _in_slices(frame, f"{source}: rows by the rules", lambda rows: self._stripped(rows, funnel))
        frame = _joined(frame) if source == "ptt" else frame.with_columns(_nothing("own", "before", "head", "tail"))
        frame = _in_slices(frame, f"{source}: languages, personal data", lambda rows: self._finished(rows, funnel))
        own = pl.when((pl.col("own") != pl.col("text")) & (pl.col("kind") == "comment")).then("own")
        return Cleaned(frame.with_columns(own), funnel)

    def board(self, frame: pl.DataFrame, funnel: Funnel) -> Cleaned:
        """A board's rows, each as `rows` made it, with what depends on the others: pushes that were cut, texts that
        stand there too often, how the board is spelt. Counts go to `funnel`."""
        if self.source in FORUM:
            known = self.sources.site(self.source).boards if self.source in FORUMS else ()
            boards, unlisted = standardise_boards(frame["board"], known)
            del unlisted[IMPORT_BOARD]  # no board, but where rows without one lie
            frame = frame.with_columns(boards)
            funnel.unknown_labels.update(unlisted if known else {})
            frame = repeated(self._rejoined(frame, funnel) if self.source == "ptt" else frame)
        frame = frame.select(list(POST_SCHEMA))
        funnel.rows_in = len(frame) + funnel.removed.total()
        funnel.rows_out = len(frame)
        funnel.usable = frame.select(usable().sum()).item()
        funnel.flags.update(frame["flags"].explode().drop_nulls().to_list())
        funnel.languages.update(frame["lang"].to_list())
        return Cleaned(frame, funnel)

    def _rejoined(self, frame: pl.DataFrame, funnel: Funnel) -> pl.DataFrame:
        """Pushes joined as the whole board's order has it; `rows` saw only some of it, and is right but for a few."""
        given = frame.with_columns(pl.coalesce("own", "text").alias("text"), pl.col("before").alias("flags"))
        joined = _joined(given)
        rows = (joined["tail"].ne_missing(frame["tail"]) | joined["head"].ne_missing(frame["head"])).arg_true()
        if not len(rows):
            return frame
        again = self._finished(joined[rows], funnel)
        return with_values(frame, again.select("text", "lang", "flags", "words", "squeezed", row=rows))

    def _stripped(self, frame: pl.DataFrame, funnel: Funnel) -> pl.DataFrame:
        """Personal data masked, and `text` by the rules."""
        if self.source in FORUM:
            frame = _mask_forum(frame, funnel.personal_data, self.name_model)
        less = (frame["text"] != frame["text_raw"]).arg_true()
        if len(less):
            funnel.trace.note("not_the_authors_own", frame["text_raw"].gather(less), frame["text"].gather(less))
        return _own_words(frame, self.source, funnel)

    def _finished(self, frame: pl.DataFrame, funnel: Funnel) -> pl.DataFrame:
        """`lang` set, Simplified text converted, what came to light masked; flags of each row by itself."""
        if self.source in FORUM:
            masked = _mask(_languages(frame, self.simplified), "text", funnel.personal_data, self.name_model)
            frame = row_flags(masked)
        else:
            lang = language.language(pl.col("text"))
            frame = frame.with_columns(lang.alias("lang"), *_nothing("words", "squeezed"))
        if self.personas:
            tagged, unknown = standardise_tags(frame["text"], self.personas)
            frame = frame.with_columns(tagged.alias("text"))
            funnel.unknown_labels.update(unknown)
        return frame


def _nothing(*names: str) -> list[pl.Expr]:
    return [pl.lit(None, WORKING[name]).alias(name) for name in names]


def _joined(frame: pl.DataFrame) -> pl.DataFrame:
    """Cut pushes whole, as far as these rows show, and the columns of `WORKING` about it: more rows may show more."""
    whole, tails = join_pushes(frame)
    moved = whole["text"] != frame["text"]
    tail = pl.Series([False], dtype=pl.Boolean).new_from_index(0, len(frame)).scatter(tails, True)
    return _flag(whole, tails, "joined").with_columns(
        own=frame["text"], before=frame["flags"], tail=tail, head=pl.when(moved).then(whole["text"])
    )


def _in_slices(frame: pl.DataFrame, what: str, step: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """What concerns each row alone, over so many rows at a time that its copies of columns stay small."""
    if len(frame) <= SLICE:
        return step(frame)
    done: list[pl.DataFrame] = []
    for rows in frame.iter_slices(SLICE):
        progress(what, len(done) * SLICE, len(frame))
        done.append(step(rows))
    progress(what, len(frame), len(frame))
    return pl.concat(done)
