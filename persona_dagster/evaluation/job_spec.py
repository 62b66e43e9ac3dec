"""What the two evaluation programs are told: their jobs, as files that a person can read and run again."""

from __future__ import annotations

from pathlib import Path

from persona_dagster.artifacts import Job
from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Recipe

# Raise when the same inputs would give other answers or other numbers: generations and reports are then stale.
EVALUATION_VERSION = "8"


class _Job(Job):
    recipe: Recipe
    personas: Personas
    mix_dir: Path  # train.jsonl, test.jsonl, provenance.parquet, manifest.json
    models_dir: Path


class GenerateJob(_Job):
    """Answers of base and adapter: written to `out_dir/<digest>`; the file `out_dir/latest` names the digest."""

    adapter_dir: Path  # a PEFT adapter: adapter_config.json, adapter_model.safetensors
    out_dir: Path


class EvaluateJob(_Job):
    """Metrics and report over generations: written to `out_dir/<digest>`; the file `out_dir/latest` names the digest.

    `judge_rows` is what the voice judge learns from: what `judge_training_data.write_judge_rows` made of the train
    dialogues that all recipes share, so that every recipe meets the same judge; without it, the recipe's own train rows
    teach it, and the report says so.
    """

    generations_dir: Path  # what generate wrote
    out_dir: Path
    adapter_dir: Path | None = None  # for its run facts: training curve, peak VRAM, watts
    judge_rows: Path | None = None
    votes: Path | None = None  # JSONL of `preference.VOTE_SCHEMA`: what people preferred
    seeds: Path | None = None  # what `evaluation.seeds` wrote: the gates' numbers of other trainings


class SeedsJob(_Job):
    """A recipe's other trainings (`evaluation.seeds` of them, less the published one): their gates are written to
    `out_dir/seeds.json`, their weights are not kept."""

    out_dir: Path
    judge_rows: Path | None = None
    votes: Path | None = None
