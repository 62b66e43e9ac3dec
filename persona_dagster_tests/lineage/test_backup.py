"""Backup and restore: everything comes back byte for byte, nothing that was forgotten does."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest, Versions
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.corpus.tables import Tables
from persona_dagster.filesystem import open_store
from persona_dagster.intake.notes import read_notes
from persona_dagster.lineage import backup as backups
from persona_dagster.lineage import backup_copies, byte_search, forget, stored_artifacts, tombstones
from persona_dagster.lineage.backup import BackupError, backup, restore, verify
from persona_dagster.records import posts_frame
from persona_dagster.settings import Settings
from persona_dagster_tests.conversation.test_mix_store import make as make_mix

NOTE = "# 斷詞\n\n## 什麼是斷詞？\n\n斷詞是把一句話切成詞的工作，中文沒有空格，所以要先做這一步才好往下。\n"
SECRET_NOTE = "# 私事\n\n## 誰的私事？\n\n這一段是有人後來要求刪除的文字，備份還原之後也不可以再出現。\n"
SECRET_WORDS = "後來要求刪除的文字，備份還原"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with notes in archive and table, an adapter, and Dagster's storage."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = Settings(home=tmp_path / "home", profile="tiny")
    home.notes_dir.mkdir(parents=True)
    (home.notes_dir / "a.md").write_text(NOTE, encoding="utf-8")
    (home.notes_dir / "b.md").write_text(SECRET_NOTE, encoding="utf-8")
    archive = Archive(home.raw_dir)
    archive.append(read_notes(home.notes_dir))
    captures = [capture for board in archive.boards("notes") for capture in archive.latest("notes", board)]
    frame = posts_frame(parse_board(captures, str).posts).with_columns(text=pl.col("text_raw"))
    Tables(home.tables_dir).write("notes", "all", frame)
    adapter = home.adapters_dir / "persona_v2" / "abc"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    for folder in (home.intake_dir, home.quarantine_dir, home.labels_dir, home.weights_dir):
        folder.mkdir()
        (folder / "kept.bin").write_bytes(b"\x00\x01")
    dagster = home.home / "dagster" / "history"
    dagster.mkdir(parents=True)
    with sqlite3.connect(dagster / "runs.db") as runs:
        runs.execute("PRAGMA journal_mode = WAL")  # as Dagster's event logs
        runs.execute("CREATE TABLE runs (id INTEGER)")
        runs.execute("INSERT INTO runs VALUES (1)")
    runs.close()
    assert home.author_secret
    return home


def contents(home: Path) -> dict[str, bytes]:
    """Files by name; not the databases, whose bytes differ from copy to copy, nor the register of backups."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and not path.name.endswith((".db", ".duckdb"))
        and path.name not in (backup_copies.REGISTER, ".forgetting.lock")
        and not backup_copies.derived(path)
        and tombstones.FOLDER not in path.parts
    }


def test_a_lost_home_comes_back_whole(settings: Settings, tmp_path: Path) -> None:
    before, table = contents(settings.home), Tables(settings.tables_dir).query("FROM notes")
    report = backup(settings, tmp_path / "copy", models=True)
    assert report.files == len(verify(tmp_path / "copy")) >= 8
    backup(settings, tmp_path / "small")
    small = tmp_path / "small"
    assert not (small / "weights").exists()
    assert all((small / kept / "kept.bin").is_file() for kept in ("intake", "labels", "quarantine"))
    settings.home.rename(tmp_path / "lost")
    restored = restore(settings, tmp_path / "copy")
    assert contents(settings.home) == before
    assert restored.forgotten_again == []
    assert Tables(settings.tables_dir).query("FROM notes").equals(table)
    with sqlite3.connect(settings.home / "dagster" / "history" / "runs.db") as runs:
        assert runs.execute("SELECT id FROM runs").fetchall() == [(1,)]
    runs.close()
    assert (settings.home / "author.key").stat().st_mode & 0o077 == 0


def test_mixes_and_archive_of_a_store_are_held_and_sent_back(settings: Settings, tmp_path: Path) -> None:
    """Both live on stores; the newest mix was made by another machine, and nothing of it stands in this home."""
    stores_at = {"mix_url": str(tmp_path / "mixes"), "archive_url": f"memory://{tmp_path.name}/raw"}
    away = settings.model_copy(update=stores_at)
    Archive(stores_at["archive_url"]).append(read_notes(settings.notes_dir))
    shutil.rmtree(settings.raw_dir)
    elsewhere = tmp_path / "elsewhere"
    sizes = ({"assistant": 30, "mentor": 30, "mouthpiece": 30}, {"assistant": 30, "mentor": 40, "mouthpiece": 30})
    for many in sizes:
        newest = make_mix(elsewhere, **many)
        MixStore(stores_at["mix_url"]).publish(newest.folder)
    backup(away, tmp_path / "copy")
    shutil.rmtree(tmp_path / "mixes")
    shutil.rmtree(settings.home)
    filesystem, root = open_store(stores_at["archive_url"])
    filesystem.rm(root, recursive=True)
    restore(away, tmp_path / "copy")
    assert contents(tmp_path / "mixes") == contents(elsewhere)
    assert Versions(settings.mix_dir / "persona_v2", MixManifest.FILE).newest().name == newest.digest
    assert not settings.raw_dir.exists()
    archive = Archive(stores_at["archive_url"])
    assert sum(len(list(archive.latest("notes", board))) for board in archive.boards("notes")) == 2


