"""Mixes on a store: what one machine made is whole on another or not there, and what is forgotten goes there too."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from persona_dagster import cli
from persona_dagster.artifacts import MixManifest, Versions
from persona_dagster.config.split import SplitSpec
from persona_dagster.conversation.mix import drop_rows, write_mix
from persona_dagster.conversation.mix_store import MixStore, MixStoreError
from persona_dagster.conversation.split import split_dialogues
from persona_dagster_tests.conversation.made import many, personas, recipe

RECIPE = "persona_v2"


@pytest.fixture(params=["memory", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/mixes" if request.param == "memory" else str(tmp_path / "store")


def make(mixes: Path, **sizes: int) -> MixManifest:
    frame = many(**sizes)
    split = split_dialogues(frame, None, SplitSpec()).frame
    return write_mix(frame, split, recipe(RECIPE), personas(), mixes / RECIPE)


def test_another_machine_gets_the_newest_mix_and_names_the_older_one(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    MixStore(url).fetch(there / RECIPE)
    assert not there.exists()  # nothing was published
    old = make(here, assistant=30, mentor=30, mouthpiece=30)
    MixStore(url).publish(old.folder)
    new = make(here, assistant=30, mentor=40, mouthpiece=30)
    MixStore(url).publish(new.folder)
    for _ in range(2):
        MixStore(url).fetch(there / RECIPE)
    assert Versions(there / RECIPE, MixManifest.FILE).newest().name == new.digest
    assert [path.name for path in (there / RECIPE).iterdir() if path.is_dir()] == [new.digest]
    for path in new.folder.iterdir():
        assert (there / RECIPE / new.digest / path.name).read_bytes() == path.read_bytes()
    MixStore(url).bring(there / RECIPE, old.digest)
    assert MixManifest.read(there / RECIPE / old.digest).files == old.files


def test_half_a_mix_is_not_there_and_a_damaged_one_is_refused(url: str, tmp_path: Path) -> None:
    mix, store = make(tmp_path / "here", assistant=30, mentor=30, mouthpiece=30), MixStore(url)
    store.publish(mix.folder)
    at = f"{store.root}/{RECIPE}/{mix.digest}"
    train = store.fs.cat_file(f"{at}/train.jsonl")
    store.fs.pipe_file(f"{at}/train.jsonl", train[:-9])
    with pytest.raises(MixStoreError, match=r"train\.jsonl"):
        store.fetch(tmp_path / "there" / RECIPE)
    assert not list((tmp_path / "there" / RECIPE).iterdir())
    store.fs.rm_file(f"{at}/manifest.json")
    store.publish(mix.folder)  # an upload that was cut short is made whole
    store.fetch(tmp_path / "there" / RECIPE)
    assert (tmp_path / "there" / RECIPE / mix.digest / "train.jsonl").read_bytes() == train


def test_a_mirror_holds_what_stands_here_and_nothing_else(url: str, tmp_path: Path) -> None:
    here, store = tmp_path / "here", MixStore(url)
    mix = make(here, assistant=30, mentor=30, mouthpiece=30)
    store.publish(mix.folder)
    row = (mix.folder / "train.jsonl").read_text(encoding="utf-8").split('"row_id":"')[1].split('"')[0]
    left = drop_rows(mix.folder, {row}, personas())
    assert left
    store.mirror(here)
    assert store.listed() == [(RECIPE, left.digest)]
    fs, root = fsspec.core.url_to_fs(url)
    assert fs.cat_file(f"{root}/{RECIPE}/latest").decode().strip() == left.digest
    assert not any(row.encode() in fs.cat_file(path) for path in fs.find(root))
    store.fetch_all(tmp_path / "there")  # a machine that made none of it may forget too
    store.mirror(tmp_path / "there")
    assert fs.cat_file(f"{root}/{RECIPE}/latest").decode().strip() == left.digest
    (here / RECIPE / "latest").unlink()
    store.mirror(here)
    assert not fs.exists(f"{root}/{RECIPE}/latest")


def test_plan_and_chat_read_a_mix_that_another_machine_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, home = str(tmp_path / "store"), tmp_path / "home"
    made = make(tmp_path / "elsewhere", assistant=30, mentor=30, mouthpiece=30)
    MixStore(url).publish(made.folder)
    for name, value in {"HOME": str(home), "MIX_URL": url, "PROFILE": "tiny", "HARDWARE": "cpu"}.items():
        monkeypatch.setenv(f"PERSONA_{name}", value)
    told = CliRunner().invoke(cli.app, ["plan", RECIPE])
    assert told.exit_code == 0 and f"mix {made.digest}" in told.output.replace("\n", "")
    launched = []
    monkeypatch.setattr("persona_dagster.chat.app.launch", lambda settings, **_: launched.append(settings))
    (home / "mix" / RECIPE / "latest").unlink()
    assert CliRunner().invoke(cli.app, ["chat"]).exit_code == 0
    assert Versions(launched[0].mix_dir / RECIPE, MixManifest.FILE).newest().name == made.digest
    monkeypatch.setenv("PERSONA_MIX_URL", "nope://x")
    refused = CliRunner().invoke(cli.app, ["plan", RECIPE])
    assert refused.exit_code == 1 and "nope://x: Protocol not known" in str(refused.exception)
