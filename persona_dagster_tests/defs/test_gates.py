"""Gates as Dagster shows them: a check each, by recipe; and what they hold back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from persona_dagster.artifacts import Versions
from persona_dagster.defs.checks import build_checks, check_of
from persona_dagster.defs.partitions import recipe_partitions
from persona_dagster.defs.release import build_release_assets
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.evaluation.gates import GATES
from persona_dagster.settings import Settings
from persona_dagster_tests.chat.conftest import make_adapter

ADAPTERS = {"persona_v1": "b" * 32, "persona_v2": "a" * 32}
GATE_OF = {check_of(name): name for name in GATES}
INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30, "enough": True}


def gate(name: str, verdict: str) -> dict[str, object]:
    title, bound = GATES[name]
    told = {"title": title, "verdict": verdict, "why": "of the test", "bound": bound, "threshold": 0.0}
    return {"name": name, **told, **{key: INTERVAL[key] for key in ("value", "low", "high", "n")}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home in which Version 1's report is red by one gate, unsure of another and knows one too few; Version 2's is
    green."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), profile="tiny", hardware="cpu")
    for seed, (recipe, digest) in enumerate(ADAPTERS.items()):
        make_adapter(settings.home, recipe, seed, digest)
        red, amber = ("red", "amber") if recipe == "persona_v1" else ("green", "green")
        report = {
            "digest": "2" * 32,
            "verdict": red,
            "gates": [
                gate(name, {"min_loss_gain": red, "max_residue": amber}.get(name, "green"))
                for name in GATES
                if name != "min_train_loss" and (name, recipe) != ("max_broken", "persona_v1")
            ],
            "intervals": {"fidelity_base": INTERVAL, "fidelity_adapter": INTERVAL},
            "test": {"rows": 18, "digest": "3" * 32},
            "run": {"digest": digest},
        }
        manifest = {
            "digest": "0" * 32,
            "recipe": recipe,
            "train_by_persona": {"mentor": 40},
            "test_by_persona": {"mentor": 5},
            "by_source": {"dcard": 40},
            "largest_jaccard": 0.31,
        }
        publish(settings.reports_dir / recipe / ("2" * 32) / "metrics.json", report)
        publish(settings.mix_dir / recipe / ("0" * 32) / "manifest.json", manifest)
    return settings


def publish(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    Versions(path.parent.parent, path.name).point(path.parent.name)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def judge(settings: Settings, instance: dg.DagsterInstance, recipe: str) -> dg.ExecuteInProcessResult:
    """The gates' checks on a report that lies there already."""

    @dg.asset(partitions_def=recipe_partitions(sorted(ADAPTERS)))
    def eval_report() -> None: ...

    checks = [one for one in build_checks(ProjectResource.open(settings)) if one.node_def.name == "gates"]
    return dg.materialize([eval_report, *checks], partition_key=recipe, instance=instance)


def release(
    settings: Settings, recipe: str, instance: dg.DagsterInstance, **config: object
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_release_assets(ProjectResource.open(settings)),
        partition_key=recipe,
        instance=instance,
        run_config={"ops": {"hub_release": {"config": config}}},
        raise_on_error=False,
    )


@pytest.mark.parametrize(
    ("recipe", "failing"), [("persona_v1", {"min_loss_gain", "max_residue", "max_broken"}), ("persona_v2", set[str]())]
)
def test_a_check_a_gate_and_a_recipe(
    settings: Settings, instance: dg.DagsterInstance, recipe: str, failing: set[str]
) -> None:
    result = judge(settings, instance, recipe)
    assert result.success, "no gate blocks: Version 1 is there to fail them"
    found = {GATE_OF[one.check_name]: one for one in result.get_asset_check_evaluations()}
    assert set(found) == set(GATES)
    assert {name for name, one in found.items() if not one.passed} == failing
    assert {one.severity for one in found.values()} == {dg.AssetCheckSeverity.WARN}
    assert {one.partition for one in found.values()} == {recipe}
    told = found["min_loss_gain"].metadata
    assert (told["value"].value, told["threshold"].value) == (0.5, 0.0)
    why = {name: str(one.metadata["why"].value) for name, one in found.items()}
    assert ("older than the gate" in why["max_broken"]) is (recipe == "persona_v1")
    if recipe == "persona_v2":
        assert "sets no threshold" in why["min_train_loss"]


def test_a_gate_holds_back_its_own_recipe_and_no_other(settings: Settings, instance: dg.DagsterInstance) -> None:
    held = release(settings, "persona_v1", instance, publish=True)
    assert not held.success
    (failure,) = [event for event in held.all_events if event.is_step_failure]
    assert "min_loss_gain is red (of the test), max_residue is amber (of the test)" in str(failure.event_specific_data)
    assert not settings.releases_dir.exists()
    dry = release(settings, "persona_v1", instance, publish=False)
    assert dry.success, "a plan may be looked at"
    (made,) = dry.asset_materializations_for_node("hub_release")
    held_by = ["min_loss_gain is red", "max_residue is amber", "max_broken is amber"]
    assert [reason.partition(" (")[0] for reason in made.metadata["held_back_by"].value] == held_by
    green = release(settings, "persona_v2", instance, publish=False)
    (made,) = green.asset_materializations_for_node("hub_release")
    assert made.metadata["held_back_by"].value == []
