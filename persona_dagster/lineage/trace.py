"""Where a row, post, URL or sentence came from, and what was made of it: both ways through the stores.

For a sentence it gives the rows that overlap it most, or none. Overlap is a fact about texts; that a row made
a model say something is never claimed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import orjson
import polars as pl

from persona_dagster.lineage import stores
from persona_dagster.settings import Settings

ROW_ID = re.compile(r"^([0-9a-f]{32})(?:-(\d+))?$")
DOC_ID = re.compile(r"^(ptt|dcard|threads|notes|capybara):[^:]*:\S+$")

NEAREST = 5  # rows shown for a sentence
# A run of 8 Han characters hardly occurs twice by chance; below it and below a fifth of the grams, nothing is near.
MIN_RUN = 8
MIN_SHARED = 0.2


@dataclass(slots=True)
class Trace:
    """`found` says whether anything matched; the frames hold ids, places and counts."""

    query: str
    kind: str  # row | post | sentence
    posts: pl.DataFrame = field(default_factory=pl.DataFrame)  # doc_id, kind, url, created_at, flags, dup_of
    dialogues: pl.DataFrame = field(default_factory=pl.DataFrame)  # pair_id, persona, builder, split, doc_ids
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, mix, row_id, split, persona, tagged
    adapters: pl.DataFrame = field(default_factory=pl.DataFrame)  # recipe, adapter, mix, state
    nearest: pl.DataFrame = field(default_factory=pl.DataFrame)  # row_id, recipe, split, run, shared, text

    @property
    def found(self) -> bool:
        return any(frame.height for frame in (self.posts, self.dialogues, self.rows, self.nearest))

    def markdown(self) -> str:
        parts = [f"**{self.query}** ({self.kind})"]
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
            ("Rows that overlap most (no claim of a cause)", self.nearest),
            ("Posts", self.posts),
            ("Dialogues", self.dialogues),
            ("Rows of mixes", self.rows),
            ("Adapters trained on those mixes", self.adapters),
        ):
            if frame.height:
                lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
                head = f"| {' | '.join(frame.columns)} |\n" + "|---" * frame.width + "|"
                parts.append(f"{title}\n\n{head}\n" + "\n".join(lines))
        return "\n\n".join(parts)


def trace(query: str, settings: Settings) -> Trace:
    """Follows a row_id, pair_id, doc_id, URL or sentence through posts, dialogues, mixes and adapters."""
    query = query.strip()
    if match := ROW_ID.match(query):
        pairs = [match[1]]
        found = Trace(query, "row")
        _follow(found, pairs, settings, row_id=query if match[2] else None)
        return found
    posts = stores.posts(settings)
    if DOC_ID.match(query) or query.startswith(("http://", "https://")):
        found = Trace(query, "post")
        docs = posts.filter((pl.col("doc_id") == query) | (pl.col("url") == query))["doc_id"].to_list()
        made_of = pl.col("doc_ids").list.set_intersection(pl.lit(docs or [query], pl.List(pl.String))).list.len() > 0
        used = stores.dialogues(settings).filter(made_of | pl.col("urls").list.contains(query))
        found.posts = _posts(posts, docs)
        _follow(found, used["pair_id"].to_list(), settings)
        return found
    found = Trace(query, "sentence", nearest=_nearest(query, settings))
    if found.nearest.height:
        pairs = sorted({row.rsplit("-", 1)[0] for row in found.nearest["row_id"]})
        _follow(found, pairs, settings)
    return found


def _follow(found: Trace, pairs: list[str], settings: Settings, row_id: str | None = None) -> None:
    """Fills in the dialogues of `pairs`, their posts, the rows made of them and the adapters that saw those."""
    known = stores.dialogues(settings).filter(pl.col("pair_id").is_in(pairs))
    sides = stores.split(settings).select("pair_id", "split")
    found.dialogues = known.join(sides, on="pair_id", how="left").select(
        "pair_id", "persona", "builder", "split", "doc_ids"
    )
    rows, saw = [], []
    for mix in stores.mixes(settings):
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
        found.posts = _posts(stores.posts(settings), docs)
    found.adapters = pl.DataFrame(
        [
            {
                "recipe": adapter.recipe,
                "adapter": adapter.folder.name,
                "mix": adapter.mix_digest,
                "state": "stale: rows forgotten" if (adapter.folder / "forgotten.json").exists() else "current",
            }
            for adapter in stores.adapters(settings)
            if adapter.mix_digest in saw
        ]
    )


def _posts(posts: pl.DataFrame, docs: list[str]) -> pl.DataFrame:
    wanted = posts.filter(pl.col("doc_id").is_in(docs))
    return wanted.select("doc_id", "kind", "url", "created_at", "flags", "dup_of").sort("doc_id")


def _nearest(sentence: str, settings: Settings) -> pl.DataFrame:
    """The rows with the longest common run, then the most shared 3-grams; none where both are small."""
    asked = _grams(sentence)
    scored: dict[str, tuple[float, str, str, str]] = {}
    for mix in stores.mixes(settings):
        for split in ("train", "test"):
            with (mix.folder / f"{split}.jsonl").open("rb") as file:
                for line in file:
                    row = orjson.loads(line)
                    pair = row["row_id"].rsplit("-", 1)[0]
                    if pair in scored:
                        continue
                    text = "\n".join(turn["content"] for turn in row["messages"] if turn["role"] != "system")
                    shared = len(asked & _grams(text)) / max(1, len(asked))
                    if shared > 0:
                        scored[pair] = (shared, row["row_id"], f"{mix.recipe} {split}", text)
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
