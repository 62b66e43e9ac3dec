"""What a forgetting would do, worked out whole before anything is touched: rows, captures, models, and who else.

A post takes its page and the comments on it; a comment is cut out of its page, which stays. Rows of others that quote a
forgotten line lose the line, and stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import orjson
import polars as pl

from persona_dagster.archive.archive import LISTS, Archive
from persona_dagster.corpus.parsing import parse_capture
from persona_dagster.digest import author_key, text_digest
from persona_dagster.lineage import backup_copies, byte_search, distinctive_phrases, stored_artifacts, tombstones
from persona_dagster.lineage.distinctive_phrases import SAID
from persona_dagster.records import DocId, RowId, Source
from persona_dagster.settings import Settings
from persona_dagster.sites.threads import redaction as threads

SOURCES: tuple[Source, ...] = get_args(Source)
ANSWERS = ("comment", "reply")


class UnknownTargetError(ValueError):
    """Nothing stored goes by that name; the message says which forms there are."""


@dataclass(frozen=True, slots=True)
class Home:
    """One home to purge: the operator's, or a copy of it. `roots`: the folders that are searched."""

    settings: Settings
    roots: tuple[Path, ...]
    label: str = ""  # before file names in the report

    def archive(self) -> Archive:
        return Archive(self.settings.archive_url or self.settings.raw_dir)

    def name(self, path: Path) -> str:
        return self.label + next(str(path.relative_to(root)) for root in self.roots if path.is_relative_to(root))


@dataclass(slots=True)
class HomePlan:
    """What one home loses. `keys`: captures that go whole, `source/board/key`. `cuts`: `source/board/sha256` of
    captures out of which these post_ids are cut. `quoting`: captures in which others repeat a line."""

    home: str
    keys: list[str] = field(default_factory=list)
    cuts: dict[str, list[str]] = field(default_factory=dict)
    quoting: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    mixes: list[str] = field(default_factory=list)  # recipe/digest
    adapters: dict[str, list[str]] = field(default_factory=dict)  # recipe/digest: the rows it was trained on


