"""Tables: a partition is replaced whole or not at all, and the catalogue shows what is there, whoever holds it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from persona_dagster.corpus import tables as module
from persona_dagster.corpus.tables import QueryError, SchemaMismatchError, Tables, run_sql, write_parquet

SCHEMA = pl.Schema({"id": pl.String, "n": pl.Int64, "tags": pl.List(pl.String)})


def rows(count: int, mark: str = "a") -> pl.DataFrame:
    return pl.DataFrame({"id": [f"{mark}{n}" for n in range(count)], "n": list(range(count)), "tags": [["x"]] * count})


def test_partitions_are_replaced_and_read_back(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("posts", "A", rows(3))
    tables.write("posts", "失戀/B", rows(2, "b"))
    tables.write("posts", "A", rows(1))
    assert tables.partitions("posts") == ["A", "失戀/B"]
    assert tables.read("posts", SCHEMA, ["失戀/B"]).equals(rows(2, "b"))
    assert tables.read("posts", SCHEMA).height == 3
    assert tables.read("posts", SCHEMA, ["never made"]).height == 0


def test_columns_go_by_name_and_a_wrong_schema_leaves_what_is_stored(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("posts", "A", rows(2), SCHEMA)
    tables.write("posts", "B", rows(2).select("tags", "n", "id"), SCHEMA)
    assert tables.read("posts", SCHEMA, ["B"]).equals(rows(2))
    with pytest.raises(SchemaMismatchError, match=r"'posts', partition 'A': n: Int64 wanted, absent found"):
        tables.write("posts", "A", rows(2).drop("n"), SCHEMA)
    assert tables.read("posts", SCHEMA).height == 4


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("posts", "A", rows(2).drop("tags"))
    with pytest.raises(SchemaMismatchError, match="partition 'A': tags"):
        tables.read("posts", SCHEMA)


def test_any_client_sees_new_rows_through_the_catalogue(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write("posts", "A", rows(3))
    with duckdb.connect(str(tables.catalogue_path), read_only=True) as client:
        assert client.execute("SELECT count(*) FROM posts").fetchall() == [(3,)]
        tables.write("posts", "B", rows(2))  # while somebody reads
        assert client.execute("SELECT count(*) FROM posts").fetchall() == [(5,)]
    made = tables.catalogue_path.stat().st_ino
    tables.write("posts", "C", rows(1))
    assert tables.catalogue_path.stat().st_ino == made, "a new partition needs no new catalogue"


@pytest.mark.parametrize("fault", ["deleted", "damaged", "moved", "new table", "other columns"])
def test_a_catalogue_that_is_missing_or_old_is_made_anew(tmp_path: Path, fault: str) -> None:
    tables = Tables(tmp_path / "home")
    tables.write("posts", "A", rows(3))
    match fault:
        case "deleted":
            tables.catalogue_path.unlink()
        case "damaged":
            tables.catalogue_path.write_bytes(b"no database")
        case "moved":
            shutil.move(tmp_path / "home", tmp_path / "elsewhere")
            tables = Tables(tmp_path / "elsewhere")
        case "new table":
            write_parquet(rows(3), tables.path("notes"))
            assert tables.query("SELECT count(*) FROM notes").item() == 3
        case "other columns":
            write_parquet(rows(3).with_columns(more=pl.lit(1)), tables.path("posts", "A"))
            assert tables.query("SELECT sum(more) FROM posts").item() == 3
    assert tables.query("SELECT count(*) FROM posts").item() == 3


FOREIGN = (
    "import duckdb, sys; held = duckdb.connect(sys.argv[1]); held.execute('CREATE TABLE own AS SELECT 1');"
    "print('held', flush=True); sys.stdin.read()"
)


def test_somebody_who_writes_into_the_catalogue_holds_up_nobody(tmp_path: Path) -> None:
    """Neither while he has it open, nor by the log that he leaves beside it."""
    tables = Tables(tmp_path)
    tables.write("posts", "A", rows(3))
    command = [sys.executable, "-c", FOREIGN, str(tables.catalogue_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        tables.write("posts", "B", rows(2))
        assert tables.query("SELECT count(*) FROM posts").item() == 5
        other.kill()
    assert tables.query("SELECT count(*) FROM posts").item() == 5


def test_a_query_cannot_write_and_a_wrong_one_names_the_tables(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    with pytest.raises(QueryError, match="materialise `posts` first"):
        tables.query("FROM posts")
    tables.write("posts", "A", rows(1))
    with pytest.raises(QueryError, match="tables: posts"):
        tables.query("FROM comments")
    with pytest.raises(QueryError, match="read-only"):
        tables.query("CREATE TABLE more AS SELECT 1")
    with pytest.raises(ValueError, match="no name for a table"):
        tables.write('posts"; DROP TABLE posts; --', "A", rows(1))


WRITER = """
import sys, pathlib, polars as pl
from persona_dagster.corpus.tables import Tables
tables = Tables(pathlib.Path(sys.argv[1]))
for turn in range(1, 10_000):
    frame = pl.DataFrame({"id": [f"{turn}-{n}" for n in range(4000)], "turn": [turn] * 4000})
    tables.write("posts", "A", frame)
    print(turn, flush=True)
"""


def test_sigkill_during_a_write_loses_nothing(tmp_path: Path, soak: bool) -> None:
    """After each kill the partition holds one whole turn: the last that was reported, or the one under way."""
    for kill in range(25 if soak else 3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        reported = int(writer.stdout.readline())
        time.sleep(0.03 * (kill % 7))
        os.kill(writer.pid, signal.SIGKILL)
        reported = max([reported, *(int(line) for line in writer.stdout if line.strip().isdigit())])
        writer.wait()
        stored = Tables(tmp_path).query("SELECT count(*) AS rows, min(turn) AS low, max(turn) AS high FROM posts")
        count, low, high = stored.row(0)
        assert (count, low) == (4000, high)
        assert low in (reported, reported + 1)


def test_parquet_appears_whole(tmp_path: Path) -> None:
    target = write_parquet(rows(3), tmp_path / "deep" / "a.parquet")
    assert pl.read_parquet(target).equals(rows(3))
    assert [p.name for p in target.parent.iterdir()] == ["a.parquet"]


def test_sql_files_run_over_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "count.sql").write_text("SELECT count(*) AS n FROM posts WHERE n >= $least", encoding="utf-8")
    monkeypatch.setattr(module, "SQL", tmp_path)
    assert run_sql("count", {"least": 2}, posts=rows(5)).item() == 3
