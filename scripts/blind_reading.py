"""Answers of an adapter to unseen prompts, as sheets for readers who must not know which voice was asked.

    python scripts/blind_reading.py PROMPTS.yaml OUT_FOLDER [--recipe persona_v2]

PROMPTS.yaml maps a persona to its prompts (12 each), written by somebody who has not seen the adapter's answers. Writes
`sheet.md` (prompts and answers in drawn order, no voice named), `key.json` (which voice each was asked in, for whoever
counts), and `answers.jsonl` with all of it. Asked and sampled as the report is; filtered as the chat is.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import yaml

from persona_dagster.artifacts import MixManifest, RunCard, Versions
from persona_dagster.config.personas import load_personas
from persona_dagster.config.recipes import load_recipe
from persona_dagster.evaluation.generate import answer_all, load_models
from persona_dagster.evaluation.job_spec import GenerateJob
from persona_dagster.evaluation.prompts import Prompt
from persona_dagster.models.chat_format import with_persona
from persona_dagster.models.hardware import hardware_of
from persona_dagster.models.output_filter import filter_text
from persona_dagster.pipes_reporting import Reporter
from persona_dagster.settings import Settings

ORDER_SEED = 7  # of the sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="persona_v2")
    given = parser.parse_args()
    settings = Settings()
    personas = load_personas(settings.config_dir)
    job = GenerateJob(
        recipe=load_recipe(given.recipe, settings.config_dir, settings.profile, hardware_of(settings)),
        personas=personas,
        mix_dir=Versions(settings.mix_dir / given.recipe, MixManifest.FILE).newest(),
        models_dir=settings.models_dir,
        adapter_dir=Versions(settings.adapters_dir / given.recipe, RunCard.FILE).newest(),
        out_dir=given.out,
    )
    asked = [
        Prompt(
            f"{name}-{number}",
            "unseen",
            "adapter",
            name,
            tagged=True,
            messages=with_persona([{"role": "user", "content": text}], personas.personas[name], tagged=True),
        )
        for name, texts in yaml.safe_load(given.prompts.read_text(encoding="utf-8")).items()
        for number, text in enumerate(texts)
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer, _ = load_models(job)
    partial = given.out / "partial.jsonl"
    answers = answer_all(model, tokenizer, asked, job=job, partial=partial, reporter=Reporter(None))
    partial.unlink()
    rows = [
        {"persona": row["asked"], "prompt": row["messages"][-1]["content"], "raw": row["answer"],
         "answer": filter_text(row["answer"], personas).text, "finish": row["finish"]}
        for row in answers.to_dicts()
    ]  # fmt: skip
    random.Random(ORDER_SEED).shuffle(rows)
    blocks = [f"## {n}\n\n問：{row['prompt']}\n\n答：{row['answer']}\n" for n, row in enumerate(rows, 1)]
    lines = [json.dumps({"number": n, **row}, ensure_ascii=False) for n, row in enumerate(rows, 1)]
    (given.out / "sheet.md").write_text(f"# {len(rows)} answers\n\n" + "\n".join(blocks), encoding="utf-8")
    (given.out / "key.json").write_text(
        json.dumps({n: row["persona"] for n, row in enumerate(rows, 1)}, indent=1), encoding="utf-8"
    )
    (given.out / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
