"""What all tests share: where the real data lies, and how many rounds a counted test makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Files that take a minute and more, the longest first: begun at the end, they would leave the other worker idle.
LONGEST = (
    "test_whole_graph.py", "test_controls.py", "test_train.py", "test_ui.py", "test_month.py", "test_page.py",
    "test_configuration.py", "test_scenarios.py", "test_run_pruning.py", "test_fidelity.py",
)  # fmt: skip


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pages and corpora that are no part of the project: `../shared/data`, or $PERSONA_SHARED."""
    folder = Path(os.environ.get("PERSONA_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set PERSONA_SHARED to try with it")
    return folder


@pytest.fixture(scope="session")
def soak() -> bool:
    """True under `make soak`: counted tests then make the full number of rounds."""
    return os.environ.get("PERSONA_SOAK") == "1"


@pytest.hookimpl(tryfirst=True)  # before `-m soak` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soak tests run only when asked for; then the counted ones, which know the full number, are soak tests too."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))
    if os.environ.get("PERSONA_SOAK") == "1":
        for item in items:
            if "soak" in getattr(item, "fixturenames", ()):
                item.add_marker("soak")
        return
    skip = pytest.mark.skip(reason="full counts: make soak")
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)
