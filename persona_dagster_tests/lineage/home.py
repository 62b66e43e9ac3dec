"""A small PERSONA_HOME, made by the folders themselves: archive, tables, mixes, an adapter and what surrounds them."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest
from persona_dagster.config.personas import Personas
from persona_dagster.config.split import SplitSpec
from persona_dagster.conversation.builders import build_dialogues
from persona_dagster.conversation.mix import write_mix
from persona_dagster.conversation.split import split_dialogues, write_ledger
from persona_dagster.corpus.tables import Tables, write_parquet
from persona_dagster.digest import author_key, sha256
from persona_dagster.records import Capture, Outcome, Post, posts_frame
from persona_dagster.settings import Settings
from persona_dagster_tests.conversation.made import Words, recipe

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECRET = "那天下雨我在便利商店門口等了他三個小時"  # the line that must vanish
ADAPTER, RELEASE = "ada97e40" * 4, "4e1ea5e0" * 4
KEPT = "別人的故事裡有一隻會開門的橘貓叫做豆花"  # the line that must stay


def capture(key: str, kind: str, body: str) -> Capture:
    data = body.encode()
    url = f"https://www.dcard.tw/f/mood/p/{key}"
    return Capture("dcard", "mood", kind, key, url, NOW, 200, Outcome.OK, {}, data, sha256(data))


def pages(secret: bytes) -> tuple[list[Capture], list[Post]]:
    """Forty threads of a post and two answers; thread 7 holds the secret, thread 9 quotes it, the list excerpts it."""
    captures, posts = [], []
    for number in range(40):
        line = {7: SECRET, 9: f"樓上說「{SECRET}」我也一樣", 11: KEPT}.get(
            number, f"第{number}個人失戀之後的日記寫得很長"
        )
        texts = [
            f"{line}\n分手之後好難過{number}",
            *(f"抱抱你，第{number}{mark}位原po慢慢來，會好的" for mark in "甲乙"),
        ]
        found = capture(
            str(number), "post", orjson.dumps({"id": number, "texts": texts, "by": f"user{number}"}).decode()
        )
        captures.append(found)
        for place, text in enumerate(texts):
            posts.append(
                Post(
                    source="dcard",
                    board="mood",
                    kind="comment" if place else "post",
                    post_id=f"{number}-{place}" if place else str(number),
                    parent_id=str(number) if place else None,
                    thread_id=str(number),
                    url=f"{found.url}#{place}" if place else found.url,
                    author_key=author_key(secret, "dcard", f"user{number}" if not place else f"answer{number}{place}"),
                    created_at=NOW,
                    title=None if place else f"好難過的第{number}天",
                    text_raw=f"{text}\nB{place}\nSent from JPTT on my iPhone",
                    text=text,
                    score=5,
                    snapshot=found.sha256,
                )
            )
    listing = "\n".join(f"{post.title} {post.text}" for post in posts if post.kind == "post")
    return [*captures, capture("list", "list", listing)], posts


def personas() -> Personas:
    mentor = {
        "tag": "[感性感情導師]",
        "title": "mentor",
        "system_prompt": "你是感情導師。",
        "feeds": [{"builder": "top_comments", "sources": ["dcard"]}],
        "examples": [["失戀了", "抱抱你"]] * 5,
        "questions": ["失戀"],
        "probes": ["我失戀了"],
        "color": "#db2777",
    }
    return Personas.model_validate({"personas": {"mentor": mentor}})


def make_home(home: Path) -> tuple[Settings, MixManifest]:
    settings = Settings(home=home, archive_url=None)
    captures, posts = pages(settings.author_secret)
    Archive(settings.raw_dir).append(captures)
    return settings, furnish(settings, posts_frame(posts))


def furnish(settings: Settings, frame: pl.DataFrame) -> MixManifest:
    """What the graph makes of posts, and what surrounds it."""
    built = build_dialogues(frame, personas(), Words(mentor="抱抱")).frame
    split = split_dialogues(built, None, SplitSpec())
    tables = {"posts": frame, "dcard_posts": frame.filter(source="dcard"), "dialogues": built, "split": split.frame}
    for table, rows in tables.items():
        Tables(settings.tables_dir).write(table, "all", rows)
    write_ledger(split.ledger, settings.tables_dir / "split_ledger.parquet")
    config = settings.config_dir / "personas" / "mentor.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_bytes(orjson.dumps(personas().personas["mentor"].model_dump(mode="json")))  # JSON is YAML
    mix = write_mix(built, split.frame, recipe(), personas(), settings.mix_dir / "persona_v2")
    surround(settings, mix)
    return mix


def exported(kind: str, adapter: str) -> str:
    return orjson.dumps({"kind": kind, "adapter": adapter}).decode()


def surround(settings: Settings, mix: MixManifest) -> None:
    """What training, evaluation, Dagster and the operator leave behind, each holding rows of the mix."""
    train = (mix.folder / "train.jsonl").read_text(encoding="utf-8")
    adapter = settings.adapters_dir / "persona_v2" / ADAPTER
    files = {
        adapter / "run_card.json": orjson.dumps({"digest": ADAPTER, "mix_digest": mix.digest}).decode(),
        adapter / "samples.jsonl": train,
        settings.adapters_dir / "persona_v2" / "old" / "run_card.json": '{"digest": "old", "mix_digest": "another"}',
        settings.home / "checkpoints" / "persona_v2" / "state.json": "{}",
        settings.weights_dir / "persona_v2" / ADAPTER / "merged" / "export.json": exported("merged", ADAPTER),
        settings.weights_dir / "persona_v2" / "old" / "gguf" / "export.json": exported("gguf", "old"),
        settings.releases_dir / "persona_v2" / RELEASE / "release.json": exported("release", ADAPTER),
        settings.generations_dir / "persona_v2" / "g" / "generations.jsonl": train,
        settings.reports_dir / "persona_v2" / "r" / "report.html": f"<p>{train}</p>",
        settings.home / "judge" / "rows.jsonl": train,
        settings.home / "dagster" / "storage" / "run" / "compute_logs" / "step.out": train,
        settings.home / "cache" / "escaped.json": orjson.dumps(train).decode().encode("unicode_escape").decode(),
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    rows = pl.read_ndjson(train.encode()).select(
        "row_id", answer=pl.col("messages").list.first().struct.field("content")
    )
    write_parquet(rows, settings.generations_dir / "persona_v2" / "g" / "answers.parquet")
    backups = settings.home / "backups"
    backups.mkdir()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(mix.folder / "train.jsonl", "mix/train.jsonl")
    (backups / "2026-11-20.tar.gz").write_bytes(gzip.compress(packed.getvalue()))
    database = sqlite3.connect(settings.home / "dagster" / "runs.db")
    database.execute("CREATE TABLE events (body TEXT)")
    database.execute("INSERT INTO events VALUES ('rows 40')")
    database.commit()
    database.close()
