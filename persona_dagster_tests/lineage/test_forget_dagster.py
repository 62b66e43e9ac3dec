"""Forgetting on a real instance: what Dagster's own files hold goes, and Dagster goes on as before."""

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from persona_dagster.artifacts import MixManifest
from persona_dagster.defs.assembly import build_defs
from persona_dagster.lineage import byte_search, stored_artifacts
from persona_dagster.lineage.backup import backup, verify
from persona_dagster.lineage.dagster_storage import StoreBusyError, forget_sqlite, without_phrases
from persona_dagster.lineage.forget import forget
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import SECRET

EXCERPT = SECRET[2:18]  # cut out of the line, as a log or a table in a report would


def chatty(instance: dg.DagsterInstance, text: str) -> None:
    """A run that says `text` wherever a run can: metadata, log, tags, configuration, a long value over many pages,
    a partition's name, and the traceback of a failure."""

    @dg.asset(config_schema={"note": str})
    def careless(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        context.log.info("read %s", text)
        filler = "".join(f"{number} {text[:9]} " for number in range(900))
        return dg.MaterializeResult(metadata={"sample": dg.MetadataValue.md(f"{filler}{text}{filler}")})

    @dg.asset(deps=[careless])
    def failing() -> None:
        raise ValueError(f"cannot parse {text!r}")

    instance.add_dynamic_partitions("boards", [text])
    for _ in range(2):
        dg.materialize(
            [careless, failing],
            instance=instance,
            tags={"why": text[:60]},
            run_config={
                "ops": {"careless": {"config": {"note": text}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )
    instance.wipe_assets([dg.AssetKey("failing")])  # deleted rows stay in free pages


def databases(settings: Settings, text: str) -> set[str]:
    found = byte_search.find(settings.home / "dagster", byte_search.spellings(text))
    return {path.name if path.parent.name == "history" or path.name == "index.db" else "a run" for path in found}


def test_dagster_forgets_and_goes_on(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    with dg.DagsterInstance.local_temp(str(settings.home / "dagster")) as instance:
        chatty(instance, SECRET)
        assert databases(settings, SECRET) >= {"runs.db", "index.db", "a run"}
        runs, key = instance.get_runs(), dg.AssetKey("careless")
        before = [event.dagster_event_type for event in instance.all_logs(runs[0].run_id) if event.is_dagster_event]
        report = forget("https://www.dcard.tw/f/mood/p/7", settings)  # while the instance is open, as under the UI

        assert report.left == [] and databases(settings, SECRET) == databases(settings, EXCERPT) == set()
        assert [run.run_id for run in instance.get_runs()] == [run.run_id for run in runs]
        events = [event for event in instance.all_logs(runs[0].run_id) if event.is_dagster_event]
        assert [event.dagster_event_type for event in events] == before
        event = instance.get_latest_materialization_event(key)
        assert event is not None and event.asset_materialization is not None
        assert "[forgotten]" in str(event.asset_materialization.metadata["sample"].value)
        assert instance.get_runs()[0].tags["why"] == "[forgotten]"
        chatty(instance, "下一次執行照常寫進同一個資料庫，沒有任何問題")
        assert len(instance.get_runs()) == len(runs) + 2
    for path in (settings.home / "dagster").rglob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_database_that_is_written_to_is_told_and_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("CREATE TABLE runs (body TEXT, snapshot BLOB)")
        writer.execute("INSERT INTO runs VALUES (?, ?)", (SECRET, zlib.compress(SECRET.encode())))
        writer.commit()
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("persona_dagster.lineage.dagster_storage.PATIENCE_S", 0.1)
        with pytest.raises(StoreBusyError, match="locked"):
            forget_sqlite(path, {EXCERPT.encode()})
        writer.rollback()
    assert byte_search.find(tmp_path, [EXCERPT.encode()]) == [path]
    assert forget_sqlite(path, {EXCERPT.encode()}) == 2
    assert byte_search.find(tmp_path, [EXCERPT.encode()]) == []
    with closing(sqlite3.connect(path)) as reader:
        body, snapshot = reader.execute("SELECT body, snapshot FROM runs").fetchone()
    assert body == zlib.decompress(snapshot).decode() == SECRET.replace(EXCERPT, "[forgotten]")
    assert StoreBusyError("x").args == ("x",)


def test_searching_lays_nothing_beside_a_database(tmp_path: Path) -> None:
    """A log left behind by a reader would break the seal of a backup; one that stands there is read along."""
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE runs (body TEXT)")
        writer.commit()
    assert byte_search.find(tmp_path, [EXCERPT.encode()]) == [] and list(tmp_path.iterdir()) == [path]
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO runs VALUES (?)", (SECRET,))
        writer.commit()
        assert path in byte_search.find(tmp_path, [EXCERPT.encode()]), "as yet it stands in the log alone"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("甲乙丙丁", "甲[forgotten]"),  # overlapping needles are one blot
        ("一切照舊", "一切照舊"),
        ('{"a": "\\\\乙丙"}', '{"a": "[forgotten]"}'),  # no backslash is left to eat the quotation mark
    ],
)
def test_a_blot_covers_what_it_must(value: str, expected: str) -> None:
    assert without_phrases(value, {"乙丙".encode(), "丙丁".encode()}) == expected


@pytest.mark.soak
@pytest.mark.browser
@pytest.mark.train
def test_the_whole_graph_forgets_a_post_that_it_was_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny graph materialised for real, backed up, one of its train posts forgotten, and the graph run again."""
    from persona_dagster.defs.demo import run

    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = Settings(home=tmp_path / "home", profile="tiny", hardware="cpu")
    storage = settings.home / "dagster"
    storage.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        run(settings, ("persona_v2",), instance)
        trained = next(stored_artifacts.adapters(settings))
        mixed = pl.concat(mix.provenance() for mix in stored_artifacts.mixes(settings))
        forum = mixed.filter(pl.col("row_id").is_in(trained.rows) & pl.col("source").is_in(["ptt", "dcard"]))
        doc = forum.sort("row_id")["doc_ids"][0][0]
        post = stored_artifacts.posts(settings).filter(pl.col("doc_id") == doc).row(0, named=True)
        line = max((post["text"] or post["text_raw"]).split("\n"), key=len)
        chatty(instance, line)
        backup(settings, tmp_path / "backup")
        excerpt = byte_search.spellings(line[1:-1])
        places = {path.relative_to(tmp_path).parts[:2] for path in byte_search.find(tmp_path, excerpt)}
        stored = {"raw", "tables", "mix", "dagster"}
        assert {part for _, part in places} >= stored and {root for root, _ in places} == {"home", "backup"}

        index = settings.dedup_dir  # what near duplicates are found by
        assert index.is_dir()

        report = forget(post["url"], settings)

        assert not index.exists()
        assert report.left == [] and report.copies == ["backup"]
        assert byte_search.find(tmp_path, excerpt, [settings.models_dir, settings.replica_dir]) == []
        assert {f"persona_v2/{trained.folder.name}", f"backup/persona_v2/{trained.folder.name}"} == set(report.adapters)
        verify(tmp_path / "backup")
        again = run(settings, ("persona_v2",), instance)
        assert {"mix · persona_v2", "lora_adapter · persona_v2"} <= set(again.changed)
        # The site still lists the post: such a listing is not archived.
        assert byte_search.find(tmp_path, excerpt, [settings.models_dir, settings.replica_dir]) == []
        assert doc not in set(stored_artifacts.posts(settings)["doc_id"])


def test_trace_and_forget_are_jobs_that_leave_no_text_behind(home: tuple[Settings, MixManifest]) -> None:
    """What the UI's launchpad runs: a sentence traced, and its post forgotten by doc_id."""
    settings, _ = home
    defs = build_defs(settings)
    with dg.DagsterInstance.local_temp(str(settings.home / "dagster")) as instance:

        def launch(job: str, **config: object) -> dg.ExecuteInProcessResult:
            op = {"trace": "follow", "forget": "remove"}[job]
            quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
            return defs.resolve_job_def(job).execute_in_process(
                {"ops": {op: {"config": config}}, "loggers": quiet}, instance=instance, raise_on_error=False
            )

        def told(result: dg.ExecuteInProcessResult, key: str) -> str:
            outputs = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
            return str(outputs[0].step_output_data.metadata[key].value)

        traced = told(launch("trace", query="dcard:mood:7"), "trace")
        assert "persona_v2" in traced and "dcard:mood:7-1" in traced and SECRET not in traced
        assert "a sentence" in told(launch("trace", query=SECRET), "trace")
        assert not launch("forget", target="dcard:mood:7").success
        assert not launch("forget", target="dcard:user7", sure=True).success
        assert databases(settings, SECRET)  # the sentence stands in the configuration of the run that traced it
        assert "found nowhere" in told(launch("forget", target="dcard:mood:7", sure=True), "forgotten")
        assert databases(settings, SECRET) == set()
