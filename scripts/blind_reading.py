"""Answers of an adapter to unseen prompts, as sheets for readers who must not know which voice was asked.

    python scripts/blind_reading.py PROMPTS.yaml OUT_FOLDER [--recipe persona_v2]

PROMPTS.yaml maps a persona to its prompts (12 each), written by somebody who has not seen the adapter's answers. Writes
`sheet.md` (prompts and answers in drawn order, no voice named), `key.json` (which voice each was asked in, for whoever
counts), and `answers.jsonl` with all of it. Sampled as the report is, one seed a prompt; answers are as the chat shows
them, filtered.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import yaml

from persona_dagster.chat.adapters import choose, find_adapters
from persona_dagster.chat.engine import Ask, Engine, Sampling
from persona_dagster.config.personas import load_personas
from persona_dagster.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="persona_v2")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    settings = Settings()
    personas = load_personas(settings.config_dir)
    adapter = choose(find_adapters(settings), given.recipe)
    engine = Engine(settings.models_dir, personas)
    rows = []
    for name, prompts in yaml.safe_load(given.prompts.read_text(encoding="utf-8")).items():
        for number, prompt in enumerate(prompts):
            sampling = Sampling(max_new_tokens=120, seed=given.seed * 1000 + number)
            ask = Ask([{"role": "user", "content": prompt}], adapter, personas.personas[name], sampling)
            answer = engine.answer(ask)
            text = "".join(answer)
            rows.append({"persona": name, "prompt": prompt, "answer": text, "raw": answer.raw, "finish": answer.finish})
            print(f"{name}: {prompt} → {text}", flush=True)
    engine.close()
    random.Random(given.seed).shuffle(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    blocks = [f"## {n}\n\n問：{row['prompt']}\n\n答：{row['answer']}\n" for n, row in enumerate(rows, 1)]
    sheet = f"# {len(rows)} answers of {adapter.title.split(' (')[0]}\n\n" + "\n".join(blocks)
    key = {n: row["persona"] for n, row in enumerate(rows, 1)}
    lines = [json.dumps({"number": n, **row}, ensure_ascii=False) for n, row in enumerate(rows, 1)]
    (given.out / "sheet.md").write_text(sheet, encoding="utf-8")
    (given.out / "key.json").write_text(json.dumps(key, indent=1), encoding="utf-8")
    (given.out / "answers.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
