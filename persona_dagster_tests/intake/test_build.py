"""`persona build` up to the posts, in this process: only what was imported, and the rows that `persona clean` gives."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import dagster as dg
import orjson
import polars as pl
import pytest
from rich.console import Console

from persona_dagster.archive.archive import Archive
from persona_dagster.commands.progress_display import Display
from persona_dagster.config.loading import ConfigError
from persona_dagster.config.personas import load_personas
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.build_own_data import NothingImportedError, run
from persona_dagster.digest import author_key
from persona_dagster.intake.capybara import PACKAGED, read_dialogues
from persona_dagster.intake.import_to_archive import take_in
from persona_dagster.settings import Settings
from persona_dagster_tests.intake.test_ledger import FLAT, POST

JUDGED = ["source", "board", "id", "kind", "parent_id", "text", "quoted", "lang", "flags", "author", "score"]
ROWS: list[object] = [
    POST | {"id": "M.1600000000.A.ABC", "source": "PTT", "author": "kitty99"},
    POST | {"id": "M.1600000000.A.ABC", "text": "又是同一篇，換了一個版本的內文在這裡"},
    {"source": "ptt", "kind": "comment", "parent_id": "M.1600000000.A.ABC", "text": "推 dog1: 打 0912345678 給我"},
    {"source": "ptt", "kind": "post_flat", "text": FLAT},
    {"source": "批踢踢", "kind": "title", "id": "M.1600000007.A.ABC", "board": "Hate", "text": "Re: Re: [抱怨] 主管"},
    {"source": "dcard", "kind": "post", "id": "9", "board": "心情", "text": "https://i.imgur.com/a.jpg\n好累喔"},
    {"source": "dcard", "kind": "reply", "id": "10", "parent_id": "9", "floor": 3, "text": "B1 抱抱😂😂😂😂😂"},
    {"source": "threads", "kind": "reply", "id": "11", "parent_id": "12", "text": "@some.body 笑死 #上班 #心累"},
    {"source": "threads", "kind": "post", "text": "这个人说的话很奇怪，我们都不明白他的意思。"},
    b'{"source": "ptt", "te',
    {"source": "ptt", "kind": "post", "board": "sex", "text": "不該進來的板"},
]


def test_persona_clean_and_the_graph_give_the_same_rows(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", archive_url=None, hardware="cpu")
    settings.imports_dir.mkdir(parents=True)
    path = settings.imports_dir / "mine.jsonl"
    lines = b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + lines + b"\n")
    shown = Console(file=io.StringIO(), width=200)
    with dg.DagsterInstance.ephemeral() as instance:
        run(settings, "persona_v2", "posts", instance, Display(shown))
    told = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "profile own: what you imported, and nothing else" in told
    posts = pl.read_parquet(settings.tables_dir / "posts" / "all.parquet")
    posts = posts.rename({"post_id": "id", "author_key": "author"})

    own = settings.model_copy(update={"profile": "own"})
    key = lambda source, author: author_key(own.author_secret, source, author)  # noqa: E731
    sources, personas = load_sources(own.config_dir, "own"), load_personas(own.config_dir).personas
    clean_file(path, tmp_path / "out.jsonl", sources, personas=personas, author_key=key)
    cleaned = pl.read_ndjson(
        tmp_path / "out.jsonl", schema_overrides={"flags": pl.List(pl.String)}, infer_schema_length=None
    )
    assert cleaned.height == posts.height == 10
    by = ["source", "board", "id", "kind"]
    wanted = posts.select(JUDGED).sort(by)
    assert cleaned.select(JUDGED).cast(wanted.schema).sort(by).equals(wanted)


def test_dialogues_of_an_earlier_demo_stay_out(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", archive_url=None, hardware="cpu", profile="own")
    archive = Archive(settings.raw_dir)
    archive.append(read_dialogues(PACKAGED))
    settings.imports_dir.mkdir(parents=True)
    turns = [{"role": "user", "content": "What is a slope?"}, {"role": "assistant", "content": "Rise over run."}]
    (settings.imports_dir / "mine.jsonl").write_bytes(orjson.dumps({"source": "Own", "messages": turns}) + b"\n")
    take_in(settings, archive)
    with dg.DagsterInstance.ephemeral() as instance:
        build_defs(settings).resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("capybara_dialogues")]
        )
    made = pl.read_parquet(settings.tables_dir / "capybara_dialogues" / "all.parquet")
    assert [one[0]["content"] for one in made["messages"]] == ["What is a slope?"]


def test_what_there_is_nothing_to_build_from_is_said(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", archive_url=None, hardware="cpu")
    quiet = partial(run, settings, instance=None, display=Display(Console(file=io.StringIO())))  # type: ignore[arg-type]
    with pytest.raises(NothingImportedError, match="persona import PATH"):
        quiet("persona_v2", "posts")
    settings.imports_dir.mkdir(parents=True)
    (settings.imports_dir / "mine.jsonl").write_bytes(orjson.dumps(POST) + b"\n")
    with pytest.raises(ConfigError, match="no 'nobody'; there are"):
        quiet("nobody", "mix")
