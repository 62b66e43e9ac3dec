"""Removes a post or an author from every store, for good: tombstone first, then each store in flow order.

What stands on the same archived page goes along, since a page is kept whole or not at all: a post takes its
comments, a comment takes its page (and the page is not archived again). So do rows that repeat or quote a line.
Adapters that saw a row are marked stale with the rows named. A byte search over all stores ends it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import orjson
import polars as pl

from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.warehouse import Warehouse, write_parquet
from persona_dagster.dialogue.mix import drop_rows
from persona_dagster.digest import author_key
from persona_dagster.lineage import search, stores, tombstones
from persona_dagster.scraping.archive import Archive
from persona_dagster.settings import Settings

# A line this long hardly occurs twice by chance: who has it, quotes or repeats it. Shorter ones are no proof.
MIN_LINE = 12
# In more rows than this, a line is a signature ("Sent from…") or a header, and nobody's own.
BOILERPLATE = 5
FORGOTTEN = "forgotten.json"


class UnknownTargetError(LookupError):
    """Nothing stored goes by that name; the message says which forms there are."""


@dataclass(slots=True)
class ForgetReport:
    """Counts and ids, never text. `left`: files in which the text still stands; empty when all is well."""

    target: str
    docs: list[str]
    captures: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # by table
    pairs: list[str] = field(default_factory=list)
    mixes: list[str] = field(default_factory=list)  # rewritten or deleted
    adapters: dict[str, list[str]] = field(default_factory=dict)  # marked stale: the train rows that each saw
    files: list[str] = field(default_factory=list)  # rewritten or deleted besides
    left: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [
            f"**Forgotten: {self.target}**",
            f"- {len(self.docs)} posts and comments, {len(self.pairs)} dialogues made of them",
            f"- {self.captures} archived captures removed; their keys are not archived again",
            f"- rows removed: {', '.join(f'{table} {rows}' for table, rows in self.rows.items()) or 'none'}",
            f"- mixes written anew or deleted: {', '.join(self.mixes) or 'none held them'}",
            *(f"- adapter {name} is stale, it saw {', '.join(rows)}" for name, rows in self.adapters.items()),
            f"- other files rewritten or deleted: {len(self.files)}",
            "- **still found in: " + ", ".join(self.left) + "**" if self.left else "- byte search: found nowhere",
        ]
        return "\n".join(lines)


def forget(target: str, settings: Settings) -> ForgetReport:
    """Forgets a post (URL or doc_id) or an author (`source:author`). Raises `UnknownTargetError`."""
    posts = stores.posts(settings)
    gone, authors = _selected(target, posts, settings)
    archive = Archive(settings.archive_url or settings.raw_dir)
    keys = _captures(archive, gone, target)
    if gone.is_empty() and not keys:
        raise UnknownTargetError(
            f"{target!r} names nothing stored: give the URL of a post, a doc_id (source:board:id) or source:author"
        )
    docs = sorted(set(gone["doc_id"]))
    stone = tombstones.Tombstone(
        datetime.now(UTC).isoformat(timespec="seconds"), docs, authors, ["/".join(key) for key in keys]
    )
    tombstones.write(stone, settings.home)
    report = ForgetReport(target if not authors else f"an author of {target.partition(':')[0]}", docs)
    needles = {spelling for line in _lines(gone, posts) for spelling in search.spellings(line)}
    # Listings name authors; the name itself stands nowhere but in the raw archive.
    named = {mark.encode() for name in [target.partition(":")[2]] if authors for mark in (f">{name}<", f'"{name}"')}
    _forget_raw(archive, keys, needles | named, report)
    made = stores.dialogues(settings)
    hit = pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() > 0
    report.pairs = sorted(set(made.filter(hit)["pair_id"]))
    rows_by_mix = _forget_mixes(settings, docs, report)
    _forget_tables(settings, report)
    _mark_adapters(settings, rows_by_mix, stone, report)
    row_ids = sorted({row for rows in rows_by_mix.values() for row in rows})
    _forget_files(settings, needles, row_ids, report)
    report.left = [
        str(path.relative_to(settings.home)) for path in search.find(settings.home, needles, [settings.models_dir])
    ]
    return report


def _selected(target: str, posts: pl.DataFrame, settings: Settings) -> tuple[pl.DataFrame, list[str]]:
    """The rows to forget, and the keys of forgotten authors."""
    authors: list[str] = []
    chosen = posts.filter((pl.col("url") == target) | (pl.col("doc_id") == target))
    if chosen.is_empty() and target.count(":") == 1 and not target.startswith("http"):
        source, name = target.split(":")
        authors = [author_key(settings.author_secret, source, name)]
        chosen = posts.filter(pl.col("author_key").is_in(authors))
    lines = _lines(chosen, posts)
    said = pl.concat_str(pl.col("text_raw", "text", "quoted", "title").fill_null(""), separator="\n")
    copies = posts.filter(said.str.contains_any(lines)) if lines else posts.clear()
    told = pl.concat([chosen, copies])
    pages = told.filter(~pl.col("kind").is_in(["comment", "reply"]))
    below = posts.join(pages.select("source", parent_id="post_id"), on=["source", "parent_id"], how="semi")
    below = below.filter(pl.col("kind").is_in(["comment", "reply"]))
    return pl.concat([told, below]).unique(["doc_id", "kind"], maintain_order=True), authors


def _lines(gone: pl.DataFrame, posts: pl.DataFrame) -> list[str]:
    """The lines by which the rows' text is found again: long ones, but for those that many others have as well."""
    texts = pl.concat_list(pl.col("text_raw", "text", "title").fill_null("")).list.join("\n")

    def lines(frame: pl.DataFrame) -> pl.DataFrame:
        every = frame.select("doc_id", line=texts.str.split("\n")).explode("line")
        every = every.with_columns(pl.col("line").str.strip_chars()).filter(pl.col("line").str.len_chars() >= MIN_LINE)
        return every.unique()

    others = lines(posts.join(gone.select("doc_id"), on="doc_id", how="anti")).group_by("line").len()
    usual = others.filter(pl.col("len") > BOILERPLATE).select("line")
    return lines(gone).join(usual, on="line", how="anti")["line"].unique().sort().to_list()


