"""The fate of every row: each input row, and each post made of one, ends in exactly one bucket.

The ledgers of intake say what became of a row on its way to the archive; the tables say how far its post came. Nothing
is counted that cannot be named: every row stands with its file and its place in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import LATEST, MixManifest, Versions
from persona_dagster.corpus.quality import BLOCKING
from persona_dagster.corpus.rules import rules_for
from persona_dagster.intake.import_to_archive import LOST, STORED, read_ledger
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings
from persona_dagster.sites.ptt.quotes_and_line_wrapping import push_words

# In the order in which a row passes them.
STAGES = ("intake", "parsing", "cleaning", "conversation", "mix")
PAIRS = Path("pairs") / "left_out.parquet"  # below the intake folder: posts by what kept their pairs from a dialogue
OF_POSTS = ["source", "board", "kind", "post_id", "parent_id", "snapshot", "dup_of", "flags", "text_raw"]
LEDGER = pl.Schema(
    {
        "file": pl.String,  # of what was crawled: source/board
        "row": pl.Int64,
        "part": pl.Int32,  # 0: the record itself; else a comment that lay within it
        "source": pl.String,
        "board": pl.String,
        "doc_id": pl.String,
        "stage": pl.String,  # where it ended
        "bucket": pl.String,
        "why": pl.String,
        "of": pl.String,  # what it repeats, or was replaced by
    }
)


def row_ledger(settings: Settings, recipe: str | None = None) -> pl.DataFrame:
    """Every row that was brought or crawled, in exactly one bucket (`LEDGER`). What was not built yet ends before."""
    intake = read_ledger(settings.intake_dir)
    tables = ["posts"] if _built(settings, "posts") else [f"{source}_posts" for source in (*FORUMS, "chat")]
    found = [frame for name in (*tables, "notes") if (frame := _table(settings, name, OF_POSTS)) is not None]
    posts = pl.concat(found) if found else None
    outcome = _outcomes(posts, settings, recipe) if posts is not None else None
    ended = intake.filter(pl.col("fate") != STORED).select(
        "file", "row", "part", "source", "board",
        doc_id=pl.lit(None, pl.String),
        stage=pl.lit("intake"),
        bucket="fate",
        why=pl.coalesce("code", pl.lit("")),
        of=pl.when(pl.col("of_file").is_not_null()).then(pl.format("{}:{}", "of_file", "of_row")),
    )  # fmt: skip
    stored = intake.filter(pl.col("fate") == STORED)
    rows = [ended, *(_stored(stored, outcome, settings))]
    return pl.concat([pl.DataFrame(schema=LEDGER), *(frame.select(list(LEDGER)).cast(LEDGER) for frame in rows)])


def _built(settings: Settings, name: str) -> bool:
    return any((settings.tables_dir / name).glob("*.parquet"))


def _table(settings: Settings, name: str, columns: list[str] | None = None) -> pl.DataFrame | None:
    paths = sorted((settings.tables_dir / name).glob("*.parquet"))
    return pl.concat([pl.read_parquet(path, columns=columns) for path in paths]) if paths else None


def _stored(stored: pl.DataFrame, outcome: pl.DataFrame | None, settings: Settings) -> list[pl.DataFrame]:
    """Rows in the archive by what became of their posts; and posts that no file brought."""
    place = ("file", "row", "part", "source", "board")
    if outcome is None:
        waiting = {"doc_id": None, "stage": "parsing", "bucket": "not_built_yet", "why": "", "of": None}
        return [stored.select(*place, *(pl.lit(value, pl.String).alias(name) for name, value in waiting.items()))]
    # The row's own post comes first; pushes of a flat page and posts of a saved one are further parts of the row.
    made = outcome.sort("snapshot", "own", "doc_id", descending=[False, True, False])
    made = made.with_columns(nth=pl.int_range(pl.len(), dtype=pl.Int32).over("snapshot"))
    stored = stored.select(*place, "snapshot")
    brought = stored.drop("source", "board").join(made.drop("own"), on="snapshot", how="inner")
    further = brought.with_columns(
        part=pl.col("part") + pl.col("nth") * 1000
    )  # a record holds fewer comments than that
    places = stored.select(kept="snapshot", by=pl.format("{}:{}", "file", "row")).unique("kept")
    lost = _lost(settings).join(places, on="kept", how="left")
    alone = stored.join(made.select("snapshot"), on="snapshot", how="anti").join(lost, on="snapshot", how="left")
    unparsed = alone.select(
        *place,
        doc_id=pl.lit(None, pl.String),
        stage=pl.lit("parsing"),
        bucket=pl.coalesce("lost", pl.lit("superseded")),
        why=pl.col("lost_why").fill_null(""),
        of="by",
    )
    crawled = made.join(stored.select("snapshot").unique(), on="snapshot", how="anti").select(
        file=pl.format("{}/{}", "source", "board"),
        row=pl.lit(None, pl.Int64),
        part=pl.lit(0, pl.Int32),
        source="source", board="board", doc_id="doc_id", stage="stage", bucket="bucket", why="why", of="of",
    )  # fmt: skip
    return [further, unparsed, crawled]


def _lost(settings: Settings) -> pl.DataFrame:
    paths = sorted((settings.intake_dir / "lost").glob("*.parquet"))
    found = pl.concat([pl.DataFrame(schema=LOST), *(pl.read_parquet(path) for path in paths)], how="diagonal")
    return found.unique("snapshot", keep="last").rename({"fate": "lost"})


def _outcomes(posts: pl.DataFrame, settings: Settings, recipe: str | None) -> pl.DataFrame:
    """Of each post: doc_id, snapshot, where it ended and why. The first reason in the order of the stages counts."""
    doc = pl.concat_str("source", "board", "post_id", separator=":")
    frame = posts.select(
        "source", "board", "snapshot", "dup_of", "flags", doc_id=doc,
        own=~pl.col("flags").list.contains("flat") | pl.col("parent_id").is_null(),
        emptied=pl.col("flags").list.contains("empty") & (pl.col("text_raw").str.strip_chars() != ""),
        text_raw="text_raw", kind="kind",
    )  # fmt: skip
    flag = pl.coalesce(*(pl.when(pl.col("flags").list.contains(name)).then(pl.lit(name)) for name in BLOCKING))
    frame = frame.with_columns(flag=flag, rule=_emptied_by(frame)).drop("text_raw", "kind")
    for known in (_used(settings, recipe), _paired(settings), _left_out(settings)):
        frame = frame.join(known, on="doc_id", how="left")
    cleaned = pl.col("emptied")
    cases: list[tuple[pl.Expr, str, str | pl.Expr, pl.Expr | None]] = [
        (cleaned, "cleaning", "cleaned_away", pl.col("rule")),
        (pl.col("flag").is_not_null(), "cleaning", "flagged", pl.col("flag")),
        (pl.col("dup_of").is_not_null(), "cleaning", "duplicate", None),
        (pl.col("split").is_not_null(), "mix", pl.col("split"), None),
        (pl.col("left_out").is_not_null(), "conversation", pl.col("left_out"), None),
        (pl.lit(not _built(settings, "reply_graph")), "conversation", "not_built_yet", None),
        (pl.col("paired").is_null(), "conversation", "no_partner", None),
        (pl.lit(not _built(settings, "dialogues")), "conversation", "not_built_yet", None),
        (pl.lit(value=True), "conversation", "no_partner", pl.lit("none_to_learn_from")),
    ]
    stage, bucket, why = pl.lit(None, pl.String), pl.lit(None, pl.String), pl.lit("")
    for condition, at, name, reason in reversed(cases):
        stage = pl.when(condition).then(pl.lit(at)).otherwise(stage)
        bucket = pl.when(condition).then(name if isinstance(name, pl.Expr) else pl.lit(name)).otherwise(bucket)
        why = pl.when(condition).then(pl.lit("") if reason is None else reason).otherwise(why)
    of = pl.when(~cleaned & pl.col("flag").is_null()).then(pl.col("dup_of"))
    return frame.select("source", "board", "doc_id", "snapshot", "own", stage=stage, bucket=bucket, why=why, of=of)


def _emptied_by(frame: pl.DataFrame) -> pl.Series:
    """The first rule after which nothing was left of a text, for the rows that were cleaned away."""
    rules: list[str | None] = []
    for emptied, source, kind, text in frame.select("emptied", "source", "kind", "text_raw").iter_rows():
        rules.append(_rule_of(source, kind, text) if emptied else None)
    return pl.Series("rule", rules, dtype=pl.String)


def _rule_of(source: str, kind: str, text: str) -> str:
    if source == "ptt" and kind == "comment":
        text = push_words(text)
    for rule in rules_for(source, kind):
        text = rule.apply(text)
        if not text.strip():
            return rule.name
    return "structure"


def _left_out(settings: Settings) -> pl.DataFrame:
    """What kept a post's pairs from a dialogue, as `dialogues` wrote it down."""
    path = settings.intake_dir / PAIRS
    found = pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema={"doc_id": pl.String, "bucket": pl.String})
    return found.rename({"bucket": "left_out"})


