"""Several trainings of one recipe: three tiny ones through the real programs, in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import load_recipe
from persona_dagster.evaluation import evaluate, generate, retrain_across_seeds
from persona_dagster.evaluation.job_spec import SeedsJob
from persona_dagster.pipes_reporting import Reporter
from persona_dagster.training import train
from persona_dagster_tests.evaluation.conftest import Hashed
from persona_dagster_tests.evaluation.material import write_mix

PROGRAMS = {
    "persona_dagster.training.train": lambda path: train.main([str(path)]),
    "persona_dagster.evaluation.generate": generate.main,
    "persona_dagster.evaluation.evaluate": evaluate.main,
}


@pytest.fixture
def job(tmp_path: Path, personas: Personas) -> SeedsJob:
    mix = write_mix(tmp_path / "mix")
    shutil.copy(mix / "test.jsonl", mix / "validation.jsonl")
    (mix / "manifest.json").unlink()  # it names no digest: the files do
    recipe = load_recipe("persona_v2", tmp_path, "tiny", "cpu")
    training = recipe.training.model_copy(update={"max_steps": 2})
    evaluation = recipe.evaluation.model_copy(update={"seeds": 3, "max_rows": 2, "max_probes": 1})
    return SeedsJob(
        recipe=recipe.model_copy(update={"training": training, "evaluation": evaluation}),
        personas=personas,
        mix_dir=mix,
        models_dir=tmp_path / "models",
        out_dir=tmp_path / "seeds",
    )


def test_each_seed_is_trained_and_judged_once_and_its_weights_are_not_kept(
    job: SeedsJob, hashed: Hashed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_encoder", lambda *_: hashed.encoder)
    monkeypatch.setattr(evaluate, "Scorer", lambda _: hashed)
    ran: list[tuple[str, int]] = []

    def run(module: str, path: Path) -> None:
        if len(ran) == 4:
            ran.append(("killed", 0))
            raise KeyboardInterrupt
        ran.append(
            (module.rpartition(".")[2], json.loads(path.read_text(encoding="utf-8"))["recipe"]["training"]["seed"])
        )
        assert not PROGRAMS[module](path)

    with pytest.raises(KeyboardInterrupt):
        retrain_across_seeds.judge_seeds(job, Reporter(None, quiet=True), run)
    path = retrain_across_seeds.judge_seeds(job, Reporter(None, quiet=True), run)
    first = job.recipe.training.seed
    steps = [("train", 1), ("generate", 1), ("evaluate", 1), ("train", 2), ("killed", -first)]
    steps += [("train", 2), ("generate", 2), ("evaluate", 2)]
    assert ran == [(name, first + place) for name, place in steps]
    found = json.loads(path.read_text(encoding="utf-8"))["seeds"]
    assert list(found) == [str(first + 1), str(first + 2)]
    losses = [one["gates"]["min_loss_gain"]["value"] for one in found.values()]
    assert losses[0] != losses[1], "another seed, another adapter"
    assert [child.name for child in job.out_dir.iterdir()] == [retrain_across_seeds.FILE]
    retrain_across_seeds.judge_seeds(job, Reporter(None, quiet=True), run)
    assert len(ran) == len(steps), "nothing changed: nothing trained"