def _captures(archive: Archive, gone: pl.DataFrame, target: str) -> list[tuple[str, str, str]]:
    """(source, board, key) of every archived capture that a row was parsed from, or that stands at the URL."""
    snapshots = set(gone["snapshot"].drop_nulls())
    found = []
    for source in ("ptt", "dcard", "threads", "notes", "capybara"):
        for board in archive.boards(source):
            for (_, key), history in archive.histories(source, board).items():
                if any(seen.sha256 in snapshots or seen.url == target for seen in history.sightings):
                    found.append((source, board, key))
    return sorted(set(found))


def _forget_raw(
    archive: Archive, keys: Iterable[tuple[str, str, str]], needles: set[bytes], report: ForgetReport
) -> None:
    """Drops the captures for good; then any other capture that shows a line of theirs (a listing's excerpt)."""
    boards: dict[tuple[str, str], list[str]] = {}
    for source, board, key in keys:
        boards.setdefault((source, board), []).append(key)
    for (source, board), names in boards.items():
        report.captures += archive.forget(source, board, names, "forgotten on request")  # type: ignore[arg-type]
    for source in ("ptt", "dcard", "threads"):
        for board in archive.boards(source):  # type: ignore[arg-type]
            report.captures += archive.rewrite(
                source,  # type: ignore[arg-type]
                board,
                lambda capture: any(needle in capture.body for needle in needles),
            )


def _forget_mixes(settings: Settings, docs: list[str], report: ForgetReport) -> dict[str, list[str]]:
    """Writes every mix anew that holds a row made of these posts; returns the train rows by old digest."""
    personas = load_personas(settings.config_dir)
    saw: dict[str, list[str]] = {}
    for mix in list(stores.mixes(settings)):
        rows = mix.provenance()
        hit = pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() > 0
        touched = rows.filter(hit)
        if touched.is_empty():
            continue
        saw[mix.digest] = touched.filter(pl.col("split") == "train")["row_id"].to_list()
        drop_rows(mix.folder, set(touched["row_id"]), personas)
        report.mixes.append(f"{mix.recipe}/{mix.digest}")
    return saw


