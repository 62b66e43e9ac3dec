"""Where a row, post, URL, sentence or model came from, and what was made of it: both ways through the stores.

For a sentence it gives the rows that overlap it most, or none. Overlap is a fact about texts; that a row made
a model say something is never claimed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import cast

import orjson
import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.lineage import stored_artifacts
from persona_dagster.records import FORGOTTEN, Capture, DocId, RowId, Source
from persona_dagster.settings import Settings

ROW_ID = re.compile(r"^([0-9a-f]{32})(?:-(\d+))?$")
DOC_ID = re.compile(r"^(ptt|dcard|threads|notes|capybara):[^:]*:\S+$")

FORWARD = ("row", "post", "sentence")
DIGEST = re.compile(r"^[0-9a-f]{8,32}$")

NEAREST = 5  # rows shown for a sentence
# A run of 8 Han characters hardly occurs twice by chance; below it and below a fifth of the grams, nothing is near.
MIN_RUN = 8
MIN_SHARED = 0.2


@dataclass(slots=True)
class Trace:
    """`found` says whether anything matched; the frames hold ids, places and counts."""

    query: str
    kind: str  # row | post | sentence | adapter | report | mix | release
    made_of: pl.DataFrame = field(default_factory=pl.DataFrame)  # of a model: source, board, persona, rows, posts
    posts: pl.DataFrame = field(default_factory=pl.DataFrame)  # doc_id, kind, url, created_at, flags, dup_of, capture
    dialogues: pl.DataFrame = field(default_factory=pl.DataFrame)  # pair_id, persona, builder, split, doc_ids
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, mix, row_id, split, persona, tagged
    adapters: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, adapter, mix, state
    reports: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, report, adapter, verdict
    models: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, kind, model, adapter, state
    nearest: pl.DataFrame = field(default_factory=pl.DataFrame)  # row_id, recipe, split, run, shared, text
    folder: Path | None = None  # of a model: where provenance.parquet names every row's posts

    @property
    def found(self) -> bool:
        frames = (self.posts, self.dialogues, self.rows, self.nearest, self.made_of, self.adapters)
        return any(frame.height for frame in frames)

    def markdown(self, texts: bool = True) -> str:
        """What was found as tables; without `texts` ids, places and counts alone, for what is kept for good."""
        nearest = self.nearest if texts or self.nearest.is_empty() else self.nearest.drop("text")
        query = self.query if texts or self.kind != "sentence" else "a sentence"
        parts = [f"**{query}** ({self.kind})"]
        if not self.found:
            return (
                parts[0]
                + "\n\nNothing stored matches."
                + (
                    f" No row shares {MIN_RUN} characters in a run, or a fifth of its 3-grams, with the sentence."
                    if self.kind == "sentence"
                    else ""
                )
            )
        for title, frame in (
            ("Rows that overlap most (no claim of a cause)", nearest),
            ("Trained on, by board and persona", self.made_of),
            ("Posts", self.posts),
            ("Dialogues", self.dialogues),
            ("Rows of mixes", self.rows),
            ("Adapters trained on those mixes" if self.kind in FORWARD else "Adapter", self.adapters),
            ("Reports on those adapters", self.reports),
            ("Exports and releases of those adapters", self.models),
        ):
            if frame.height:
                lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
                head = f"| {' | '.join(frame.columns)} |\n" + "|---" * frame.width + "|"
                parts.append(f"{title}\n\n{head}\n" + "\n".join(lines))
        if self.folder:
            parts.append(f"Every row and its posts: {self.folder / 'provenance.parquet'}")
        return "\n\n".join(parts)


def trace(query: str, settings: Settings) -> Trace:
    """Follows a row_id, pair_id, doc_id, URL or sentence through posts, dialogues, mixes, adapters and reports; or
    the other way from an adapter, a report, a mix or a release (its digest, eight digits of it, or its folder)."""
    query = query.strip()
    if (model := _model(query, settings)) is not None:
        return model
    if match := ROW_ID.match(query):
        pairs = [match[1]]
        found = Trace(query, "row")
        _follow(found, pairs, settings, row_id=query if match[2] else None)
        return found
    posts = stored_artifacts.posts(settings)
    if DOC_ID.match(query) or query.startswith(("http://", "https://")):
        found = Trace(query, "post")
        docs = posts.filter((pl.col("doc_id") == query) | (pl.col("url") == query))["doc_id"].to_list()
        made_of = pl.col("doc_ids").list.set_intersection(pl.lit(docs or [query], pl.List(pl.String))).list.len() > 0
        used = stored_artifacts.dialogues(settings).filter(made_of | pl.col("urls").list.contains(query))
        found.posts = _posts(posts, docs)
        _follow(found, used["pair_id"].to_list(), settings)
        return found
    found = Trace(query, "sentence", nearest=_nearest(query, settings))
    if found.nearest.height:
        pairs = sorted({RowId.read(row).pair for row in found.nearest["row_id"]})
        _follow(found, pairs, settings)
    return found


def captures(found: Trace, settings: Settings) -> Iterator[Capture]:
    """The archived pages that the posts of a trace were read from, each once, verified; redacted ones as they are."""
    archive = Archive(settings.archive_url or settings.raw_dir)
    if found.posts.is_empty():
        return
    places = set()
    for row in found.posts.iter_rows(named=True):
        doc = DocId.read(row["doc_id"])
        if row["capture"]:
            places.add((cast(Source, doc.source), doc.board, row["capture"]))
    for source, board, digest in sorted(places):
        now = archive.stored_as(source, board).get(digest, digest)
        seen = next(iter(archive.index(source, board).with_body(now)), None)
        if seen and (capture := archive.capture(source, board, seen)):
            yield capture


def _follow(found: Trace, pairs: list[str], settings: Settings, row_id: str | None = None) -> None:
    """Fills in the dialogues of `pairs`, their posts, the rows made of them and the adapters that saw those."""
    known = stored_artifacts.dialogues(settings).filter(pl.col("pair_id").is_in(pairs))
    sides = stored_artifacts.split(settings).select("pair_id", "split")
    found.dialogues = known.join(sides, on="pair_id", how="left").select(
        "pair_id", "persona", "builder", "split", "doc_ids"
    )
    rows, saw = [], []
    for mix in stored_artifacts.mixes(settings):
        here = mix.provenance().filter(pl.col("pair_id").is_in(pairs))
        if row_id:
            here = here.filter(pl.col("row_id") == row_id)
        if here.height:
            where = here.select(
                pl.lit(mix.recipe).alias("recipe"), pl.lit(mix.digest).alias("mix"),
                "row_id", "split", "persona", "tagged", "doc_ids", "urls",
            )  # fmt: skip
            rows.append(where)
            if (here["split"] == "train").any():
                saw.append(mix.digest)
    if rows:
        found.rows = pl.concat(rows)
    if found.posts.is_empty():
        docs = known["doc_ids"].explode().drop_nulls().unique().to_list()
        docs = docs or (found.rows["doc_ids"].explode().unique().to_list() if found.rows.height else [])
        found.posts = _posts(stored_artifacts.posts(settings), docs)
    seen = {RowId.read(row).pair for row in ([row_id] if row_id else pairs)}
    adapters = [
        adapter
        for adapter in stored_artifacts.adapters(settings)
        if adapter.mix_digest in saw or seen & {RowId.read(row).pair for row in adapter.rows}
    ]
    _judged(found, adapters, settings)


def _judged(found: Trace, adapters: list[stored_artifacts.StoredAdapter], settings: Settings) -> None:
    """Fills in these adapters, the reports on them, and what was exported or released of them."""
    found.adapters = pl.DataFrame(
        [
            {
                "recipe": adapter.recipe,
                "adapter": adapter.folder.name,
                "mix": adapter.mix_digest,
                "state": _state(adapter.folder),
            }
            for adapter in adapters
        ]
    )
    names = {adapter.folder.name for adapter in adapters}
    found.reports = pl.DataFrame(
        [
            {"recipe": r.recipe, "report": r.folder.name, "adapter": r.adapter, "verdict": r.verdict}
            for r in stored_artifacts.reports(settings)
            if r.adapter in names
        ]
    )
    found.models = pl.DataFrame(
        [
            {
                "recipe": model.recipe,
                "kind": model.kind,
                "model": model.folder.name,
                "adapter": model.adapter,
                "state": _state(model.folder),
            }
            for model in stored_artifacts.models(settings)
            if model.adapter in names
        ]
    )


def _state(folder: Path) -> str:
    return "stale: rows forgotten" if (folder / FORGOTTEN).exists() else "current"


def _model(query: str, settings: Settings) -> Trace | None:
    """The trace of what `query` names by digest or folder; None where it names no adapter, report, mix or release."""
    name = Path(query).name
    if not DIGEST.match(name) or query.startswith("http"):
        return None
    adapters = list(stored_artifacts.adapters(settings))
    mixes = {mix.digest: mix for mix in stored_artifacts.mixes(settings)}
    for kind, folders in (
        ("adapter", {adapter.folder.name: adapter.folder.name for adapter in adapters}),
        ("report", {report.folder.name: report.adapter for report in stored_artifacts.reports(settings)}),
        ("mix", dict.fromkeys(mixes)),
        (
            "release",
            {
                model.folder.name: model.adapter
                for model in stored_artifacts.models(settings)
                if model.kind == "release"
            },
        ),
    ):
        for folder, digest in folders.items():
            if folder.startswith(name):
                found = Trace(query, kind)
                chosen = [a for a in adapters if a.folder.name == digest or (kind == "mix" and a.mix_digest == folder)]
                trained_on = folder if kind == "mix" else next((a.mix_digest for a in chosen), None)
                _judged(found, chosen, settings)
                _made_of(found, mixes.get(trained_on or ""), chosen, settings)
                return found
    return None


def _made_of(
    found: Trace,
    mix: stored_artifacts.StoredMix | None,
    adapters: list[stored_artifacts.StoredAdapter],
    settings: Settings,
) -> None:
    """Sums up the train rows of a mix; where it is gone, those that the adapter itself names and the corpus knows."""
    if mix is not None:
        found.folder, rows = mix.folder, mix.provenance().filter(split="train")
    else:
        named = pl.DataFrame({"row_id": [row for adapter in adapters for row in adapter.rows]}, {"row_id": pl.String})
        pairs = named.select("row_id", pair_id=pl.col("row_id").str.replace(r"-\d+$", ""))
        rows = pairs.join(stored_artifacts.dialogues(settings), on="pair_id")
    found.made_of = (
        rows.group_by("source", "board", "persona")
        .agg(rows=pl.len(), posts=pl.col("doc_ids").explode().n_unique())
        .sort("source", "board", "persona")
    )


def _posts(posts: pl.DataFrame, docs: list[str]) -> pl.DataFrame:
    wanted = posts.filter(pl.col("doc_id").is_in(docs))
    return wanted.select("doc_id", "kind", "url", "created_at", "flags", "dup_of", capture="snapshot").sort("doc_id")


def _nearest(sentence: str, settings: Settings) -> pl.DataFrame:
    """The rows with the longest common run, then the most shared 3-grams; none where both are small."""
    asked = _grams(sentence)
    scored: dict[str, tuple[float, str, str, str]] = {}
    for mix in stored_artifacts.mixes(settings):
        for path in sorted(mix.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    row = orjson.loads(line)
                    pair = RowId.read(row["row_id"]).pair
                    if pair in scored:
                        continue
                    text = "\n".join(turn["content"] for turn in row["messages"] if turn["role"] != "system")
                    shared = len(asked & _grams(text)) / max(1, len(asked))
                    if shared > 0:
                        scored[pair] = (shared, row["row_id"], f"{mix.recipe} {path.stem}", text)
    best = sorted(scored.values(), key=lambda row: (-row[0], row[1]))[:50]
    rows: list[tuple[int, float, str, str, str]] = []
    for shared, row_id, where, text in best:
        run = SequenceMatcher(None, sentence, text, autojunk=False).find_longest_match().size
        if run >= MIN_RUN or shared >= MIN_SHARED:
            rows.append((-run, -shared, row_id, where, text[:160]))
    return pl.DataFrame(
        [
            {"row_id": row_id, "where": where, "run": -run, "shared": round(-shared, 3), "text": text}
            for run, shared, row_id, where, text in sorted(rows)[:NEAREST]
        ]
    )


def _grams(text: str) -> set[str]:
    letters = "".join(character for character in text.lower() if character.isalnum())
    return {letters[at : at + 3] for at in range(len(letters) - 2)}


def _cell(value: object) -> str:
    return str(value if value is not None else "").replace("\n", " ").replace("|", "\\|")
