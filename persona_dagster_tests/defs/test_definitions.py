"""Loading the definitions: light, silent, complete."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, TickData, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo

from persona_dagster.config.sources import load_sources
from persona_dagster.crawl.lease import HostBusyError, lease
from persona_dagster.crawl.transport import Transport
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.automation import DAGSTERS_OWN
from persona_dagster.defs.jobs import job_of
from persona_dagster.defs.materialize_in_process import STAGE_OF
from persona_dagster.records import FORUMS
from persona_dagster.sample.content_loader import Content
from persona_dagster.sample.replica import serve
from persona_dagster.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "bert_score", "playwright", "gradio", "ray", "sklearn")


@pytest.fixture(scope="module")
def defs(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(Settings(home=tmp_path_factory.mktemp("home"), profile="tiny"))


def specs(defs: dg.Definitions) -> list[dg.AssetSpec]:
    return list(defs.resolve_all_asset_specs())


def test_importing_definitions_loads_no_heavy_library() -> None:
    code = f"import sys, persona_dagster.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


def test_importing_definitions_writes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {"PERSONA_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", "import persona_dagster.definitions"], check=True, cwd=ROOT, env=env)
    assert not home.exists()


def test_every_asset_is_presentable(defs: dg.Definitions) -> None:
    for spec in specs(defs):
        name = spec.key.to_user_string()
        assert spec.description and len(spec.description) > 40, name
        assert "](" not in spec.description.partition("\n\n")[0], f"{name}: the catalog shows its first line as it is"
        assert spec.group_name and spec.group_name != "default", name
        assert spec.kinds, name
        assert spec.owners, name


def test_sites_are_not_asked_in_the_same_quarter_of_an_hour(defs: dg.Definitions) -> None:
    lines = {schedule.name: str(schedule.cron_schedule).split() for schedule in defs.schedules or ()}  # type: ignore[union-attr]
    minutes = sorted(int(line[0]) + 60 * int(line[1]) for name, line in lines.items() if name.startswith("nightly"))
    assert len(minutes) == 3
    assert all(later - sooner >= 15 for sooner, later in pairwise(minutes))


def test_crawls_wait_within_a_site_and_for_no_other(defs: dg.Definitions, tmp_path: Path) -> None:
    """Dagster's pools by site, and the lease that a crawl holds; cleaning waits for nobody."""
    graph = defs.resolve_asset_graph()
    pools = {source: graph.get(dg.AssetKey(f"{source}_raw")).pools for source in FORUMS}
    assert len(set.union(*pools.values())) == len(FORUMS) and all(len(of) == 1 for of in pools.values())
    assert not any(graph.get(dg.AssetKey(f"{source}_posts")).pools for source in FORUMS)
    sources = load_sources(tmp_path, "tiny")
    with serve(Content(ptt={}, dcard={}, threads={})) as replica, ExitStack() as held:
        actual = Transport(replica.rewrites).actual
        for source in FORUMS:
            held.enter_context(lease(actual(sources.site(source).origin), tmp_path / "leases", wait=0))
        with pytest.raises(HostBusyError), lease(actual(sources.site("ptt").origin), tmp_path / "leases", wait=0):
            pass


def test_a_code_server_would_take_them(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)  # resolves every job, those of sensors and schedules too


def test_the_graph_is_the_design(defs: dg.Definitions) -> None:
    upstream = {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps} for spec in specs(defs)
    }
    assert upstream["ptt_posts"] == {"ptt_raw"}
    assert upstream["posts"] == {"ptt_posts", "dcard_posts", "threads_posts", "chat_posts"}
    assert upstream["reply_graph"] == {"posts"}
    assert upstream["dialogues"] == {"posts", "notes", "reply_graph", "voice_labels", "personas_config"}
    assert upstream["split"] == {"dialogues", "capybara_dialogues"}
    assert upstream["mix"] >= {"split", "recipe_config"}
    assert upstream["lora_adapter"] == {"mix", "recipe_config"}
    assert upstream["eval_report"] >= {"generations", "evaluation_config"}
    assert "recipe_config" not in upstream["generations"] | upstream["eval_report"]  # follows the adapter made by it
    assert upstream["iteration_report"] == {"eval_report"}