def _keep(frame: pl.DataFrame, docs: list[str], pairs: list[str]) -> pl.DataFrame:
    """`frame` without the rows of these posts and dialogues, whichever of the columns it has."""
    if {"source", "board", "post_id"} <= set(frame.columns):
        frame = frame.filter(~pl.concat_str("source", "board", "post_id", separator=":").is_in(docs))
    if "doc_ids" in frame.columns:
        frame = frame.filter(pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() == 0)
    if "pair_id" in frame.columns:
        frame = frame.filter(~pl.col("pair_id").is_in(pairs))
    return frame


def _forget_tables(settings: Settings, report: ForgetReport) -> None:
    """Exports are rewritten file by file; the database as a whole, since DuckDB keeps deleted bytes in its blocks."""
    for path in sorted(settings.exports_dir.rglob("*.parquet")):
        frame = pl.read_parquet(path)
        kept = _keep(frame, report.docs, report.pairs)
        if kept.height < frame.height:
            table = path.parent.name if path.parent != settings.exports_dir else path.stem
            report.rows[table] = report.rows.get(table, 0) + frame.height - kept.height
            write_parquet(kept, path)
    if not settings.warehouse.is_file():
        return
    connection = duckdb.connect(str(settings.warehouse), read_only=True)
    try:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    finally:
        connection.close()
    old = Warehouse(settings.warehouse)
    fresh = settings.warehouse.with_name(".forgetting.duckdb")
    fresh.unlink(missing_ok=True)
    new = Warehouse(fresh)
    for table in tables:
        for partition in old.partitions(table):
            new.replace(table, partition, _keep(old.read(table, partition), report.docs, report.pairs))
    if fresh.exists():
        fresh.replace(settings.warehouse)
        settings.warehouse.with_suffix(".duckdb.wal").unlink(missing_ok=True)


def _mark_adapters(
    settings: Settings, rows_by_mix: dict[str, list[str]], stone: tombstones.Tombstone, report: ForgetReport
) -> None:
    for adapter in stores.adapters(settings):
        rows = rows_by_mix.get(adapter.mix_digest or "", [])
        if rows:
            name = f"{adapter.recipe}/{adapter.folder.name}"
            report.adapters[name] = rows
            mark = {"at": stone.at, "tombstone": stone.name, "rows": rows}
            (adapter.folder / FORGOTTEN).write_bytes(orjson.dumps(mark, option=orjson.OPT_INDENT_2))
            # What a training could be resumed from has seen the rows as well.
            checkpoints = settings.home / "checkpoints" / adapter.recipe
            if checkpoints.is_dir():
                shutil.rmtree(checkpoints)
                report.files.append(str(checkpoints.relative_to(settings.home)))


def _forget_files(settings: Settings, needles: set[bytes], row_ids: list[str], report: ForgetReport) -> None:
    """Everything else under the home: lines and rows go where a file has them, other files go whole. Backups
    too: what a backup would bring back is not forgotten, and the next one is made of what is left."""
    own = {settings.raw_dir, settings.warehouse, settings.exports_dir, settings.mix_dir, settings.models_dir}
    own.add(settings.home / tombstones.FOLDER)
    wanted = list(needles | {row.encode() for row in row_ids})
    for path in search.find(settings.home, wanted, skip=own):
        if path.name == FORGOTTEN or path.suffix in (".db", ".sqlite"):
            continue
        if path.suffix == ".jsonl":
            lines = path.read_bytes().splitlines(keepends=True)
            _write(path, b"".join(line for line in lines if not any(needle in line for needle in wanted)))
        elif path.suffix == ".parquet":
            frame = pl.read_parquet(path)
            kept = [not any(n in orjson.dumps(row, default=str) for n in wanted) for row in frame.iter_rows()]
            write_parquet(frame.filter(pl.Series(kept, dtype=pl.Boolean)), path)
        else:
            path.unlink()
        report.files.append(str(path.relative_to(settings.home)))


def _write(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.forgetting")
    fresh.write_bytes(data)
    fresh.replace(path)
