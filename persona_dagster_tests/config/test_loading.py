"""Configuration: every packaged file is valid, and a wrong one is named with its key and its cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.config.loading import PACKAGED, ConfigError, overlay
from persona_dagster.config.personas import load_personas
from persona_dagster.config.recipes import load_recipe, recipe_names
from persona_dagster.config.sources import load_sources

HARDWARE = ("cpu", "gpu_8gb", "gpu_12gb", "gpu_24gb")


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("profile", ["tiny", "sample", "live"])
@pytest.mark.parametrize("name", recipe_names(PACKAGED))
def test_every_recipe_stands_under_every_overlay(tmp_path: Path, name: str, profile: str, hardware: str) -> None:
    recipe = load_recipe(name, tmp_path, profile, hardware)
    assert recipe.training.epochs == {"persona_v1": 10, "persona_v2": 3, "capybara_qlora": 1, "starter": 2}[name]


@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_two_versions_differ_in_epochs_cleaning_and_balance_alone(tmp_path: Path, hardware: str) -> None:
    one, two = (load_recipe(name, tmp_path, "sample", hardware).model_dump() for name in ("persona_v1", "persona_v2"))
    differ = {
        f"{part}.{key}"
        for part in ("base", "quantisation", "lora", "training", "mix", "evaluation")
        for key, value in one[part].items()
        if value != two[part][key]
    }
    watched = {"training.eval_every", "training.on_trouble"}  # V1 is meant to overfit, and is looked at less often
    balance = {"mix.strategy", "mix.tagged_share", "mix.replay_share"}
    assert differ - watched == {"training.epochs", "mix.text", *balance}
    assert {name: value for name, value in one.items() if name not in ("name", "title", "training", "mix")} == {
        name: value for name, value in two.items() if name not in ("name", "title", "training", "mix")
    }


@pytest.mark.parametrize("profile", ["tiny", "sample", "live"])
def test_every_profile_has_its_boards(tmp_path: Path, profile: str) -> None:
    sources = load_sources(tmp_path, profile)
    assert all(sources.partitions(source) for source in ("ptt", "dcard", "threads"))


def write(folder: Path, name: str, old: str, new: str) -> Path:
    """The packaged file `name` under `folder`, with one piece of it changed."""
    text = (PACKAGED / name).read_text(encoding="utf-8")
    assert old in text
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_a_wrong_key_is_named_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, "recipes/persona_v2.yaml", "learning_rate:", "learning_rat:")
    with pytest.raises(ConfigError, match=r"training\.learning_rat: Extra inputs") as caught:
        load_recipe("persona_v2", tmp_path, "live", "gpu_12gb")
    assert str(path) in str(caught.value) and "delete the file to use the default" in str(caught.value)


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    write(tmp_path, "recipes/persona_v2.yaml", "cap: 3", "cap: 0.5")
    with pytest.raises(ConfigError, match=r"mix\.cap: .*greater than or equal to 1"):
        load_recipe("persona_v2", tmp_path, "live", "gpu_12gb")


def test_a_persona_with_a_wrong_key_is_named(tmp_path: Path) -> None:
    write(tmp_path, "personas/mentor.yaml", "system_prompt:", "system_promt:")
    with pytest.raises(ConfigError, match="system_promt"):
        load_personas(tmp_path)


@pytest.mark.parametrize("text", ["a: [1, 2", "- a\n- b\n", "\ufeff\x00"])
def test_what_is_no_yaml_mapping_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "ptt.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ptt\.yaml"):
        load_sources(tmp_path, "sample")


def test_an_unknown_recipe_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="persona_v2"):
        load_recipe("persona_v3", tmp_path, "sample", "cpu")


def test_overlays_go_mapping_by_mapping() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 2}
    assert overlay(base, {"a": {"y": [3]}, "c": None}) == {"a": {"x": 1, "y": [3]}, "b": 2, "c": None}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 2}
