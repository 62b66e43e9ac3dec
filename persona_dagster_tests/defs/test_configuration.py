"""Configuration as assets: bad files fail nothing and are named, recipes are resolved once, and a file adds an item."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from persona_dagster.artifacts import Versions
from persona_dagster.config.loading import PACKAGED, ConfigError
from persona_dagster.conversation.labels import labels_version
from persona_dagster.defs.component import CHECKING, PersonaProject
from persona_dagster.defs.configuration import build_config_assets
from persona_dagster.defs.jobs import build_jobs
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.retraining import decide
from persona_dagster.defs.sensors import build_sensors
from persona_dagster.settings import Hardware, Settings
from persona_dagster.training.job_spec import recipe_digest
from persona_dagster_tests.config.editing import edit

RECIPE, PERSONA, SITE = "recipes/persona_v2.yaml", "personas/mentor.yaml", "sources/ptt.yaml"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def settings_of(home: Path, hardware: Hardware | None = "cpu") -> Settings:
    return Settings(home=home, profile="tiny", hardware=hardware)


def materialise(project: ProjectResource, instance: dg.DagsterInstance, *recipes: str) -> bool:
    """The config assets, as runs that waited in the queue would make them, a run a recipe (default: all); and labels,
    which the sensor looks after too."""
    labels = {"dagster/data_version": labels_version(project.settings.labels_dir)}
    instance.report_runless_asset_event(dg.AssetMaterialization("voice_labels", tags=labels))
    assets = build_config_assets(project)
    done = [
        dg.materialize(assets, partition_key=recipe, instance=instance, raise_on_error=False)
        for recipe in recipes or project.recipes
    ]
    return all(result.success for result in done)


def tick(
    project: ProjectResource, instance: dg.DagsterInstance, name: str, cursor: str | None = None
) -> dg.SensorResult:
    sensor = next(one for one in build_sensors(project, build_jobs()) if one.name == name)
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert isinstance(result, dg.SensorResult)
    return result


def swap(name: str, old: str, new: str) -> Callable[[Path], None]:
    def bad(config: Path) -> None:
        path = edit(config, name)
        text = (PACKAGED / name).read_text(encoding="utf-8")
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return bad


def write(name: str, text: str | bytes) -> Callable[[Path], None]:
    def bad(config: Path) -> None:
        (config / name).parent.mkdir(parents=True, exist_ok=True)
        (config / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return bad


def gone(config: Path) -> None:
    (config / "recipes/my_bot.yaml").unlink()


def twin(config: Path) -> None:
    edit(config, "recipes/my_bot.yml", like=RECIPE)


def same_tag(config: Path) -> None:
    edit(config, "personas/twin.yaml", like=PERSONA)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "recipe: open bracket": (swap(RECIPE, "{epochs: 3", "{epochs: [3"), r"persona_v2\.yaml, line \d+: no YAML"),
    "recipe: unknown key": (
        swap(RECIPE, "learning_rate:", "learning_rat:"),
        r"line \d+: training\.learning_rat: Extra",
    ),
    "recipe: wrong type": (swap(RECIPE, "epochs: 3", "epochs: many"), r"line \d+: training\.epochs: .*number"),
    "recipe: out of range": (swap(RECIPE, "cap: 3", "cap: 0.5"), r"mix\.cap: .*greater than or equal to 1"),
    "recipe: no base": (swap(RECIPE, "\nbase:", "\nbas:"), r"base: Field required"),
    "recipe: key twice": (swap(RECIPE, "title:", "title: x\ntitle:"), r"line \d+: title: stands twice"),
    "recipe: unknown hardware": (swap(RECIPE, "gpu_8gb:", "gpu_8bg:"), r"line \d+: hardware\.gpu_8bg: no such overlay"),
    "recipe: bad overlay of other hardware": (
        write(
            "recipes/my_bot.yaml", "title: x\nbase: {model: 'tiny:llama'}\nhardware:\n  gpu_24gb:\n    lora: {rr: 3}\n"
        ),
        r"my_bot\.yaml, line 5: hardware\.gpu_24gb\.lora\.rr: Extra",
    ),
    "recipe: a list": (write(RECIPE, "- a\n- b\n"), r"persona_v2\.yaml, line 1: holds no mapping"),
    "recipe: empty": (write(RECIPE, ""), r"holds no mapping"),
    "recipe: not UTF-8": (write(RECIPE, b"title: \xff\xfe"), r"persona_v2\.yaml: cannot be read"),
    "recipe: a file is gone": (gone, r"my_bot\.yaml: is gone"),
    "recipe: the same name twice": (twin, r"my_bot\.yml: my_bot\.yaml beside it has the same name|same name"),
    "recipe: a misspelt name": (write("recipes/My Bot.yaml", "title: x\n"), r"'My Bot' is no name"),
    "persona: a tab": (swap(PERSONA, "title:", "\ttitle:"), r"mentor\.yaml, line \d+: no YAML"),
    "persona: unknown key": (swap(PERSONA, "system_prompt:", "system_promt:"), r"line \d+: system_promt: Extra"),
    "persona: no colour": (swap(PERSONA, '"#db2777"', "pink"), r"line \d+: color: "),
    "persona: a tag twice": (same_tag, r"twin\.yaml, line \d+: tag: .* is the tag of mentor too"),
    "site: open bracket": (swap(SITE, "boards: [", "boards: [["), r"ptt\.yaml, line \d+: no YAML"),
    "site: a board twice": (swap(SITE, "boards: [", "boards: [Hate, "), r"line \d+: boards: .*stands twice"),
    "site: unknown": (write("sources/mobile01.yaml", "origin: x\n"), r"mobile01\.yaml: no site that is known"),
    "cluster: unknown key": (write("cluster.yaml", "slurm: {tim: 1}\n"), r"cluster\.yaml, line 1: slurm\.tim: Extra"),
    "unsafe: unknown kind": (write("unsafe.yaml", "rude: [x]\n"), r"unsafe\.yaml: rude: lists of words"),
    "split: wrong type": (write("split.yaml", "test_share: half\n"), r"split\.yaml, line 1: test_share"),
}


def test_a_bad_file_fails_no_run_and_is_named_at_the_next_tick(
    tmp_path: Path, instance: dg.DagsterInstance, soak: bool
) -> None:
    settings = settings_of(tmp_path)
    edit(settings.config_dir, "recipes/my_bot.yaml", {"title": "Mine"}, like=RECIPE)
    project = ProjectResource.open(settings)
    assert "my_bot" in project.recipes and materialise(project, instance)
    good = {name: project.recipe(name) for name in project.recipes}
    personas, sources, split = project.personas(), project.sources, project.split()
    run: set[str] = set()  # a kind of file each; under soak all
    for what, (spoil, told) in BAD.items():
        before = {path: path.read_bytes() for path in settings.config_dir.rglob("*") if path.is_file()}
        spoil(settings.config_dir)
        again = ProjectResource.open(settings)  # a reload in between
        result = tick(again, instance, "config_changes")
        checks = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
        named = [str(value.value) for check in checks if not check.passed for value in check.metadata.values()]
        assert len(named) == 1 and re.search(told, named[0]), (what, named)
        assert not result.run_requests, (what, result.run_requests)
        assert tick(again, instance, "config_changes", result.cursor).asset_events == [], "named once"
        if soak or what.partition(":")[0] not in run:
            assert materialise(again, instance, "my_bot" if "my_bot" in told else "persona_v2"), what
        run.add(what.partition(":")[0])
        assert {name: again.recipe(name) for name in good} == good, what
        assert (again.personas(), again.sources, again.split()) == (personas, sources, split), what
        for path in settings.config_dir.rglob("*"):
            if path.is_file():
                path.unlink()
        for path, content in before.items():
            path.write_bytes(content)
        healed = tick(ProjectResource.open(settings), instance, "config_changes", result.cursor)
        assert all(event.passed for event in healed.asset_events) and not healed.run_requests, what


def test_dg_check_fails_on_what_a_running_server_goes_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `dg check defs` loads it; with dg itself in e2e/test_dg.py."""
    monkeypatch.setenv("PERSONA_HOME", str(tmp_path))
    BAD["recipe: unknown key"][0](tmp_path / "config")
    BAD["split: wrong type"][0](tmp_path / "config")
    dg.build_defs_for_component(PersonaProject())
    monkeypatch.setenv(CHECKING, "1")
    with pytest.raises(ConfigError) as raised:
        dg.build_defs_for_component(PersonaProject())
    assert re.search(r"persona_v2\.yaml, line \d+: training\.learning_rat: .*delete the file", str(raised.value))
    assert re.search(r"split\.yaml, line 1: test_share: .*Correct it", str(raised.value))


