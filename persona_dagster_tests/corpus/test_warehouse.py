"""DuckDB: a partition is replaced whole or not at all, whatever happens to the writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import duckdb
import polars as pl
import pytest

from persona_dagster.corpus.warehouse import SchemaMismatchError, UnknownTableError, Warehouse, run_sql, write_parquet


def rows(count: int, mark: str = "a") -> pl.DataFrame:
    return pl.DataFrame({"id": [f"{mark}{n}" for n in range(count)], "n": list(range(count)), "tags": [["x"]] * count})


def test_partitions_are_replaced_and_read_back(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.replace("posts", "A", rows(3))
    warehouse.replace("posts", "B", rows(2, "b"))
    warehouse.replace("posts", "A", rows(1))
    assert warehouse.partitions("posts") == {"A": 1, "B": 2}
    assert warehouse.read("posts", "B").equals(rows(2, "b"))
    assert len(warehouse.read("posts")) == 3


def test_columns_go_by_name_and_a_wrong_schema_is_refused(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.replace("posts", "A", rows(2))
    warehouse.replace("posts", "B", rows(2).select("tags", "n", "id"))
    assert warehouse.read("posts", "B").equals(rows(2))
    with pytest.raises(SchemaMismatchError, match="n: BIGINT stored, absent given"):
        warehouse.replace("posts", "A", rows(2).drop("n"))
    assert warehouse.partitions("posts") == {"A": 2, "B": 2}


def test_merge_touches_only_what_differs(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.replace("posts", "A", rows(5))
    warehouse.replace("posts", "B", rows(5))
    changed = pl.concat([rows(4).with_columns(n=pl.when(pl.col("id") == "a1").then(99).otherwise("n")), rows(1, "new")])
    assert warehouse.merge("posts", "A", changed, ("id",)) == {"INSERT": 1, "UPDATE": 1, "DELETE": 1}
    assert warehouse.read("posts", "A").sort("id").equals(changed.sort("id"))
    assert warehouse.read("posts", "B").equals(rows(5))


def test_a_failed_write_leaves_the_old_rows_and_an_unlocked_file(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.replace("posts", "A", rows(3))
    with pytest.raises(duckdb.Error), warehouse._transaction() as connection:
        connection.execute("DELETE FROM posts")
        connection.execute("SELECT * FROM nowhere")
    assert warehouse.partitions("posts") == {"A": 3}


def test_reading_what_is_not_there(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    assert warehouse.partitions("posts") == {}
    warehouse.replace("posts", "A", rows(1))
    with pytest.raises(UnknownTableError, match="materialise"):
        warehouse.read("comments")
    with pytest.raises(ValueError, match="no name for a table"):
        warehouse.replace('posts"; DROP TABLE posts; --', "A", rows(1))


WRITER = """
import sys, polars as pl
from persona_dagster.corpus.warehouse import Warehouse
warehouse = Warehouse(sys.argv[1])
for turn in range(1, 10_000):
    frame = pl.DataFrame({"id": [f"{turn}-{n}" for n in range(4000)], "turn": [turn] * 4000})
    warehouse.replace("posts", "A", frame)
    print(turn, flush=True)
"""


def test_sigkill_during_a_write_loses_nothing(tmp_path, soak):
    """After each kill the partition holds one whole turn: the last that was reported, or the one under way."""
    path = tmp_path / "w.duckdb"
    for kill in range(25 if soak else 3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        reported = int(writer.stdout.readline())
        time.sleep(0.03 * (kill % 7))
        os.kill(writer.pid, signal.SIGKILL)
        reported = max([reported, *(int(line) for line in writer.stdout if line.strip().isdigit())])
        writer.wait()
        stored = Warehouse(path).read("posts", "A")
        assert stored["turn"].n_unique() == 1
        assert len(stored) == 4000
        assert stored["turn"][0] in (reported, reported + 1)


def test_parquet_appears_whole(tmp_path):
    target = write_parquet(rows(3), tmp_path / "deep" / "a.parquet")
    assert pl.read_parquet(target).equals(rows(3))
    assert [p.name for p in target.parent.iterdir()] == ["a.parquet"]


def test_sql_files_run_over_frames(tmp_path, monkeypatch):
    from persona_dagster.corpus import warehouse

    (tmp_path / "count.sql").write_text("SELECT count(*) AS n FROM posts WHERE n >= $least", encoding="utf-8")
    monkeypatch.setattr(warehouse, "SQL", tmp_path)
    assert run_sql("count", {"least": 2}, posts=rows(5)).item() == 3
