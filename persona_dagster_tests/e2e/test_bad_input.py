"""What goes wrong on a newcomer's machine, through the real assets: named, with its cure, and nothing lost."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import orjson
import pytest
from rich.console import Console

from persona_dagster.archive.archive import Archive
from persona_dagster.commands.progress_display import Display
from persona_dagster.config.sources import IMPORT_BOARD, load_sources
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.materialize_in_process import StepFailedError, Walk
from persona_dagster.settings import Settings


def walk_of(settings: Settings) -> Walk:
    return Walk(build_defs(settings), dg.DagsterInstance.ephemeral(), Display(Console(quiet=True)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes, as only root can make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    settings = Settings(home=small_disk, profile="tiny", hardware="cpu")
    walk = walk_of(settings)
    walk.step("notes_raw")
    archive = Archive(settings.raw_dir)
    before = {board: archive.digest("notes", board) for board in archive.boards("notes")}
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(StepFailedError, match=r"notes failed: .*\n.*move PERSONA_HOME to a larger disk"):
        walk.step("notes")
    assert {board: archive.digest("notes", board) for board in archive.boards("notes")} == before
    filler.unlink()
    walk.step("notes")
    assert walk.numbers("notes")["dagster/row_count"]


def test_a_missing_chromium_is_told_with_its_cure(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, profile="tiny", hardware="cpu", chromium=tmp_path / "no-such-browser")
    walk = walk_of(settings)
    with pytest.raises(StepFailedError, match=r"no-such-browser; .*apt install chromium"):
        walk.step("dcard_raw", load_sources(settings.config_dir, settings.profile).partitions("dcard")[0])


def test_a_corrupt_row_of_a_dump_is_told_and_the_rest_comes_in(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, profile="tiny", hardware="cpu")
    folder = settings.imports_dir / "ptt"
    folder.mkdir(parents=True)
    row = {"source": "ptt", "kind": "post", "text": "自己寫的一段文字，長度夠用來清理。", "board": "Hate"}
    lines = [orjson.dumps({**row, "id": f"M.16000000{n:02d}.A.ABC"}) for n in range(20)]
    lines[7] = b'{"source": "ptt", "board": '
    (folder / "dump.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    walk = walk_of(settings)
    walk.step("ptt_raw", IMPORT_BOARD)
    numbers = walk.numbers("ptt_raw", IMPORT_BOARD)
    assert numbers["rows_stored"] == 19 and numbers["rows_refused"] == 1
    assert "dump.jsonl.gz, row 8" in str(numbers["problems"])