def _used(settings: Settings, recipe: str | None) -> pl.DataFrame:
    """By doc_id where its dialogue stands: train, validation or test of the mix, or what keeps it out of it."""
    dialogues, split = _table(settings, "dialogues"), _table(settings, "split")
    if dialogues is None:
        return pl.DataFrame(schema={"doc_id": pl.String, "split": pl.String})
    mix = _mix(settings, recipe)
    placed = dialogues.select("pair_id", "doc_ids", split=_not_drawn(mix))
    if split is not None:
        held = split.filter(split="quarantine").select("pair_id", held=pl.lit("quarantined"))
        placed = placed.join(held, on="pair_id", how="left").with_columns(split=pl.coalesce("held", "split"))
    if mix:
        rows = pl.read_parquet(mix.folder / "provenance.parquet").select("pair_id", drawn="split").unique("pair_id")
        placed = placed.join(rows, on="pair_id", how="left").with_columns(split=pl.coalesce("drawn", "split"))
    order = {"train": 0, "validation": 1, "test": 2, "quarantined": 3, "not_drawn": 4}
    by_doc = placed.explode("doc_ids").rename({"doc_ids": "doc_id"}).drop_nulls("doc_id")
    rank = pl.col("split").replace_strict(order, default=5)
    return by_doc.sort(rank).unique("doc_id", keep="first", maintain_order=True).select("doc_id", "split")