def test_a_persona_s_label_is_part_of_cleaning_and_its_prompt_is_not(tmp_path: Path) -> None:
    def versions() -> dict[str, str | None]:
        found = specs(build_defs(Settings(home=tmp_path, profile="tiny")))
        return {name: spec.code_version for spec in found if (name := spec.key.to_user_string()) in cleaned | {"posts"}}

    cleaned = {"ptt_posts", "dcard_posts", "threads_posts", "notes"}
    packaged = yaml.safe_load((ROOT / "persona_dagster/config/personas/mentor.yaml").read_text(encoding="utf-8"))
    before = versions()
    (tmp_path / "config" / "personas").mkdir(parents=True)
    edited = tmp_path / "config" / "personas" / "mentor.yaml"
    packaged["probes"].append("我該怎麼辦？")
    edited.write_text(yaml.safe_dump(packaged, allow_unicode=True), encoding="utf-8")
    assert versions() == before
    packaged["aliases"].append("暖心姊姊")
    edited.write_text(yaml.safe_dump(packaged, allow_unicode=True), encoding="utf-8")
    changed = {name for name, version in versions().items() if version != before[name]}
    assert changed == cleaned, "the corpus as a whole follows the rows, not the rules"


def test_a_backfill_is_a_run_a_partition_with_its_key(defs: dg.Definitions) -> None:
    """By a range instead, its checks would be stored without a partition, and what waits for them waits for good."""
    graph = defs.resolve_asset_graph()
    for name in ("ptt_raw", "ptt_posts", "mix", "lora_adapter", "eval_report"):
        keys = graph.get(dg.AssetKey(name)).partitions_def.get_partition_keys()
        wanted = [AssetKeyPartitionKey(dg.AssetKey(name), key) for key in keys]
        with dg.DagsterInstance.ephemeral() as instance:
            runs = build_run_requests_with_backfill_policies(wanted, graph, instance)
        assert sorted(run.partition_key or "" for run in runs) == sorted(keys)


def test_partitions_are_boards_and_recipes(defs: dg.Definitions) -> None:
    by_name = {spec.key.to_user_string(): spec.partitions_def for spec in specs(defs)}
    assert by_name["ptt_raw"] is not None and "Boy-Girl" in by_name["ptt_raw"].get_partition_keys()
    assert by_name["mix"] is not None and by_name["mix"].get_partition_keys() == [
        "capybara_qlora",
        "persona_v1",
        "persona_v2",
        "starter",
    ]
    assert by_name["posts"] is None


def test_code_location_names_agree() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    name = project["tool"]["dg"]["project"]["code_location_name"]
    assert workspace["load_from"][0]["python_module"]["location_name"] == name


def test_automation_is_on_in_the_sample_and_off_in_live(tmp_path: Path) -> None:
    for profile, status in (("sample", "RUNNING"), ("live", "STOPPED")):
        defs = build_defs(Settings(home=tmp_path, profile=profile))
        sensors = {sensor.name: sensor.default_status.value for sensor in defs.sensors or []}
        assert {sensors[name] for name in ("automation", "new_files", "config_changes", "retrain_policy")} == {status}


def test_a_file_put_into_the_imports_is_taken_in_for_every_source(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, profile="tiny")
    settings.imports_dir.mkdir(parents=True)
    (settings.imports_dir / "line.txt").write_text("[LINE]", encoding="utf-8")
    defs = build_defs(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=defs.get_repository_def())
        requests = defs.resolve_sensor_def("new_files").evaluate_tick(context).run_requests or []
    asked = {key.to_user_string() for request in requests for key in request.asset_selection or ()}
    assert asked == {"ptt_raw", "dcard_raw", "threads_raw", "capybara_raw", "chat_raw"}


def test_every_setting_of_a_run_has_help(defs: dg.Definitions) -> None:
    """What the launchpad shows beside a field, and what the asset does without any."""
    jobs = [defs.resolve_job_def(name) for name in ("rescrape_ptt", "release", "trace", "forget")]
    told = {}
    for job in jobs:
        for name, field in job.run_config_schema.config_type.fields["ops"].config_type.fields.items():
            own = field.config_type.fields.get("config")
            settings = getattr(own.config_type, "fields", {}) if own else {}
            told |= {f"{name}.{key}": one.description for key, one in settings.items()}
    assert {"ptt_raw.since_days", "hub_release.publish", "follow.query", "remove.sure"} <= set(told)
    assert not [name for name, text in told.items() if not text]


