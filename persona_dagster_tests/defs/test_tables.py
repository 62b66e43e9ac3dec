"""The table IO manager: what is written whole, what is absent, and who waits for whom."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from dagster_duckdb import DuckDBResource

from persona_dagster.corpus.tables import Tables
from persona_dagster.defs.checks import build_checks
from persona_dagster.defs.columns import COMES_FROM, column_lineage
from persona_dagster.defs.resources import SCHEMAS, UPSTREAM, ProjectResource, TableIOManager
from persona_dagster.records import POST_SCHEMA, SPLIT_SCHEMA, Post, posts_frame
from persona_dagster.settings import Settings

CHECKS = ("keys_unique", "no_personal_data")
ROWS = pl.DataFrame({"pair_id": ["a"], "component": ["a"], "split": ["train"]}, schema=SPLIT_SCHEMA)


def tables(home: Path) -> TableIOManager:
    return TableIOManager(Tables(home / "tables"))


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
    assert pl.read_parquet(tmp_path / "tables" / "split" / "all.parquet").equals(ROWS)


def test_what_was_never_made_is_absent(tmp_path: Path) -> None:
    assert run(tmp_path, ROWS, selection="reader") == 0


def test_a_frame_that_does_not_fit_leaves_what_is_stored(tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    run(tmp_path, ROWS.with_columns(extra=pl.lit(1)), fails=True)
    assert pl.read_parquet(tmp_path / "tables" / "split" / "all.parquet").equals(ROWS)


def hold(database: str, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with duckdb.connect(database):  # for writing: nobody else can open this file meanwhile
        ready.set()
        done.wait(120)


def test_another_process_that_holds_the_catalogue_fails_nothing(tmp_path: Path) -> None:
    run(tmp_path, ROWS)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "tables" / "corpus.duckdb"), ready, done))
    other.start()
    try:
        assert ready.wait(60)
        assert run(tmp_path, ROWS, selection="reader") == 1
        assert run(tmp_path, pl.concat([ROWS, ROWS.with_columns(pair_id=pl.lit("b"))])) == 2
        assert Tables(tmp_path / "tables").query("SELECT count(*) FROM split").item() == 2
    finally:
        done.set()
        other.join(60)


@pytest.mark.parametrize(("ids", "said", "red"), [
    ("abc", "平凡的一句話", set()),
    ("aab", "平凡的一句話", {"keys_unique"}),
    ("abc", "電話 0912-345-678", {"no_personal_data"}),
])  # fmt: skip
def test_checks_of_posts_read_the_parquet_by_duckdb(tmp_path: Path, ids: str, said: str, red: set[str]) -> None:
    project = ProjectResource.open(Settings(home=tmp_path, profile="tiny"))
    frame = posts_frame([Post("ptt", "Hate", "post", name, "", said) for name in ids])

    @dg.asset(io_manager_key="tables")
    def posts() -> pl.DataFrame:
        return frame

    checks = [one for one in build_checks(project) if {key.name for key in one.check_keys} & {*CHECKS}]
    result = dg.materialize(
        [posts, *checks],
        resources={"tables": TableIOManager(project.tables()), "duckdb": DuckDBResource(database=":memory:")},
        raise_on_error=False,
    )
    told = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert told == {name: name not in red for name in CHECKS}


def test_columns_carry_their_types_and_what_they_come_from(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(graph(ROWS), instance=instance, resources={"tables": tables(tmp_path)}, selection="split")
        event = instance.get_latest_materialization_event(dg.AssetKey("split"))
        assert event and event.asset_materialization
        metadata = event.asset_materialization.metadata
    schema, lineage = metadata["dagster/column_schema"].value, metadata["dagster/column_lineage"].value
    assert isinstance(schema, dg.TableSchema) and isinstance(lineage, dg.TableColumnLineage)
    assert {column.name for column in schema.columns} == set(SPLIT_SCHEMA)
    deps = {
        name: {(dep.asset_key.to_user_string(), dep.column_name) for dep in origins}
        for name, origins in lineage.deps_by_column.items()
    }
    assert deps["pair_id"] == {("dialogues", "pair_id"), ("capybara_dialogues", "pair_id")}
    assert deps["component"] >= {("dialogues", "thread_id"), ("dialogues", "messages")}


def test_the_lineage_of_columns_names_columns_that_are_there() -> None:
    for table, columns in COMES_FROM.items():
        assert set(columns) <= set(SCHEMAS[table]), table
        for origin in (one for origins in columns.values() for one in origins):
            asset, _, column = origin.partition(".")
            assert column in SCHEMAS.get(asset, {"body"}), f"{table}: {origin}"
    wide = column_lineage("posts", list(POST_SCHEMA), {name: SCHEMAS[name] for name in UPSTREAM["posts"]})
    assert len(wide.deps_by_column["text"]) == 4 and set(wide.deps_by_column) == set(POST_SCHEMA)
    assert column_lineage("ptt_posts", ["snapshot"], {}).deps_by_column["snapshot"][0].column_name == "sha256"
