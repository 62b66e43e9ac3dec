"""Writes a mix: train, validation and test JSONL, provenance.parquet, manifest.json and the data card, in a folder
named by content; then `latest` moves.

Text streams through in chunks: rows go to buckets by their place, each bucket is sorted and appended. Memory
is bounded by a chunk and a bucket, whatever the mix's size, and the bytes depend on neither.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import xxhash

from persona_dagster.artifacts import MixManifest, Versions
from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Mix, Recipe
from persona_dagster.config.split import SplitSpec
from persona_dagster.conversation.capybara import PERSONA as GENERAL
from persona_dagster.conversation.mix_data_card import write_card
from persona_dagster.conversation.mix_plan import PLAN_COLUMNS, MixError, MixPlan, plan_mix
from persona_dagster.conversation.sufficiency import learned_shares, shortfall
from persona_dagster.conversation.train_test_leakage import largest_jaccard, spoken
from persona_dagster.digest import combine, framed, json_digest, text_digest
from persona_dagster.models.chat_format import MARKERS, neutralise, system_message
from persona_dagster.records import PROVENANCE_SCHEMA

MIX_VERSION = "2"

CHUNK = 50_000  # dialogues held as text at a time
BUCKET = 100_000  # rows sorted at a time
ROW_GROUP = 100_000  # of provenance.parquet: part of its bytes

CountTokens = Callable[[list[str]], list[int]]

_OPEN = '{"messages":['
_MESSAGES = b'"messages":'


def write_mix(
    dialogues: pl.DataFrame | pl.LazyFrame,
    split: pl.DataFrame,
    recipe: Recipe,
    personas: Personas,
    folder: Path,
    *,
    count: CountTokens | None = None,
) -> MixManifest:
    """Writes folder/<digest>/ and points folder/latest at it; the same inputs give the same bytes.

    `dialogues` (DIALOGUE_SCHEMA; a lazy frame is read a chunk at a time) may hold personas that the recipe leaves
    out. `count` tells the tokens of texts, for a recipe whose unit is tokens. Raises `MixError` or `WeightError`
    before anything is written.
    """
    _check(dialogues.lazy())
    texts = _of_length(dialogues.lazy(), recipe.mix)
    tokens = _tokens(texts, recipe, count) if recipe.mix.unit == "tokens" else None
    plan = plan_mix(texts.select(PLAN_COLUMNS).collect(), split, recipe, personas, tokens)
    with mixes(folder).staging() as fresh:
        return _publish(_write(texts, plan, recipe, personas, fresh), fresh, folder)


def _of_length(dialogues: pl.LazyFrame, mix: Mix) -> pl.LazyFrame:
    """The dialogues whose first question and last answer, cleaned, are as long as the recipe wants them."""
    said = pl.col("messages").list
    for turn, wanted in ((said.first(), mix.question_chars), (said.last(), mix.answer_chars)):
        if wanted is not None:
            fits = turn.struct.field("content").str.len_chars().is_between(*wanted)
            dialogues = dialogues.filter(fits | (pl.col("persona") == GENERAL))
    return dialogues


def _check(dialogues: pl.LazyFrame) -> None:
    """Every dialogue asks and answers in turn, with something said in each turn."""
    columns = ("messages", "messages_raw")
    checked = dialogues.select("pair_id", "builder", *(_malformed(column) for column in columns))
    wrong = checked.filter(pl.any_horizontal(columns)).collect(engine="streaming")
    for column in columns:
        found = wrong.filter(column)
        if found.height:
            raise MixError(
                f"{found.height} dialogues are malformed in {column}, the first is {found['pair_id'][0]} "
                f"({found['builder'][0]}): turns must be user and assistant in turn, none empty"
            )


def _malformed(column: str) -> pl.Expr:
    content, role = (pl.element().struct.field(name) for name in ("content", "role"))
    turns = pl.col(column).list
    in_turn = pl.lit("user assistant ").repeat_by(turns.len() // 2).list.join("").str.strip_chars()
    silent = content.is_null() | (content.str.strip_chars() == "")
    wrong = (
        (turns.len() < 2)
        | (turns.len() % 2 == 1)
        | turns.eval(silent).list.any()
        | (turns.eval(role).list.join(" ") != in_turn)
    )
    return wrong.fill_null(value=True).alias(column)


def _tokens(dialogues: pl.LazyFrame, recipe: Recipe, count: CountTokens | None) -> dict[str, int]:
    """Tokens of the answers by pair_id, in the text that train will hold; at least one each."""
    if count is None:
        raise MixError(f"recipe {recipe.name} weighs by tokens: hand in the base model's counter, or set unit: rows")
    turns = pl.col("messages_raw" if recipe.mix.text == "raw" else "messages").list
    said = turns.eval(pl.element().filter(pl.element().struct.field("role") == "assistant").struct.field("content"))
    found: dict[str, int] = {}
    for batch in dialogues.select("pair_id", text=said.list.join("\n")).collect_batches(chunk_size=CHUNK):
        found |= {pair: max(1, n) for pair, n in zip(batch["pair_id"], count(batch["text"].to_list()), strict=True)}
    return found


def _write(dialogues: pl.LazyFrame, plan: MixPlan, recipe: Recipe, personas: Personas, fresh: Path) -> MixManifest:
    rows = plan.rows
    digests: list[str] = []
    files, chars = {}, {}
    for split in ("train", "validation", "test"):
        text = "messages_raw" if split == "train" and recipe.mix.text == "raw" else "messages"
        part = rows.filter(pl.col("split") == split)
        files[f"{split}.jsonl"], chars[split] = _write_rows(
            dialogues.select("pair_id", messages=text), part, personas, fresh / f"{split}.jsonl", digests
        )
    posts = dialogues.select("pair_id", "board", "doc_ids", "urls").collect()
    traced = rows.join(posts, on="pair_id", how="left", maintain_order="left")
    files["provenance.parquet"] = _write_provenance(traced, fresh / "provenance.parquet")
    train, test = (rows.filter(pl.col("split") == split) for split in ("train", "test"))
    text = "messages_raw" if recipe.mix.text == "raw" else "messages"
    learned = learned_shares(dialogues.select("pair_id", messages=text), rows, personas)
    manifest = MixManifest(
        digest=combine(digests),
        recipe=recipe.name,
        train_rows=train.height,
        test_rows=test.height,
        train_by_persona=_counts(train, "persona"),
        test_by_persona=_counts(test, "persona"),
        tagged=_counts(rows.filter("tagged"), "split"),
        by_source=_counts(train, "source"),
        by_builder=_counts(train, "builder"),
        weights=plan.weights,
        warnings=plan.warnings,
        learned=learned,
        shortfall=shortfall(learned, _counts(test, "persona"), recipe.mix, personas),
        largest_jaccard=_proof(dialogues, rows, recipe),
        chars=chars,
        files=files,
        config={
            "mix": recipe.mix.model_dump(mode="json"),
            "personas": json_digest(personas.model_dump(mode="json")),
            "version": MIX_VERSION,
        },
        folder=fresh,
    )
    _write_manifest(manifest, personas, fresh)
    return manifest


def _write_manifest(manifest: MixManifest, personas: Personas, fresh: Path) -> None:
    write_card(manifest, personas, fresh)
    manifest.write(fresh)


def _write_rows(
    texts: pl.LazyFrame, rows: pl.DataFrame, personas: Personas, path: Path, digests: list[str]
) -> tuple[dict[str, Any], int]:
    """The rows as JSON lines in the order of their place; appends each row's digest to `digests`."""
    count = max(1, -(-rows.height // BUCKET))
    buckets = [path.with_name(f".{path.name}.{number}") for number in range(count)]
    places = rows.select(
        "pair_id", "row_id", "persona", "tagged", "place", bucket=(pl.col("place") * count).cast(pl.Int64)
    )
    split, chars = path.stem, 0
    for number in buckets:
        number.mkdir()
    for serial, lines in enumerate(_lines(texts, places, personas)):
        chars += int(lines["chars"].sum())
        digests += row_digests(split, lines)
        kept = lines.select("bucket", "place", "row_id", "line")
        for (number,), part in kept.partition_by("bucket", as_dict=True, include_key=False).items():
            part.write_ipc(buckets[int(number)] / f"{serial}.arrow")
    sha, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for bucket in buckets:
            parts = [pl.read_ipc(part) for part in sorted(bucket.iterdir())]
            if parts:
                # The lines end to end, as Arrow keeps them: joined as text they would be copied thrice.
                data = pl.concat(parts).sort("place", "row_id")["line"].to_arrow().buffers()[2]
                sha.update(data)
                size += file.write(data)
            shutil.rmtree(bucket)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": sha.hexdigest(), "bytes": size, "rows": rows.height}, chars


def row_digests(split: str, rows: pl.DataFrame) -> list[str]:
    """`text_digest(row_id, persona, split, messages)` of every row; personas and split are framed once."""
    hashed = xxhash.xxh3_128_hexdigest
    middle = {persona: framed(persona) + framed(split) for persona in rows["persona"].unique()}
    named, lines = (rows[column].cast(pl.Binary).to_list() for column in ("row_id", "line"))
    said = (line[line.index(_MESSAGES) + len(_MESSAGES) : -2] for line in lines)  # without the line's "}\n"
    return [
        hashed(len(row).to_bytes(8, "little") + row + middle[persona] + len(text).to_bytes(8, "little") + text)
        for row, persona, text in zip(named, rows["persona"].to_list(), said, strict=True)
    ]


def _lines(texts: pl.LazyFrame, places: pl.DataFrame, personas: Personas) -> Iterator[pl.DataFrame]:
    """Chunks of `places` with `line` (JSON, its newline included) and `chars`."""
    heads = pl.DataFrame(
        {
            "persona": list(personas.personas),
            "head": [
                orjson.dumps({"role": "system", "content": system_message(persona)}).decode() + ","
                for persona in personas.personas.values()
            ],
        }
    )
    head = pl.when("tagged").then(pl.col("head").fill_null("")).otherwise(pl.lit(""))
    turns = pl.struct("messages").struct.json_encode().str.slice(len(_OPEN))  # to the end of the line: "...]}"
    # Where each row's text stands, so that a chunk meets its own rows alone: joined with all of them, time would grow
    # with the square of the mix.
    where = texts.select("pair_id").collect().with_row_index("at")
    places = places.join(where, on="pair_id", how="inner").sort("at")
    end = 0
    for batch in texts.collect_batches(chunk_size=CHUNK, maintain_order=True):
        start, end = end, end + batch.height
        first, last = places["at"].search_sorted(pl.Series([start, end], dtype=pl.UInt32))
        here = places.slice(first, last - first)
        if here.is_empty():
            continue
        wanted = here["at"].unique(maintain_order=True) - start
        chunk = _neutral(batch[wanted] if len(wanted) < batch.height else batch)
        chunk = chunk.select(
            turns=turns,
            chars=pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum(),
        )
        copies = chunk[here["at"].rle_id()]  # `here` is sorted: the n-th value is the n-th of the chunk
        lines = pl.concat([here, copies], how="horizontal").join(heads, on="persona", how="left", maintain_order="left")
        row_id, persona, closing = pl.lit('{"row_id":"'), pl.lit('","persona":"'), pl.lit('","messages":[')
        line = pl.concat_str(row_id, "row_id", persona, "persona", closing, head, "turns", pl.lit("\n"))
        yield lines.select("row_id", "persona", "place", "bucket", "chars", line=line)


def _neutral(chunk: pl.DataFrame) -> pl.DataFrame:
    """Template tokens made text. Hardly any row has one, so Python sees only those that match."""
    content = pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n")
    marked = chunk.select(content.str.contains(MARKERS)).to_series()
    if not marked.any():
        return chunk
    plain, evil = (~marked).arg_true(), marked.arg_true()
    told = [
        [{"role": turn["role"], "content": neutralise(turn["content"])} for turn in messages]
        for messages in chunk[evil]["messages"].to_list()
    ]
    mended = chunk[evil].with_columns(pl.Series("messages", told, chunk.schema["messages"]))
    return pl.concat([chunk[plain], mended])[pl.concat([plain, evil]).arg_sort()]


def _write_provenance(rows: pl.DataFrame, path: Path) -> dict[str, Any]:
    frame = rows.select(pl.col(name).cast(dtype) for name, dtype in PROVENANCE_SCHEMA.items()).sort("row_id")
    with path.open("wb") as file:
        frame.write_parquet(file, row_group_size=ROW_GROUP)
        file.flush()
        os.fsync(file.fileno())
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": frame.height}


def _proof(dialogues: pl.LazyFrame, rows: pl.DataFrame, recipe: Recipe) -> float:
    """How near the written train rows come to the written validation and test rows, in the text that was written."""
    said = []
    for learnt in (False, True):
        text = "messages_raw" if learnt and recipe.mix.text == "raw" else "messages"
        pairs = rows.lazy().filter((pl.col("split") == "train") == learnt).select("pair_id").unique()
        kept = dialogues.select("pair_id", messages=text).join(pairs, on="pair_id", how="semi").collect()
        if kept.is_empty():
            return 0.0
        said.append(spoken(kept))
    return largest_jaccard(said[1], said[0], SplitSpec().min_chars)


def _counts(rows: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(rows.group_by(column).len().sort(column).iter_rows())


def _publish(manifest: MixManifest, fresh: Path, folder: Path, point: bool = True) -> MixManifest:
    """Moves the finished directory to its name, then `latest`. A mix of that name is complete already: it stays."""
    return MixManifest.read(mixes(folder).publish(fresh, manifest.digest, point=point))


def mixes(folder: Path) -> Versions:
    """The mixes of one recipe: `folder/<digest>/`, and `folder/latest`."""
    return Versions(folder, MixManifest.FILE)


def drop_rows(mix: Path, row_ids: set[str], personas: Personas) -> MixManifest | None:
    """Writes the mix in `mix` anew without these rows, under its new digest, and deletes the old directory.

    `latest` moves along where it pointed there. None where no row of train or test would be left: the directory
    is deleted, and `latest` with it.
    """
    old, folder = MixManifest.read(mix), mix.parent
    points_here = mixes(folder).latest() == mix
    rows = pl.read_parquet(mix / "provenance.parquet").filter(~pl.col("row_id").is_in(list(row_ids)))
    made: MixManifest | None = None
    if rows.height and (rows["split"] == "train").any():
        with mixes(folder).staging() as fresh:
            made = _publish(_filtered(old, rows, row_ids, personas, fresh), fresh, folder, point=points_here)
    mixes(folder).remove(mix.name)
    return made


def _file_rows(path: Path) -> list[bytes]:
    """The rows of a mix file; none where the mix is older than its kind (validation came with 0.2)."""
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _filtered(old: MixManifest, rows: pl.DataFrame, row_ids: set[str], personas: Personas, fresh: Path) -> MixManifest:
    digests: list[str] = []
    files: dict[str, dict[str, Any]] = {}
    chars: dict[str, int] = {}
    for split in ("train", "validation", "test"):
        kept = [
            (line, row)
            for line in _file_rows(old.folder / f"{split}.jsonl")
            if (row := orjson.loads(line))["row_id"] not in row_ids
        ]
        for line, row in kept:
            messages = line[line.index(_MESSAGES) + len(_MESSAGES) : -2].decode()
            digests.append(text_digest(row["row_id"], row["persona"], split, messages))
        data = b"".join(line for line, _ in kept)
        (fresh / f"{split}.jsonl").write_bytes(data)
        chars[split] = sum(len(m["content"]) for _, row in kept for m in row["messages"] if m["role"] != "system")
        files[f"{split}.jsonl"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": len(kept)}
    files["provenance.parquet"] = _write_provenance(rows, fresh / "provenance.parquet")
    train, test = (rows.filter(pl.col("split") == split) for split in ("train", "test"))
    by_persona = _counts(train, "persona")
    weighed = sum(by_persona.get(weight["persona"], 0) for weight in old.weights)
    weights = [
        {
            **weight,
            "rows": by_persona.get(weight["persona"], 0),
            "reached": by_persona.get(weight["persona"], 0) / weighed,
        }
        for weight in old.weights
    ]
    manifest = old.model_copy(
        update={
            "digest": combine(digests),
            "train_rows": train.height,
            "test_rows": test.height,
            "train_by_persona": by_persona,
            "test_by_persona": _counts(test, "persona"),
            "tagged": _counts(rows.filter("tagged"), "split"),
            "by_source": _counts(train, "source"),
            "by_builder": _counts(train, "builder"),
            "weights": weights,
            "chars": chars,
            "files": files,
            "warnings": [
                *old.warnings,
                "rows were forgotten after this mix was made; materialise it again for its full weights",
            ],
            "folder": fresh,
        }
    )
    _write_manifest(manifest, personas, fresh)
    return manifest