def test_every_asset_that_automation_asks_for_stands_in_a_named_job(tmp_path: Path) -> None:
    graph = build_defs(Settings(home=tmp_path, profile="tiny")).resolve_asset_graph()
    asked = [key for key in graph.materializable_asset_keys if graph.get(key).automation_condition]
    assert asked
    assert all(job_of(key.to_user_string()) for key in asked)


def test_what_starts_by_itself_starts_named_jobs(defs: dg.Definitions) -> None:
    """A run without one stands in the timeline's row of nameless runs."""
    repository = defs.get_repository_def()
    launched = {
        job for sensor in repository.sensor_defs if sensor.has_jobs for job in (one.name for one in sensor.jobs)
    }
    launched |= {schedule.job_name for schedule in repository.schedule_defs}
    assert launched <= {job.name for job in repository.get_all_jobs()} and not any("__" in name for name in launched)
    assert {"rescrape_ptt", "clean_ptt", "rebuild_corpus", "remix", "retrain", "evaluate", "compare"} <= launched
    for asset in repository.asset_graph.materializable_asset_keys:
        assert job_of(asset.to_user_string())  # each has a job of its own name


def state_of(name: str) -> InstigatorState:
    here = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="persona_dagster.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(here, "__repository__"), name)
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)


def test_dagsters_own_automation_stands_off_and_ours_stands_back_where_somebody_switches_it_on(
    defs: dg.Definitions,
) -> None:
    repository = defs.get_repository_def()
    assert repository.get_sensor_def(DAGSTERS_OWN).default_status is dg.DefaultSensorStatus.STOPPED
    ours = repository.get_sensor_def("automation")
    with dg.DagsterInstance.local_temp() as instance:

        def skipped() -> bool:
            tick = ours.evaluate_tick(dg.build_sensor_context(instance, repository_def=repository))
            return DAGSTERS_OWN in str(tick.skip_message)

        assert not skipped()
        instance.add_instigator_state(state_of(DAGSTERS_OWN))
        assert skipped()
        instance.update_instigator_state(state_of(DAGSTERS_OWN).with_status(InstigatorStatus.STOPPED))
        assert not skipped()


def test_a_failing_tick_is_told_once_until_it_works_again(
    defs: dg.Definitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("persona_dagster.defs.sensors.notify", lambda text, log: told.append(text))
    repository, state = defs.get_repository_def(), state_of("nightly_ptt")
    sensor, cursor = repository.get_sensor_def("tell_of_failing_ticks"), None
    with dg.DagsterInstance.local_temp() as instance:
        instance.add_instigator_state(state)

        def after(status: TickStatus, at: int) -> list[str]:
            nonlocal cursor
            error = SerializableErrorInfo("no such board\n", [], "ConfigError")
            about = (state.instigator_origin_id, state.name, state.instigator_type)
            tick = TickData(*about, TickStatus.STARTED, float(at), selector_id=state.selector_id)
            made = instance.create_tick(tick)
            instance.update_tick(made.with_status(status, error=error) if status is TickStatus.FAILURE
                                 else made.with_status(status))  # fmt: skip
            told.clear()
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            cursor = sensor.evaluate_tick(context).cursor
            return list(told)

        assert after(TickStatus.SUCCESS, 1) == []
        assert after(TickStatus.FAILURE, 2) == ["nightly_ptt: its tick failed: no such board"]
        assert after(TickStatus.FAILURE, 3) == []
        assert after(TickStatus.SUCCESS, 4) == []
        assert after(TickStatus.FAILURE, 5) == ["nightly_ptt: its tick failed: no such board"]


def test_checks_are_named_in_words(defs: dg.Definitions) -> None:
    names = {key.name for key in defs.resolve_asset_graph().asset_check_keys}
    assert {"its_answers_are_language", "nothing_leaks", "board_was_asked_lately"} <= names
    assert not [name for name in names if name.startswith(("min_", "max_"))]


def test_every_asset_has_a_stage_in_the_console(defs: dg.Definitions) -> None:
    assert {spec.key.to_user_string() for spec in specs(defs)} == set(STAGE_OF)
