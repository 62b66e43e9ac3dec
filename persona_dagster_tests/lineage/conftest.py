"""A home for each test, copied from one that is made once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from persona_dagster.artifacts import MixManifest
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import make_home


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, MixManifest]:
    return make_home(tmp_path_factory.mktemp("template") / "home")


@pytest.fixture
def home(
    template: tuple[Settings, MixManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, MixManifest]:
    for name in ("PERSONA_ARCHIVE_URL", "PERSONA_AUTHOR_KEY", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    made, mix = template
    shutil.copytree(made.home, tmp_path / "home")
    settings = Settings(home=tmp_path / "home", archive_url=None)
    return settings, mix.model_copy(update={"folder": settings.home / mix.folder.relative_to(made.home)})