def test_a_recipe_that_was_never_good_fails_alone_with_its_line(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = settings_of(tmp_path)
    write("recipes/my_bot.yaml", "title: Mine\nbase: {modle: x}\n")(settings.config_dir)
    project = ProjectResource.open(settings)
    assert set(project.recipes) == {"capybara_qlora", "my_bot", "persona_v1", "persona_v2", "starter"}
    with pytest.raises(ConfigError, match=r"my_bot\.yaml, line 2: base\."):
        project.recipe("my_bot")
    assert not materialise(project, instance, "my_bot")
    assert materialise(project, instance, "persona_v2")


def test_an_edit_asks_for_one_partition_and_a_retrain_policy_for_no_mix(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = settings_of(tmp_path)
    project = ProjectResource.open(settings)
    assert materialise(project, instance)
    assert tick(project, instance, "config_changes").run_requests == []
    version = project.resolved("persona_v1").version()  # type: ignore[union-attr]
    for changes, asset in (
        ({"training": {"weight_decay": 0.02}}, "recipe_config"),
        ({"retrain": {"window_days": 1}}, "recipe_config"),
        ({"evaluation": {"seed": 8}}, "evaluation_config"),
    ):
        edit(settings.config_dir, "recipes/persona_v1.yaml", changes)
        asked = tick(project, instance, "config_changes").run_requests or []
        assert [(one.partition_key, one.asset_selection) for one in asked] == [("persona_v1", [dg.AssetKey(asset)])]
        assert materialise(project, instance, "persona_v1")
        assert tick(project, instance, "config_changes").run_requests == []
        if changes.keys() == {"retrain"}:
            assert project.resolved("persona_v1").version() == version, "nothing downstream is stale"  # type: ignore[union-attr]
        version = project.resolved("persona_v1").version()  # type: ignore[union-attr]


def test_hardware_is_resolved_once_for_every_machine(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """A code server without a card beside a worker with one: the same recipe on both, one training, then no request in
    50 ticks."""
    overlay = {"hardware": {"gpu_8gb": {"training": {"warmup_steps": 9}}}}
    server = ProjectResource.open(settings_of(tmp_path, "cpu"))
    edit(server.settings.config_dir, RECIPE, overlay)
    worker = ProjectResource.open(settings_of(tmp_path, "gpu_8gb"))
    assert server.resolve("persona_v2", "cpu").version() != worker.resolve("persona_v2", "gpu_8gb").version()
    assert materialise(worker, instance)
    assert server.recipe("persona_v2") == worker.recipe("persona_v2")
    assert server.recipe("persona_v2").training.warmup_steps == 9
    mixed(worker, instance, "persona_v2", "m" * 32)
    trained(worker, "persona_v2", "m" * 32)
    for number in range(50):
        assert tick(server, instance, "config_changes").run_requests == [], number
        assert not tick(server, instance, "retrain_policy").run_requests, number
    mixed(worker, instance, "persona_v2", "n" * 32)
    assert not decide(server, "persona_v2").train, "the window has not passed"


def mixed(project: ProjectResource, instance: dg.DagsterInstance, recipe: str, digest: str) -> None:
    with project.mixes(recipe).publishing(digest) as folder:
        (folder / "manifest.json").write_text(f'{{"digest": "{digest}"}}', encoding="utf-8")


def trained(project: ProjectResource, recipe: str, mix: str) -> Path:
    """What a training on the worker leaves: a run card, with the base's revision as it stood there."""
    from datetime import UTC, datetime

    from persona_dagster.artifacts import RunCard

    made = project.recipe(recipe)
    with project.adapters(recipe).publishing("a" * 32) as folder:
        RunCard(
            digest="a" * 32,
            mix_digest=mix,
            recipe_digest=recipe_digest(made, "as on the worker"),
            base_revision="as on the worker",
            finished_at=datetime.now(UTC).isoformat(),
        ).write(folder)
    return Versions(project.settings.adapters_dir / recipe, RunCard.FILE).newest()


@pytest.mark.parametrize("hardware", ["cpu", "gpu_8gb", "gpu_12gb", "gpu_24gb"])
def test_hardware_is_honoured_in_the_sample_too(tmp_path: Path, hardware: Hardware) -> None:
    def base(profile: str) -> str:
        settings = Settings(home=tmp_path, profile=profile, hardware=hardware)  # type: ignore[arg-type]
        return ProjectResource.open(settings).recipe("persona_v2").base.model_dump_json()

    assert base("sample") == base("live")


def test_the_component_makes_the_graph_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of one's own is a folder with one defs.yaml."""
    monkeypatch.setenv("PERSONA_HOME", str(tmp_path / "home"))
    edit(tmp_path / "config", "recipes/my_bot.yaml", like=RECIPE)
    component = PersonaProject(config_dir=str(tmp_path / "config"))
    graph = dg.build_defs_for_component(component).resolve_asset_graph()
    keys = graph.get(dg.AssetKey("mix")).partitions_def
    assert keys is not None and "my_bot" in keys.get_partition_keys()
