"""Bases are found by name, alias, Hub id and folder; a YAML file of the user's adds one; wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.config.base_models import (
    Base,
    Folder,
    Hub,
    Packages,
    find_base,
    load_bases,
    packaged_bases,
    write_pin,
)
from persona_dagster.config.loading import ConfigError
from persona_dagster.config.recipes import load_recipe


def write(config_dir: Path, name: str, text: str) -> None:
    (config_dir / "bases").mkdir(parents=True, exist_ok=True)
    (config_dir / "bases" / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_every_packaged_entry_says_where_from_and_under_what_licence() -> None:
    bases = packaged_bases()
    assert {"gemma3-270m", "qwen3-0.6b", "llama3.1-8b-instruct", "tiny-llama"} <= set(bases)
    for entry in bases.values():
        assert entry.licence.id != "unknown" and entry.title and entry.shape, entry.name
        assert entry.end_of_turn, entry.name


def test_a_base_is_found_by_every_name_that_it_has(tmp_path: Path) -> None:
    bases = packaged_bases()
    assert find_base("tiny:llama", bases) is bases["tiny-llama"]
    assert find_base("meta-llama/Llama-3.1-8B-Instruct", bases) is bases["llama3.1-8b-instruct"]
    other = find_base("meta-llama/Meta-Llama-3-8B-Instruct", bases)
    assert other.source == Hub(hub="meta-llama/Meta-Llama-3-8B-Instruct") and other.shape == bases["llama3-8b"].shape
    assert find_base(str(tmp_path), bases).source == Folder(folder=tmp_path)
    assert find_base("some/where", bases).source == Hub(hub="some/where")
    with pytest.raises(ConfigError, match="gemma3-270m"):
        find_base("bundled:nothing", bases)


def test_a_base_in_4_bits_is_merged_whole() -> None:
    base = Base(model="unsloth/llama-3-8b-Instruct-bnb-4bit", revision="abc").full_precision()
    assert base.entry.source == Hub(hub="unsloth/llama-3-8b-Instruct") and base.hub_revision == "main"
    assert Base(model="gemma3-270m").full_precision() == Base(model="gemma3-270m")


def test_a_file_of_the_users_adds_a_base_and_wins_by_name(tmp_path: Path) -> None:
    write(tmp_path, "my-base", "source: {hub: me/mine, revision: abc}\nlicence: {id: mit}\nroles: [user, assistant]\n")
    write(tmp_path, "gemma3-270m", "source: {hub: google/gemma-3-270m}\n")
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.write_text("title: mine\nbase: {model: my-base}\n", encoding="utf-8")
    loaded = load_recipe("mine", tmp_path, "sample", "cpu")
    assert loaded.base.entry.roles == ("user", "assistant") and loaded.base.hub_revision == "abc"
    assert isinstance(packaged_bases()["gemma3-270m"].source, Packages)
    assert load_bases(tmp_path)["gemma3-270m"].source == Hub(hub="google/gemma-3-270m")


def test_a_pinned_base_is_the_user_s_own_entry_at_that_commit(tmp_path: Path) -> None:
    entry = packaged_bases()["qwen3-0.6b"]
    write_pin(entry, "c1899de289a0", tmp_path)
    found = load_bases(tmp_path)["qwen3-0.6b"]
    assert found.source == Hub(hub="Qwen/Qwen3-0.6B", revision="c1899de289a0")
    assert found.model_copy(update={"source": entry.source}) == entry


def test_a_licence_retrains_nothing_and_a_template_does() -> None:
    base = Base(model="tiny-llama")
    renamed = base.entry.model_copy(update={"title": "another", "aliases": ()})
    assert base.model_copy(update={"entry": renamed}).meaning() == base.meaning()
    changed = base.entry.model_copy(update={"chat_template": "{{ messages }}"})
    assert base.model_copy(update={"entry": changed}).meaning() != base.meaning()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("source: {hub: nobody}\n", "source"),
        ("source: {hub: a/b}\nroles: [user]\n", "roles"),
        ("source: {hub: a/b}\nroles: [user, assistant, judge]\n", "roles"),
        ("source: {hub: a/b}\nformat: gguf\n", "source.file"),
        ("source: {made: random}\n", "shape"),
        ("source: {hub: a/b}\nkeep: {scripts: [Han], latin: 9}\n", "keep is of a GGUF"),
        ("source: {sha256: abc, parts: []}\nformat: gguf\n", "sha256"),
        ("source: {hub: a/b\n", "bad.yaml"),
        ("source: {hub: a/b}\ncolour: red\n", "colour"),
    ],
)
def test_a_wrong_entry_is_named_by_file_and_key(text: str, named: str, tmp_path: Path) -> None:
    write(tmp_path, "bad", text)
    with pytest.raises(ConfigError, match=named) as error:
        load_bases(tmp_path)
    assert "bad.yaml" in str(error.value)
