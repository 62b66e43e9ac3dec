"""Places by URL: which are taken, and what is said where the package of one is missing. No store is asked here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.filesystem import EXTRAS, StoreError, open_store
from persona_dagster.settings import PROJECT_ROOT

PACKAGES = {
    "s3://bucket/raw/": ("s3fs", "S3FileSystem", "bucket/raw"),
    "gs://bucket/raw": ("gcsfs", "GCSFileSystem", "bucket/raw"),
    "hf://datasets/someone/raw": ("huggingface_hub", "HfFileSystem", "datasets/someone/raw"),
}


@pytest.mark.parametrize("url", PACKAGES)
def test_a_url_is_taken_or_its_package_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, system, root = PACKAGES[url]
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    if importlib.util.find_spec(package):
        found, there = open_store(url)
        assert (type(found).__name__, there) == (system, root)
        assert Archive(url).root == MixStore(url).root == root
        return
    for opens in (open_store, Archive, MixStore):
        with pytest.raises(StoreError, match=rf"{package}.*pip install '\.\[{EXTRAS[url.partition('://')[0]]}\]'"):
            opens(url)


def test_every_extra_that_is_named_is_there() -> None:
    told = (PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in EXTRAS.values():
        assert f"\n{extra} = [" in told


def test_an_unknown_protocol_and_an_unnamed_package() -> None:
    with pytest.raises(StoreError, match=r"nope://x: Protocol not known: nope; known are a path, s3://"):
        open_store("nope://x")
    if importlib.util.find_spec("adlfs") is None:
        with pytest.raises(StoreError, match=r"abfs://c/x: Install adlfs .*: install the package it names"):
            open_store("abfs://c/x")


def test_a_path_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    filesystem, root = open_store(tmp_path / "raw")
    assert (filesystem.protocol, root) == (("file", "local"), str(tmp_path / "raw"))
    assert open_store("/")[1] == "/"
