"""Removes a post or an author from every store, for good: tombstone first, then each store in flow order.

What stands on the same archived page goes along, since a page is kept whole or not at all: a post takes its
comments, a comment takes its page (and the page is not archived again). So do rows that repeat or quote a line.
Adapters that saw a row are marked stale with the rows named, and so are their exports and releases. Backups and homes
moved aside by a restore are homes like the first one. A byte search over all stores ends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.digest import author_key
from persona_dagster.lineage import copies, purge, search, stores, tombstones
from persona_dagster.lineage.purge import Home, Key
from persona_dagster.settings import Settings

# A line this long hardly occurs twice by chance: who has it, quotes or repeats it. Shorter ones are no proof.
MIN_LINE = search.WINDOW
# In more rows than this, a line is a signature ("Sent from…") or a header, and nobody's own.
BOILERPLATE = 5

SAID = pl.concat_str(pl.col("text_raw", "text", "quoted", "title").fill_null(""), separator="\n")


class UnknownTargetError(ValueError):
    """Nothing stored goes by that name; the message says which forms there are."""


@dataclass(slots=True)
class ForgetReport:
    """Counts and ids, never text. `left`: files in which the text still stands, and copies that could not be
    reached; empty when all is well."""

    target: str
    docs: list[str] = field(default_factory=list)
    captures: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # by table
    pairs: list[str] = field(default_factory=list)
    mixes: list[str] = field(default_factory=list)  # rewritten or deleted
    adapters: dict[str, list[str]] = field(default_factory=dict)  # marked stale: the train rows that each saw
    models: list[str] = field(default_factory=list)  # exports and releases of those, marked too
    files: list[str] = field(default_factory=list)  # rewritten or deleted besides
    copies: list[str] = field(default_factory=list)  # backups and old homes that were gone through
    left: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        sent = any(name.startswith("release ") for name in self.models)
        lines = [
            f"**Forgotten: {self.target}**",
            f"- {len(self.docs)} posts and comments, {len(self.pairs)} dialogues made of them",
            f"- {self.captures} archived captures removed; their keys are not archived again",
            f"- rows removed: {', '.join(f'{table} {rows}' for table, rows in self.rows.items()) or 'none'}",
            f"- mixes written anew or deleted: {', '.join(self.mixes) or 'none held them'}",
            *(f"- adapter {name} is stale, it saw {', '.join(rows)}" for name, rows in self.adapters.items()),
            *(f"- made of it, and stale as well: {name}" for name in self.models),
            *(["- a release that was sent has to be taken off the Hub by hand"] if sent else []),
            f"- other files rewritten or deleted: {len(self.files)}",
            f"- backups and old homes gone through: {', '.join(self.copies) or 'none known'}",
            "- **still found in: " + ", ".join(self.left) + "**" if self.left else "- byte search: found nowhere",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked for: the query, the author keys that it may stand for, and the author's name if it gives one."""

    query: str
    authors: list[str]
    name: str | None

    @classmethod
    def of(cls, query: str, settings: Settings) -> Target:
        if query.startswith("http") or query.count(":") > 1:
            return cls(query, [], None)
        source, _, name = query.partition(":")
        return cls(query, [author_key(settings.author_secret, source, name)] if name else [query], name or None)

    @property
    def told(self) -> str:
        """The query without a name."""
        return f"an author of {self.query.partition(':')[0]}" if self.name else self.query


@dataclass(frozen=True, slots=True)
class Chosen:
    """What one home holds of the target. `kept`: what its other posts say."""

    rows: pl.DataFrame
    keys: list[Key]
    lines: list[str]
    kept: pl.Series


def forget(target: str, settings: Settings) -> ForgetReport:
    """Forgets a post (URL or doc_id) or an author (`source:author`, or the author's key).

    Raises:
        UnknownTargetError: nothing stored goes by that name; nothing was touched.
        StoreBusyError: a run is writing; what was done stays done, and the rest is done by forgetting again.
    """
    store = MixStore(settings.mix_url) if settings.mix_url else None
    if store:  # what other machines made is gone through here, and sent back
        store.fetch_all(settings.mix_dir)
    asked, homes = Target.of(target, settings), _homes(settings)
    chosen = [_choose(asked, home) for home in homes]
    if all(found.rows.is_empty() and not found.keys for found in chosen):
        raise UnknownTargetError(
            f"{target!r} names nothing stored: give the URL of a post, a doc_id (source:board:id) or source:author"
        )
    report = ForgetReport(asked.told, copies=[home.label.removesuffix("/") for home in homes[1:]])
    needles = _needles(chosen, settings)
    for home, found in zip(homes, chosen, strict=True):
        _forget_in(home, found, asked, needles, report)
    if store:
        store.mirror(settings.mix_dir)
    for home in homes:
        report.left += [home.name(path) for path in home.holding(needles)] + _left_in_archive(home, needles)
    report.left += [
        f"the backup {path}, which is not there to be searched (bring it back, or strike it from {copies.REGISTER})"
        for path in copies.registered(settings.home)
        if not path.is_dir()
    ]
    return report


def _homes(settings: Settings) -> list[Home]:
    """The home itself, then every copy of it that is there."""
    storage = copies.dagster_home(settings)
    outside = () if storage.resolve().is_relative_to(settings.home.resolve()) else (storage,)
    others = (
        Home(Settings(home=path, archive_url=None, profile=settings.profile), (path,), f"{path.name}/")
        for path in copies.present(settings)
    )
    return [Home(settings, (settings.home, *outside)), *others]


