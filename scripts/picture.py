"""The README's picture: one question a persona, with the answers of the base model and of the adapter.

    python scripts/picture.py HOME/reports/persona_v2/DIGEST docs/images/answers.png

The first question of each persona by hash, as the report shows them: whatever the answers look like.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

import polars as pl

from persona_dagster.artifacts import Metrics
from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.crawl.browser import find_chromium
from persona_dagster.evaluation.report import shown

WIDTH = 1000  # pixels of CSS
STYLE = """
body { margin: 0; padding: 22px 26px; width: 948px; background: #fff; color: #1f2937;
  font: 15px/1.65 "Noto Sans CJK TC", "Noto Sans TC", system-ui, sans-serif; }
section { margin-bottom: 16px; border-left: 4px solid; padding-left: 14px; }
h2 { font-size: 16px; margin: 0 0 6px; }
.question { font-weight: 600; }
.answers { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
b { display: block; font-size: 12px; color: #6b7280; font-weight: 600; }
p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; overflow: hidden; display: -webkit-box;
  -webkit-box-orient: vertical; -webkit-line-clamp: 7; }
footer { font-size: 12px; color: #6b7280; }
"""


def page(folder: Path) -> str:
    metrics = Metrics.read(folder)
    rows = pl.read_parquet(folder / "answers.parquet")
    parts = [_section(group) for group in shown(rows, load_personas(PACKAGED))]
    run = metrics.run
    seconds = f", trained for {run.train_seconds:.0f} s on a CPU" if run and run.train_seconds else ""
    foot = f"{run.base_model if run else ''}{seconds}; verdict: {metrics.verdict}. Not chosen: the first of each voice."
    return f"<meta charset=utf-8><style>{STYLE}</style>{''.join(parts)}<footer>{escape(foot)}</footer>"


def _section(group: dict[str, object]) -> str:
    sample = group["samples"][0]  # type: ignore[index]
    answers = "".join(
        f"<div><b>{name}</b><p>{escape(_lines(sample[key]))}</p></div>"
        for name, key in (("原始模型 base", "base"), ("微調後 adapter", "adapter"))
    )
    title = f'{escape(str(group["tag"]))} <span class="question">{escape(sample["question"])}</span>'
    return (
        f'<section style="border-color:{group["color"]}"><h2>{title}</h2><div class="answers">{answers}</div></section>'
    )


def _lines(answer: str | None) -> str:
    return re.sub(r"\n+", "\n", answer or "–")


def main() -> None:
    from playwright.sync_api import sync_playwright

    folder, target = map(Path, sys.argv[1:3])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 300}, device_scale_factor=1.6)
        view.set_content(page(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        view.screenshot(path=target, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
