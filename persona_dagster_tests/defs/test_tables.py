"""The table IO manager: what is written whole, what is absent, and who waits for whom."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from dagster_duckdb import DuckDBResource

from persona_dagster.corpus.warehouse import Warehouse
from persona_dagster.defs.resources import TableIOManager
from persona_dagster.records import SPLIT_SCHEMA

ROWS = pl.DataFrame({"pair_id": ["a"], "component": ["a"], "split": ["train"]}, schema=SPLIT_SCHEMA)


def tables(home: Path) -> TableIOManager:
    duckdb_resource = DuckDBResource(database=str(home / "w.duckdb"))
    return TableIOManager(duckdb_resource, home / "exports")


def graph(frame: pl.DataFrame) -> list[dg.AssetsDefinition]:
    @dg.asset(io_manager_key="tables")
    def split() -> pl.DataFrame:
        return frame

    @dg.asset
    def reader(split: pl.DataFrame) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"rows": split.height})

    return [split, reader]


def run(home: Path, frame: pl.DataFrame, selection: str | None = None, *, fails: bool = False) -> int:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            graph(frame), instance=instance, resources={"tables": tables(home)}, selection=selection,
            raise_on_error=not fails,
        )  # fmt: skip
        if fails:
            assert not result.success
            return -1
        events = result.asset_materializations_for_node("reader")
        return int(events[0].metadata["rows"].value) if events else 0  # type: ignore[arg-type]


def test_what_is_written_is_read_from_parquet(tmp_path: Path) -> None:
    assert run(tmp_path, ROWS) == 1
    assert pl.read_parquet(tmp_path / "exports" / "split" / "all.parquet").equals(ROWS)


def test_what_was_never_made_is_absent(tmp_path: Path) -> None:
    assert run(tmp_path, ROWS, selection="reader") == 0


def test_a_frame_that_does_not_fit_leaves_what_is_stored(tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    run(tmp_path, ROWS.with_columns(extra=pl.lit(1)), fails=True)
    assert Warehouse(tmp_path / "w.duckdb").read("split").height == 1
    assert pl.read_parquet(tmp_path / "exports" / "split" / "all.parquet").equals(ROWS)


def hold(database: str, seconds: float, ready: multiprocessing.synchronize.Event) -> None:
    connection = duckdb.connect(database)
    ready.set()
    time.sleep(seconds)
    connection.close()


def test_a_reader_does_not_wait_for_a_writer_and_a_writer_waits_its_turn(tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "w.duckdb"), 4.0, ready))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(duckdb.IOException):
            duckdb.connect(str(tmp_path / "w.duckdb"))
        assert run(tmp_path, ROWS, selection="reader") == 1
        assert run(tmp_path, pl.concat([ROWS, ROWS.with_columns(pair_id=pl.lit("b"))])) == 2
    finally:
        other.join(30)