def _choose(asked: Target, home: Home) -> Chosen:
    posts = stores.posts(home.settings)
    chosen = posts.filter((pl.col("url") == asked.query) | (pl.col("doc_id") == asked.query))
    if chosen.is_empty():
        chosen = posts.filter(pl.col("author_key").is_in(asked.authors))
    lines = _lines(chosen, posts)
    repeats = posts.filter(SAID.str.contains_any(lines)) if lines else posts.clear()
    told = pl.concat([chosen, repeats])
    pages = told.filter(~pl.col("kind").is_in(["comment", "reply"]))
    gone = pl.concat([told, _below(pages, posts)]).unique(["doc_id", "kind"], maintain_order=True)
    kept = posts.join(gone.select("doc_id"), on="doc_id", how="anti").select(said=SAID)["said"]
    return Chosen(gone, _captures(home, gone, asked.query), _lines(gone, posts), kept)


def _below(pages: pl.DataFrame, posts: pl.DataFrame) -> pl.DataFrame:
    """Comments of the pages, and what answers those: an author's word under a comment stands on the page as well."""
    answers = posts.filter(pl.col("kind").is_in(["comment", "reply"]))
    levels = [pages]
    while not levels[-1].is_empty():
        above = levels[-1].select("source", parent_id="post_id")
        answered = answers.join(above, on=["source", "parent_id"], how="semi")
        levels.append(answered)
        answers = answers.join(answered.select("doc_id"), on="doc_id", how="anti")
    return pl.concat([posts.clear(), *levels[1:]])


def _lines(gone: pl.DataFrame, posts: pl.DataFrame) -> list[str]:
    """The lines by which the rows' text is found again: long ones, but for those that many others have as well."""

    def lines(frame: pl.DataFrame) -> pl.DataFrame:
        every = frame.select("doc_id", line=SAID.str.split("\n")).explode("line")
        every = every.with_columns(pl.col("line").str.strip_chars()).filter(pl.col("line").str.len_chars() >= MIN_LINE)
        return every.unique()

    others = lines(posts.join(gone.select("doc_id"), on="doc_id", how="anti")).group_by("line").len()
    usual = others.filter(pl.col("len") > BOILERPLATE).select("line")
    return lines(gone).join(usual, on="line", how="anti")["line"].unique().sort().to_list()


def _captures(home: Home, gone: pl.DataFrame, url: str) -> list[Key]:
    """Every archived capture that a row was parsed from, or that stands at the URL."""
    archive, snapshots = home.archive(), set(gone["snapshot"].drop_nulls())
    found: set[Key] = set()
    for source in purge.SOURCES:
        for board in archive.boards(source):
            for (_, key), history in archive.histories(source, board).items():
                if any(seen.sha256 in snapshots or seen.url == url for seen in history.sightings):
                    found.add((source, board, key))
    return sorted(found)


def _needles(chosen: list[Chosen], settings: Settings) -> set[bytes]:
    """What the byte search looks for: pieces of the lines, in every spelling, but for pieces that others say too
    (they stay in the corpus, by right) or that the personas' prompts hold."""
    pieces = sorted({piece for found in chosen for line in found.lines for piece in search.windows(line)})
    ours = [(one.system_prompt, *one.probes) for one in load_personas(settings.config_dir).personas.values()]
    said = pl.concat([*(found.kept for found in chosen), pl.Series("said", [text for texts in ours for text in texts])])
    shared = set(said.str.extract_many(pieces, overlapping=True).explode().drop_nulls()) if pieces else set()
    return {spelling for piece in pieces if piece not in shared for spelling in search.spellings(piece)}


def _forget_in(home: Home, found: Chosen, asked: Target, needles: set[bytes], report: ForgetReport) -> None:
    """One home, store by store. The tombstone is first, so that a forgetting cut short can be repeated."""
    docs = sorted(set(found.rows["doc_id"]))
    stone = tombstones.Tombstone(
        datetime.now(UTC).isoformat(timespec="seconds"), docs, asked.authors, ["/".join(key) for key in found.keys]
    )
    if docs or found.keys:
        tombstones.write(stone, home.settings.home)
    report.docs = sorted({*report.docs, *docs})
    report.captures += purge.forget_captures(home, found.keys, needles, asked.name)
    made = stores.dialogues(home.settings)
    hit = pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() > 0
    pairs = sorted(set(made.filter(hit)["pair_id"]))
    report.pairs = sorted({*report.pairs, *pairs})
    dropped = purge.forget_mixes(home, docs)
    report.mixes += [home.label + name for name in dropped]
    for table, rows in purge.forget_rows(home, docs, pairs).items():
        report.rows[home.label + table] = rows
    marked = purge.mark_adapters(home, dropped, pairs, stone)
    report.adapters |= marked
    report.models += purge.mark_models(home, marked, stone)
    row_ids = {row for rows in dropped.values() for row in rows["row_id"]}
    report.files += purge.forget_files(home, needles, row_ids)
    if (home.settings.home / copies.MANIFEST).is_file():
        copies.seal(home.settings.home)


def _left_in_archive(home: Home, needles: set[bytes]) -> list[str]:
    """Boards of an archive elsewhere (PERSONA_ARCHIVE_URL) that hold a needle; a local one is searched as files."""
    if home.settings.archive_url is None:
        return []
    archive = home.archive()
    pieces = ((f"{s}/{b}", c.body) for s in purge.SOURCES for b in archive.boards(s) for c in archive.every(s, b))
    return sorted(search.holding(pieces, needles))
