"""What an engine asks a cluster for: the cards of the recipe. Ray itself is run by e2e/test_beyond.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from persona_dagster.defs.engines import RayEngine


@pytest.mark.parametrize(
    ("program", "needs_a_card", "cards"),
    [("train-one", True, 2), ("evaluate-one", True, 1), ("train-one", False, 0)],
)
def test_ray_is_asked_for_the_cards_of_the_recipe(
    program: str, needs_a_card: bool, cards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    class Client:
        def __init__(self, **_: Any) -> None: ...

        def run(self, context: Any, submit_job_params: dict[str, Any]) -> Any:
            asked.update(submit_job_params)
            return SimpleNamespace(get_results=lambda: [dg.MaterializeResult()])

    monkeypatch.setitem(sys.modules, "dagster_ray", SimpleNamespace(PipesRayJobClient=Client))
    job = tmp_path / f"{program}.json"
    recipe = {"requires_cuda": needs_a_card, "training": {"processes": 2}}
    job.write_text(json.dumps({"recipe": recipe}), encoding="utf-8")
    RayEngine(None).run(SimpleNamespace(), "a.module", job)  # type: ignore[arg-type]
    assert asked["entrypoint_num_gpus"] == cards and asked["entrypoint"].endswith(f"-m a.module {job}")
