"""Published files: whole or absent, `latest` last, records that say what is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persona_dagster.artifacts import (
    LATEST,
    ArtifactError,
    Job,
    MixManifest,
    NotPublishedError,
    RunCard,
    Versions,
    families,
    replacing,
    write_json,
    write_text,
    writing,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), writing(path) as fresh:
        fresh.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_a_full_one(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for content in ("first", "second"):
        with replacing(target) as folder:
            (folder / "x").write_text(content, encoding="utf-8")
    assert (target / "x").read_text(encoding="utf-8") == "second"
    assert list(tmp_path.iterdir()) == [target]


def test_json_has_no_nan(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"b": [float("nan"), 1.5], "a": {"x": float("inf")}})
    assert json.loads(path.read_bytes()) == {"a": {"x": None}, "b": [None, 1.5]}


def published(versions: Versions, digest: str) -> Path:
    with versions.publishing(digest) as folder:
        write_json(folder / versions.holds, {"digest": digest, "mix_digest": "m"})
    return versions.folder / digest


def test_latest_moves_with_what_is_published(tmp_path: Path) -> None:
    versions = Versions(tmp_path / "persona_v2", RunCard.FILE)
    assert versions.latest() is None
    with pytest.raises(NotPublishedError, match="persona_v2: nothing published yet"):
        versions.newest()
    first, second = (published(versions, name) for name in ("a" * 32, "b" * 32))
    assert versions.newest() == second
    versions.point(first.name)
    assert versions.all() == [first, second]
    assert RunCard.read(versions.newest()).digest == first.name
    assert families(tmp_path, RunCard.FILE) == {"persona_v2": versions}


def test_a_version_that_is_there_stays(tmp_path: Path) -> None:
    versions = Versions(tmp_path / "r", RunCard.FILE)
    first = published(versions, "a")
    number = first.stat().st_ino
    published(versions, "a")
    assert first.stat().st_ino == number
    (first / RunCard.FILE).unlink()  # half deleted: no version
    assert versions.latest() is None and versions.all() == []
    published(versions, "a")
    assert versions.newest() == first


def test_prune_keeps_the_newest_and_the_latest(tmp_path: Path) -> None:
    versions = Versions(tmp_path / "r", RunCard.FILE)
    for age, name in enumerate("abcd"):
        made = published(versions, name)
        os.utime(made, (time.time() + age, time.time() + age))
    versions.point("a")
    assert versions.prune(2) == ["c", "b"]
    assert [path.name for path in versions.all()] == ["a", "d"]
    versions.remove("a")
    assert versions.latest() is None and not (versions.folder / LATEST).exists()


def test_a_kill_while_publishing_leaves_the_old_version(tmp_path: Path) -> None:
    """SIGKILL in the middle of twenty publications: `latest` names a whole version each time."""
    program = """
import sys
from pathlib import Path
from persona_dagster.artifacts import Versions, write_json
versions = Versions(Path(sys.argv[1]), "run_card.json")
for number in range(100000):
    with versions.publishing(f"{number:032x}") as folder:
        for name in ("a.json", "b.json", "run_card.json"):
            write_json(folder / name, {"number": number})
    print(number, flush=True)
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.kill()
        process.wait()
        newest = Versions(tmp_path, "run_card.json").newest()
        assert {path.name for path in newest.iterdir()} == {"a.json", "b.json", "run_card.json"}


def test_a_record_names_its_file_and_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotPublishedError, match=r"manifest\.json: not there"):
        MixManifest.read(tmp_path)
    for text in ("{", "[]", '{"train_rows": 1}', '{"digest": "a", "train_rows": "many"}'):
        (tmp_path / MixManifest.FILE).write_text(text, encoding="utf-8")
        with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read"):
            MixManifest.read(tmp_path)
    MixManifest(digest="a", train_rows=3).write(tmp_path)
    assert "folder" not in json.loads((tmp_path / MixManifest.FILE).read_bytes())
    assert MixManifest.read(tmp_path).folder == tmp_path


def test_a_job_is_read_back_or_refused(tmp_path: Path) -> None:
    class Errand(Job):
        rows: int

    path = Errand(rows=3).save(tmp_path / "jobs" / "errand.json")
    assert Errand.load(path) == Errand(rows=3)
    write_text(path, '{"rows": 3, "colour": "red"}')
    with pytest.raises(ArtifactError, match=r"errand\.json: no Errand \(colour"):
        Errand.load(path)