def _mix(settings: Settings, recipe: str | None) -> MixManifest | None:
    """The newest mix, of this recipe or of any."""
    folders = [settings.mix_dir / recipe] if recipe else sorted(settings.mix_dir.glob("*"))
    found = [path for folder in folders if (path := Versions(folder, MixManifest.FILE).latest())]
    return MixManifest.read(max(found, key=lambda path: (path.parent / LATEST).stat().st_mtime)) if found else None


def _not_drawn(mix: MixManifest | None) -> pl.Expr:
    """Why a dialogue that is in no split of the mix is not: its recipe's bounds of length, else chance and shares."""
    if mix is None:
        return pl.lit("not_built_yet")
    why = pl.lit("not_drawn")
    for turn, bounds in (("first", "question_chars"), ("last", "answer_chars")):
        if wanted := mix.config.get("mix", {}).get(bounds):
            said = getattr(pl.col("messages").list, turn)().struct.field("content")
            why = pl.when(said.str.len_chars().is_between(*wanted)).then(why).otherwise(pl.lit("not_of_length"))
    return why


def _paired(settings: Settings) -> pl.DataFrame:
    """Posts that answer one that is here, or are answered: by the reply graph."""
    schema: dict[str, Any] = {"doc_id": pl.String, "paired": pl.Boolean}
    edges = _table(settings, "reply_graph", ["doc_id", "parent_doc"])
    if edges is None:
        return pl.DataFrame(schema=schema)
    edges = edges.drop_nulls("parent_doc")  # whose floor is gone answers nobody that is here
    ends = [edges["doc_id"], edges["parent_doc"].alias("doc_id")]
    return pl.concat(ends).unique().to_frame("doc_id").with_columns(paired=pl.lit(value=True))
