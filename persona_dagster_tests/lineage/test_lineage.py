"""Tracing both ways, and forgetting until a byte search over every store finds nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest, Versions
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.corpus.tables import Tables
from persona_dagster.lineage import byte_search, tombstones
from persona_dagster.lineage.forget import forget
from persona_dagster.lineage.forget_plan import UnknownTargetError
from persona_dagster.lineage.stored_artifacts import posts as stored_posts
from persona_dagster.lineage.trace import trace
from persona_dagster.records import posts_frame
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import ADAPTER, KEPT, RELEASE, SECRET, pages

URL = "https://www.dcard.tw/f/mood/p/7"


def holders(settings: Settings, text: str) -> set[str]:
    found = byte_search.find(settings.home, byte_search.spellings(text))
    return {path.relative_to(settings.home).parts[0] for path in found}


def raw(settings: Settings) -> bytes:
    return b"\n".join(capture.body for capture in Archive(settings.raw_dir).every("dcard", "mood"))


def test_a_forgotten_post_stands_nowhere(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    stores = "adapters backups cache dagster generations judge mix raw reports tables"
    assert " ".join(sorted(holders(settings, SECRET))) == stores, "the search must see it in every store before"
    before = holders(settings, KEPT)
    trained = mix.folder / "provenance.parquet"
    docs = {"dcard:mood:7", "dcard:mood:7-1", "dcard:mood:7-2"}
    quoting = "dcard:mood:9"  # stays, and loses the line
    saw = pl.read_parquet(trained).filter(
        (pl.col("split") == "train") & pl.col("doc_ids").list.eval(pl.element().is_in([*docs, quoting])).list.any()
    )
    report = forget(URL, settings)

    assert holders(settings, SECRET) == set() and report.left == []
    assert SECRET.encode() not in raw(settings) and KEPT.encode() in raw(settings)
    assert {"tables", "raw", "mix", "judge"} <= holders(settings, KEPT) <= before
    assert docs == set(report.docs) and quoting in set(stored_posts(settings)["doc_id"])
    assert not any(doc.startswith("dcard:mood:11") for doc in report.docs)
    stale = orjson.loads((settings.adapters_dir / "persona_v2" / ADAPTER / "forgotten.json").read_bytes())
    assert sorted(stale["rows"]) == sorted(saw["row_id"]) and stale["rows"]
    assert not (settings.adapters_dir / "persona_v2" / "old" / "forgotten.json").exists()
    assert not (settings.home / "checkpoints" / "persona_v2").exists()
    assert SECRET not in report.markdown() and "found nowhere" in report.markdown()


def test_what_an_author_answers_below_a_comment_goes_with_the_page(home: tuple[Settings, MixManifest]) -> None:
    """An inline reply of PTT: its parent is a comment of the page, not the page."""
    settings, _ = home
    posts = pl.read_parquet(settings.tables_dir / "posts" / "all.parquet")
    line = "這一句是原po在推文底下自己回的，頁面不在它也不在"
    added = {"kind": "reply", "post_id": "7-1.reply", "parent_id": "7-1", "doc_id": "dcard:mood:7-1.reply"}
    reply = posts.filter(pl.col("post_id") == "7-1").with_columns(
        *(pl.lit(value).alias(name) for name, value in added.items() if name in posts.columns),
        text=pl.lit(line),
        text_raw=pl.lit(line),
    )
    for table in ("posts", "dcard_posts"):
        Tables(settings.tables_dir).write(table, "all", pl.concat([posts, reply]))
    assert holders(settings, line) == {"tables"}
    report = forget(URL, settings)
    assert "dcard:mood:7-1.reply" in report.docs and report.left == []
    assert holders(settings, line) == set()


def test_what_was_made_of_a_stale_adapter_is_stale(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    merged = settings.weights_dir / "persona_v2" / ADAPTER / "merged"
    other = settings.weights_dir / "persona_v2" / "old" / "gguf"
    released = settings.releases_dir / "persona_v2" / RELEASE
    assert trace(URL, settings).models["state"].to_list() == ["current", "current"]
    report = forget(URL, settings)
    assert report.models == [f"release persona_v2/{RELEASE}", f"merged persona_v2/{ADAPTER}/merged"]
    assert "taken off the Hub by hand" in report.markdown()
    saw = report.adapters[f"persona_v2/{ADAPTER}"]
    for folder in (merged, released):
        assert orjson.loads((folder / "forgotten.json").read_bytes())["rows"] == sorted(saw)
    assert not (other / "forgotten.json").exists()
    for query, kind in ((ADAPTER, "adapter"), (RELEASE[:8], "release")):
        found = trace(query, settings)
        assert found.kind == kind and found.models["kind"].to_list() == ["release", "merged"]
        assert set(found.models["state"]) == {"stale: rows forgotten"} and RELEASE in found.markdown()


def test_weights_larger_than_a_block_are_searched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_search, "BLOCK", 64)
    monkeypatch.setattr(byte_search, "OVERLAP", 40)
    for at in range(50, 80):  # over the border between two blocks, and beside it
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(b"\xe5" * at + b"needle of twenty char" + b"\xe5" * 200)
        assert byte_search.find(tmp_path, [b"needle of twenty char"]) == [weights], at
        assert byte_search.find(tmp_path, [b"needle of twenty chat"]) == []


def test_an_adapter_is_marked_though_no_mix_holds_the_row_any_more(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    train = pl.read_parquet(mix.folder / "provenance.parquet").filter(split="train")
    doc = train.filter(~pl.col("doc_ids").list.contains("dcard:mood:7"))["doc_ids"][0][0]
    rows = train.filter(pl.col("doc_ids").list.contains(doc))["row_id"].to_list()
    (settings.adapters_dir / "persona_v2" / "old" / "rows.json").write_bytes(orjson.dumps({"train": rows}))
    shutil.rmtree(mix.folder.parent)
    assert set(forget(doc, settings).adapters["persona_v2/old"]) == set(rows)


def test_the_mix_is_whole_without_the_rows(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    report = forget(URL, settings)
    now = MixManifest.read(Versions(settings.mix_dir / "persona_v2", MixManifest.FILE).newest())
    gone = mix.train_rows + mix.test_rows - now.train_rows - now.test_rows
    assert gone == len(report.pairs) == 4 and not mix.folder.exists()
    sides = ("train", "test", "validation")
    lines = [(now.folder / f"{side}.jsonl").read_bytes().splitlines() for side in sides]
    assert [len(found) for found in lines[:2]] == [now.train_rows, now.test_rows]
    rows = pl.read_parquet(now.folder / "provenance.parquet")
    assert sorted(rows["row_id"]) == sorted(orjson.loads(line)["row_id"] for side in lines for line in side)
    assert now.digest == now.folder.name and "forgotten" in now.warnings[-1]


def test_mixes_on_a_store_forget_too(home: tuple[Settings, MixManifest]) -> None:
    """Also one that this machine no longer has, or never had."""
    settings, mix = home
    away = settings.model_copy(update={"mix_url": f"memory://{settings.home.parent.name}/mixes"})
    store = MixStore(str(away.mix_url))
    store.publish(mix.folder)
    shutil.rmtree(settings.mix_dir)
    report = forget(URL, away)
    assert report.mixes == [f"persona_v2/{mix.digest}"]
    stored = {path: store.fs.cat_file(path) for path in store.fs.find(store.root)}
    assert stored and not [path for path, data in stored.items() if SECRET.encode() in data or mix.digest in path]
    assert any(KEPT.encode() in data for data in stored.values())


def test_what_was_forgotten_does_not_come_back(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    forget(URL, settings)
    captures, posts = pages(settings.author_secret)
    Archive(settings.raw_dir).append([capture for capture in captures if capture.kind == "post"])
    assert b'"id":7,' not in raw(settings)
    cleaned = tombstones.without_forgotten(posts_frame(posts), settings.home)
    assert cleaned.filter(pl.col("thread_id") == "7").is_empty() and cleaned.height == 120 - 3
    assert Tables(settings.tables_dir).query("FROM posts").height == 120 - 3


def test_an_author_is_forgotten_by_name_and_named_nowhere(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    assert b'"user11"' in raw(settings)
    report = forget("dcard:user11", settings)
    assert b'"user11"' not in raw(settings) and holders(settings, KEPT) == set()
    assert byte_search.find(settings.home, [b"user11"]) == [] and "user11" not in report.markdown()
    assert len(tombstones.read(settings.home)[0].authors) == 1


def test_tombstones_may_name_what_they_keep_out(home: tuple[Settings, MixManifest]) -> None:
    """An article's text may hold its own address, and so the key that the archive's tombstone names."""
    settings, _ = home
    stone = settings.raw_dir / "dcard" / "mood" / "tombstones" / "earlier.json"
    stone.parent.mkdir(exist_ok=True)
    stone.write_bytes(orjson.dumps({"keys": [SECRET]}))
    assert forget(URL, settings).left == []
    assert orjson.loads(stone.read_bytes()) == {"keys": [SECRET]}


def test_unknown_targets_touch_nothing(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    for target in ("https://www.dcard.tw/f/mood/p/999", "dcard:mood:999", "dcard:nobody"):
        with pytest.raises(UnknownTargetError, match="names nothing stored"):
            forget(target, settings)
    assert mix.folder.exists() and not (settings.home / "tombstones").exists()


def test_a_row_is_traced_back_to_its_posts(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    row = pl.read_parquet(mix.folder / "provenance.parquet").filter(pl.col("split") == "train").row(0, named=True)
    for query in (row["row_id"], row["pair_id"]):
        found = trace(query, settings)
        assert set(found.posts["doc_id"]) == set(row["doc_ids"])
        assert found.rows["mix"].to_list() == [mix.digest] and found.adapters["adapter"].to_list() == [ADAPTER]
        assert row["doc_ids"][0] in found.markdown()


def test_a_post_is_traced_forward_to_rows_and_adapters(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    rows = pl.read_parquet(mix.folder / "provenance.parquet")
    expected = set(rows.filter(pl.col("doc_ids").list.contains("dcard:mood:12"))["row_id"])
    for query in ("dcard:mood:12", "https://www.dcard.tw/f/mood/p/12"):
        found = trace(query, settings)
        assert set(found.rows["row_id"]) == expected and len(expected) == 2
        assert found.dialogues["persona"].unique().to_list() == ["mentor"]


def test_a_sentence_finds_its_rows_or_none(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    found = trace(f"我聽說{KEPT}，真的嗎", settings)
    assert found.nearest["run"].max() == len(KEPT) and "no claim of a cause" in found.markdown()
    assert all(KEPT in text for text in found.nearest["text"].head(2))
    nothing = trace("量子力學的哥本哈根詮釋認為波函數會塌縮", settings)
    assert not nothing.found and "Nothing stored matches" in nothing.markdown()
    assert not trace("dcard:mood:999", settings).found


def test_tracing_an_empty_home_finds_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "none", archive_url=None)
    for query in ("0" * 32 + "-0", "ptt:Hate:M.1", "https://www.ptt.cc/x.html", "一句話沒有人說過的話"):
        assert not trace(query, settings).found
    assert not (tmp_path / "none").exists()


def test_a_model_is_traced_back_to_the_boards_it_learned_from(home: tuple[Settings, MixManifest]) -> None:
    settings, mix = home
    report = settings.reports_dir / "persona_v2" / "0123456789abcdef"
    report.mkdir(parents=True)
    (report / "metrics.json").write_bytes(orjson.dumps({"digest": "r", "run": {"digest": ADAPTER}, "verdict": "red"}))
    rows = pl.read_parquet(mix.folder / "provenance.parquet").filter(split="train")
    for query, kind in (
        (ADAPTER, "adapter"),
        (ADAPTER[:8], "adapter"),
        (str(settings.adapters_dir / "persona_v2" / ADAPTER), "adapter"),
        (report.name, "report"),
        (mix.digest, "mix"),
    ):
        found = trace(query, settings)
        assert (found.kind, found.folder) == (kind, mix.folder)
        assert found.made_of.row(0) == ("dcard", "mood", "mentor", rows.height, rows["doc_ids"].explode().n_unique())
        assert found.adapters["adapter"].to_list() == [ADAPTER] and found.reports["verdict"].to_list() == ["red"]
        assert "Trained on" in found.markdown() and "provenance.parquet" in found.markdown()
    assert not trace("deadbeef", settings).found


def test_an_adapter_whose_mix_is_gone_names_its_rows_itself(home: tuple[Settings, MixManifest]) -> None:
    """After a first forgetting the mix has another digest: the second one still finds who saw the row."""
    settings, mix = home
    train = pl.read_parquet(mix.folder / "provenance.parquet").filter(split="train")
    adapter = settings.adapters_dir / "persona_v2" / ADAPTER
    (adapter / "rows.json").write_bytes(orjson.dumps({"train": train["row_id"].to_list()}))
    forget(URL, settings)
    before = set(orjson.loads((adapter / "forgotten.json").read_bytes())["rows"])
    other = train.filter(~pl.col("row_id").is_in(list(before)))["doc_ids"][0][0]
    assert not mix.folder.exists() and trace(ADAPTER, settings).made_of["rows"].sum() == train.height - len(before)
    report = forget(other, settings)
    after = set(orjson.loads((adapter / "forgotten.json").read_bytes())["rows"])
    assert before < after and report.adapters[f"persona_v2/{ADAPTER}"]
    assert trace(other, settings).adapters.is_empty()