def test_what_was_there_is_moved_aside(settings: Settings, tmp_path: Path) -> None:
    backup(settings, tmp_path / "copy")
    (settings.home / "newer.txt").write_text("later work", encoding="utf-8")
    restore(settings, tmp_path / "copy")
    aside = next(tmp_path.glob("home.before-restore-*"))
    assert (aside / "newer.txt").read_text(encoding="utf-8") == "later work"
    assert not (settings.home / "newer.txt").exists()


def secret(settings: Settings) -> str:
    rows = stored_artifacts.posts(settings)
    return str(rows.filter(pl.col("text_raw").str.contains(SECRET_WORDS))["doc_id"][0])


def holders(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in byte_search.find(folder, byte_search.spellings(SECRET_WORDS))]


def test_a_backup_forgets_too_and_stays_whole(settings: Settings, tmp_path: Path) -> None:
    backup(settings, tmp_path / "copy")
    assert {name.split("/")[0] for name in holders(tmp_path / "copy")} == {"notes", "raw", "tables"}
    report = forget.forget(secret(settings), settings)
    assert report.left == [] and report.copies == ["copy"]
    assert holders(tmp_path / "copy") == [] and holders(settings.home) == ["forgotten/notes/b.md"]
    assert (settings.home / "forgotten/notes/b.md.note.txt").is_file() and report.moved == ["forgotten/notes/b.md"]
    shutil.rmtree(settings.home / "forgotten")  # what its owner does then
    assert verify(tmp_path / "copy")
    restored = restore(settings, tmp_path / "copy")
    assert restored.forgotten_again == [] and holders(settings.home) == []
    assert stored_artifacts.posts(settings).height == 1
    assert holders(next(tmp_path.glob("home.before-restore-*"))) == []


def test_what_a_restore_moved_aside_forgets_too(settings: Settings, tmp_path: Path) -> None:
    backup(settings, tmp_path / "copy")
    restore(settings, tmp_path / "copy")
    assert holders(next(tmp_path.glob("home.before-restore-*")))
    report = forget.forget(secret(settings), settings)
    assert report.left == [] and len(report.copies) == 2
    assert holders(tmp_path) == ["home/forgotten/notes/b.md"]


def test_forgotten_since_the_backup_stays_forgotten(settings: Settings, tmp_path: Path) -> None:
    """The backup lay elsewhere meanwhile: the report says so, and the restore forgets again."""
    backup(settings, tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "away")
    doc = secret(settings)
    report = forget.forget(doc, settings)
    assert len(report.left) == 1 and "not there to be searched" in report.left[0]
    assert holders(tmp_path / "away")
    restored = restore(settings, tmp_path / "away")
    assert doc in restored.forgotten_again
    assert holders(tmp_path) == ["home/forgotten/notes/b.md"]
    archive = Archive(settings.raw_dir)
    assert [c.body for board in archive.boards("notes") for c in archive.every("notes", board)]


@pytest.mark.parametrize("harm", ["cut", "flip", "missing", "extra", "manifest"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(settings: Settings, tmp_path: Path, harm: str) -> None:
    backup(settings, tmp_path / "copy")
    path = tmp_path / "copy" / "adapters" / "persona_v2" / "abc" / "adapter_model.safetensors"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "flip":
        path.write_bytes(b"\xff" + path.read_bytes()[1:])
    elif harm == "missing":
        path.unlink()
    elif harm == "extra":
        (path.parent / "more").write_bytes(b"?")
    else:
        (tmp_path / "copy" / backups.MANIFEST).unlink()
    before = contents(settings.home)
    with pytest.raises(BackupError, match=r"manifest\.json|not as they were written"):
        restore(settings, tmp_path / "copy")
    assert contents(settings.home) == before


def test_a_backup_is_never_written_over_or_into_the_home(settings: Settings, tmp_path: Path) -> None:
    backup(settings, tmp_path / "copy")
    with pytest.raises(BackupError, match="there already"):
        backup(settings, tmp_path / "copy")
    with pytest.raises(BackupError, match="lies within"):
        backup(settings, settings.home / "copy")


def test_runs_may_go_on_while_a_backup_is_made(settings: Settings, tmp_path: Path) -> None:
    """A writer keeps writing runs and tables: each copied database is one that stood at some moment."""
    stop, written = threading.Event(), []
    path = settings.home / "dagster" / "history" / "runs.db"

    def write() -> None:
        number = 1
        with sqlite3.connect(path, timeout=30) as runs:
            while not stop.is_set():
                number += 1
                runs.execute("INSERT INTO runs VALUES (?)", (number,))
                runs.commit()
                written.append(number)
        runs.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup(settings, tmp_path / "copy")
    finally:
        stop.set()
        writer.join()
    with sqlite3.connect(tmp_path / "copy" / "dagster" / "history" / "runs.db") as runs:
        assert runs.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ids = [row[0] for row in runs.execute("SELECT id FROM runs ORDER BY id")]
    runs.close()
    assert ids == list(range(1, len(ids) + 1))
    assert len(written) > 1