@dataclass(slots=True)
class ForgetPlan:
    """Ids, hashes and counts: no text, and no name."""

    target: str
    query: str  # hash of what was asked, to know it again
    at: str
    docs: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    authors: list[str] = field(default_factory=list)
    own: int = 0  # rows of the target itself
    others: int = 0  # rows of other people that go along, below its pages
    cut: int = 0  # rows of other people that lose a quoted line, and stay
    homes: list[HomePlan] = field(default_factory=list)

    @property
    def id(self) -> str:
        return text_digest(self.query, *self.docs)[:16]

    @property
    def captures(self) -> int:
        return sum(len(home.keys) + len(home.cuts) + len(home.quoting) for home in self.homes)

    @property
    def size(self) -> int:
        """What a limit is held against: rows of others, and captures that go or change, but for one post's own."""
        return self.others + self.cut + self.captures

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ForgetPlan:
        return cls(**value | {"homes": [HomePlan(**home) for home in value["homes"]]})

    def markdown(self) -> str:
        first = self.homes[0] if self.homes else HomePlan("")
        lines = [
            f"**To be forgotten: {self.target}**",
            f"- rows: {self.own} of its own, {self.others} of other people below its pages; {self.cut} rows of others "
            "lose a quoted line and stay",
            f"- captures: {len(first.keys)} go, {len(first.cuts)} have comments cut out, {len(first.quoting)} a quote",
            f"- dialogues: {len(first.pairs)}; mixes: {', '.join(first.mixes) or 'none'}",
            *(f"- adapter {name} becomes stale: {len(rows)} rows" for name, rows in first.adapters.items()),
            f"- homes and backups gone through: {len(self.homes)}",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for: the query, the author keys that it may stand for, and the author's name if it gives one."""

    query: str
    authors: list[str]
    name: str | None
    docs: frozenset[str] = frozenset()  # of tombstones: all at once

    @classmethod
    def again(cls, stones: list[tombstones.Tombstone]) -> Target:
        docs = frozenset(doc for stone in stones for doc in stone.docs)
        return cls("what had been forgotten", sorted({key for stone in stones for key in stone.authors}), None, docs)

    @classmethod
    def of(cls, query: str, settings: Settings) -> Target:
        if query.startswith("http") or query.count(":") > 1:
            return cls(query, [], None)
        source, _, name = query.partition(":")
        return cls(query, [author_key(settings.author_secret, source, name)] if name else [query], name or None)

    @property
    def label(self) -> str:
        """The query without a name."""
        return f"an author of {self.query.partition(':')[0]}" if self.name else self.query

    @property
    def digest(self) -> str:
        return text_digest("forget", self.query)


def homes_of(settings: Settings) -> list[Home]:
    """The home itself, then every copy of it that is there."""
    storage = backup_copies.dagster_home(settings)
    outside = () if storage.resolve().is_relative_to(settings.home.resolve()) else (storage,)
    return [
        Home(settings, (settings.home, *outside)),
        *(copy_of(path, settings) for path in backup_copies.present(settings)),
    ]


def copy_of(path: Path, settings: Settings) -> Home:
    return Home(Settings(home=path, archive_url=None, profile=settings.profile), (path,), f"{path.name}/")


@dataclass(slots=True)
class _Chosen:
    """Rows of one home: the target's own, those below its pages, and those of others that quote it."""

    own: pl.DataFrame
    gone: pl.DataFrame
    quoting: pl.DataFrame
    kept: pl.DataFrame
    lines: list[str]


def make_plan(target: Target, settings: Settings, at: str) -> tuple[ForgetPlan, list[str]]:
    """The plan, and the pieces of text by which copies are found.

    Raises:
        UnknownTargetError: nothing stored goes by that name.
    """
    homes = homes_of(settings)
    chosen = [_choose(target, home) for home in homes]
    keyed = [_at_url(home, target.query) for home in homes]
    if all(found.gone.is_empty() and not keys for found, keys in zip(chosen, keyed, strict=True)):
        raise UnknownTargetError(
            f"{target.query!r} names nothing stored: give the URL of a post, a doc_id (source:board:id) or "
            "source:author"
        )
    plan = ForgetPlan(target.label, target.digest, at, authors=target.authors if chosen[0].own.height else [])
    plan.docs = sorted({doc for found in chosen for doc in found.gone["doc_id"]})
    plan.pages = sorted({doc for found in chosen for doc in _pages(found.own)["doc_id"]})
    plan.authors = target.authors if any(_by_author(found, target) for found in chosen) else []
    plan.own, plan.others = chosen[0].own.height, chosen[0].gone.height - chosen[0].own.height
    for home, found, keys in zip(homes, chosen, keyed, strict=True):
        plan.homes.append(_home_plan(home, found, keys, by_author=_by_author(found, target)))
    pieces = distinctive_phrases.own_pieces(
        [line for found in chosen for line in found.lines],
        # PTT prints a page's address below its text, and a reply that is kept names it: no id is anybody's words.
        pl.concat([said for found in chosen for said in (found.kept.select(said=SAID)["said"], found.gone["url"])]),
        lambda spellings: _elsewhere(
            homes,
            plan,
            [_snapshots(found.quoting, home.archive()) for home, found in zip(homes, chosen, strict=True)],
            spellings,
        ),
        settings,
    )
    for home, found, of in zip(homes, chosen, plan.homes, strict=True):
        quoting = found.quoting.filter(SAID.str.contains_any(pieces)) if pieces else found.quoting.clear()
        plan.cut += quoting.height if home is homes[0] else 0
        places = {*of.keys, *of.cuts}
        of.quoting = sorted(name for name in _snapshots(quoting, home.archive()) if name not in places)
        _downstream(home, plan.docs, pieces, of)
    return plan, pieces


def _by_author(found: _Chosen, target: Target) -> bool:
    return bool(target.authors) and found.own["author_key"].is_in(target.authors).any()


def _choose(target: Target, home: Home) -> _Chosen:
    posts = stored_artifacts.posts(home.settings)
    own = posts.filter((pl.col("url") == target.query) | (pl.col("doc_id") == target.query))
    if target.docs:
        own = posts.filter(pl.col("doc_id").is_in(list(target.docs)) | pl.col("author_key").is_in(target.authors))
    elif own.is_empty() and target.authors:
        own = posts.filter(pl.col("author_key").is_in(target.authors))
    elif own.height > 1 and not _pages(own).is_empty():
        own = _pages(own)  # a page's URL names its comments too: they are others' rows
    gone = pl.concat([own, _below(_pages(own), posts)]).unique(["doc_id", "kind"], maintain_order=True)
    lines = distinctive_phrases.lines_of(gone, posts)
    rest = posts.join(gone.select("doc_id"), on="doc_id", how="anti")
    quoting = rest.filter(SAID.str.contains_any(lines)) if lines else rest.clear()
    kept = rest.join(quoting.select("doc_id"), on="doc_id", how="anti")
    return _Chosen(own, gone, quoting, kept, lines)


def _pages(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(~pl.col("kind").is_in(ANSWERS))


def _below(pages: pl.DataFrame, posts: pl.DataFrame) -> pl.DataFrame:
    """Comments of the pages, and what answers those: an author's word under a comment stands on the page as well."""
    answers = posts.filter(pl.col("kind").is_in(ANSWERS))
    levels = [pages]
    while not levels[-1].is_empty():
        above = levels[-1].select("source", parent_id="post_id")
        answered = answers.join(above, on=["source", "parent_id"], how="semi")
        levels.append(answered)
        answers = answers.join(answered.select("doc_id"), on="doc_id", how="anti")
    return pl.concat([posts.clear(), *levels[1:]])


def _snapshots(rows: pl.DataFrame, archive: Archive) -> set[str]:
    """`source/board/sha256` of the captures that rows were parsed from, as they are stored since others were cut."""
    named = rows.filter(pl.col("snapshot").is_not_null())
    found = set()
    for (source, board), some in named.group_by("source", "board"):
        now = archive.stored_as(str(source), str(board))
        found |= {f"{source}/{board}/{now.get(digest, digest)}" for digest in some["snapshot"].unique()}
    return found


def _at_url(home: Home, url: str) -> set[str]:
    archive = home.archive()
    return {
        f"{source}/{board}/{seen.key}"
        for source in SOURCES
        for board in archive.boards(source)
        for seen in archive.index(source, board).every()
        if seen.url == url
    }


def _home_plan(home: Home, found: _Chosen, keys: set[str], *, by_author: bool) -> HomePlan:
    """Captures: every version of a page that holds the target's post goes; out of the others its comments are cut."""
    archive, of = home.archive(), HomePlan(str(home.settings.home), sorted(keys))
    pages = {name.rsplit("/", 1)[1] for name in _snapshots(_pages(found.own), archive)}
    answers = found.own.filter(pl.col("kind").is_in(ANSWERS))
    wanted = set(answers["doc_id"])
    cut_from = {name.rsplit("/", 1)[1] for name in _snapshots(answers, archive)}
    for source in SOURCES:
        for board in archive.boards(source):
            index = archive.index(source, board)
            every = [*index.every()]
            whole = {seen.key for seen in every if seen.sha256 in pages}
            of.keys = sorted({*of.keys, *(f"{source}/{board}/{key}" for key in whole)})
            # Comments of one page stand in all its versions, also in those that rows are no longer read from.
            seen_at = {(seen.kind, seen.key) for seen in every if seen.sha256 in cut_from}
            for seen in every:
                if (seen.kind, seen.key) in seen_at and seen.key not in whole:
                    ids = sorted(doc.post_id for doc in map(DocId.read, wanted) if doc.source == source)
                    of.cuts[f"{source}/{board}/{seen.sha256}"] = ids
    for name, codes in _offered(archive, found.own, {*of.keys}, by_author).items():
        of.cuts[name] = sorted({*of.cuts.get(name, ()), *codes})
    return of


def _offered(archive: Archive, own: pl.DataFrame, whole: set[str], by_author: bool) -> dict[str, set[str]]:
    """The Threads pages but those that go whole on which the target's posts stand, as posts of other threads too, which
    make no rows there: `source/board/sha256`, and the posts' codes. An author's, also if they were only ever seen so.
    """
    codes = set(own.filter(pl.col("source") == "threads")["post_id"])
    if not codes:
        return {}

    def on_pages(needles: set[str]) -> dict[str, dict[str, str]]:
        """Account by code, of the pages that hold a needle."""
        hits: dict[str, dict[str, str]] = {}
        for board in archive.boards("threads"):
            pages = (p for p in archive.every("threads", board) if p.kind not in LISTS)
            bodies = ((p.sha256, p.body) for p in pages if f"threads/{board}/{p.key}" not in whole)
            for digest in byte_search.holding(bodies, {needle.encode() for needle in needles}):
                seen = next(iter(archive.index("threads", board).with_body(digest)), None)
                page = archive.capture("threads", board, seen) if seen else None
                hits[f"threads/{board}/{digest}"] = threads.accounts(page.body) if page else {}
        return hits

    shown = on_pages(codes)
    names = {name for posts in shown.values() for code, name in posts.items() if code in codes and name}
    if by_author:
        shown = on_pages(codes | names)
    return {
        place: {code for code, name in posts.items() if code in codes or (by_author and name in names)}
        for place, posts in shown.items()
    }


def _elsewhere(
    homes: list[Home], plan: ForgetPlan, quoting: list[set[str]], spellings: Collection[bytes]
) -> Iterator[bytes]:
    """Archived pages that have nothing of the target: what stands there as well is markup, or said by others. Only
    pages that hold one of the spellings are parsed."""
    for home, of, quotes in zip(homes, plan.homes, quoting, strict=True):
        archive, keys, left_out = home.archive(), set(of.keys), {*of.cuts, *quotes}
        for source in SOURCES:
            for board in archive.boards(source):
                place = f"{source}/{board}"
                pages = (
                    (page.sha256, page.body)
                    for page in archive.every(source, board)
                    if not (page.kind in LISTS or {f"{place}/{page.key}", f"{place}/{page.sha256}"} & (keys | left_out))
                )
                for digest in byte_search.holding(pages, spellings):
                    seen = next(iter(archive.index(source, board).with_body(digest)), None)
                    if seen and (capture := archive.capture(source, board, seen)) is not None:
                        yield _markup(capture, home)


def _markup(capture: Any, home: Home) -> bytes:
    """A page without what its rows say: a quote of the target is no proof that its line is common."""
    posts = parse_capture(capture, str).posts
    said = {
        line.strip()
        for post in posts
        for line in f"{post.text_raw}\n{post.quoted or ''}\n{post.title or ''}".split("\n")
    }
    body: bytes = capture.body
    for line in sorted((line for line in said if len(line) >= distinctive_phrases.MIN_LINE), key=len, reverse=True):
        for spelling in byte_search.spellings(line):
            body = body.replace(spelling, b"\n")
    return body


def _downstream(home: Home, docs: list[str], pieces: list[str], of: HomePlan) -> None:
    """Dialogues and mix rows made of the rows, or that repeat a line; the adapters that were trained on them."""
    made = stored_artifacts.dialogues(home.settings)
    of.pairs = sorted(set(made.filter(_made_of(docs) | saying(made, pieces))["pair_id"]))
    trained: dict[str, list[str]] = {}
    for mix in stored_artifacts.mixes(home.settings):
        rows = mix.provenance().filter(_made_of(docs) | pl.col("pair_id").is_in(of.pairs))
        if rows.height:
            of.mixes.append(f"{mix.recipe}/{mix.digest}")
            of.pairs = sorted({*of.pairs, *rows["pair_id"]})
            trained[f"{mix.recipe}/{mix.digest}"] = rows.filter(split="train")["row_id"].to_list()
    pairs = set(of.pairs)
    for adapter in stored_artifacts.adapters(home.settings):
        saw = adapter.rows
        seen = sorted(row for row in saw if RowId.read(row).pair in pairs)
        if rows_seen := (seen if saw else trained.get(f"{adapter.recipe}/{adapter.mix_digest}", [])):
            of.adapters[f"{adapter.recipe}/{adapter.folder.name}"] = rows_seen


def _made_of(docs: list[str]) -> pl.Expr:
    return pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() > 0


def saying(frame: pl.DataFrame, pieces: list[str]) -> pl.Series:
    """For each row whether any text in it, however deep, holds a piece."""
    if not pieces or frame.is_empty():
        return pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    rows = pl.Series(frame.write_ndjson().splitlines(), dtype=pl.String)
    return rows.str.contains_any([orjson.dumps(piece)[1:-1].decode() for piece in pieces])
