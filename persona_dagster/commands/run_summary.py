"""What a run made, on one screen: what came in, what was learned, the verdict and its reason, three answers beside the
base's, and what to do next. Read from what was published, so it says the same however often it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
from rich.cells import cell_len, set_cell_size
from rich.console import Console

from persona_dagster.artifacts import Metrics, MixManifest, NotPublishedError, Versions
from persona_dagster.config.personas import load_personas
from persona_dagster.settings import PROJECT_ROOT, Settings

COLOURS = {"green": "green", "amber": "yellow", "red": "red"}
ANSWER_CELLS = 92  # a line of an answer
NAME_CELLS = 12


def tell_outcome(
    console: Console, settings: Settings, recipes: tuple[str, ...], corpus: Mapping[str, Any], links: Mapping[str, str]
) -> None:
    """Prints the summary. `corpus`: the figures of the asset `posts`; `links`: where each recipe's report lies."""
    for name, line in _lines(settings, recipes, corpus, links):
        head = set_cell_size(name, NAME_CELLS)
        console.print(f"[bold]{head}[/bold]{line}", highlight=False, soft_wrap=True)


def _lines(
    settings: Settings, recipes: tuple[str, ...], corpus: Mapping[str, Any], links: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    if corpus:
        by_source = ", ".join(f"{name} {rows:,}" for name, rows in dict(corpus.get("rows_by_source") or {}).items())
        yield (
            "Came in",
            f"{corpus.get('posts', 0):,} posts, with their comments {corpus.get('dagster/row_count', 0):,} rows "
            f"({by_source}); {corpus.get('usable_rows', 0):,} usable, {corpus.get('duplicates', 0):,} duplicates",
        )
    metrics: Metrics | None = None
    for recipe in recipes:
        manifest = _record(MixManifest, Versions(settings.mix_dir / recipe, MixManifest.FILE))
        metrics = _record(Metrics, Versions(settings.reports_dir / recipe, Metrics.FILE))
        if manifest:
            yield "Learned" if metrics else "To learn", _learned(manifest, metrics)
            for line in manifest.held_back[:3]:
                yield "[yellow]  short[/yellow]", line
        if metrics:
            colour = COLOURS[metrics.verdict]
            yield "Verdict", f"[{colour}]{metrics.verdict}[/{colour}] for {recipe}: {metrics.reason}"
    if metrics:
        yield from _answers(settings, metrics)
    yield from _next(recipes, metrics, links)


def _record(kind: type[Any], versions: Versions) -> Any:
    try:
        return kind.read(versions.newest())
    except NotPublishedError:
        return None


def _learned(manifest: MixManifest, metrics: Metrics | None) -> str:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in manifest.learned.items())
    text = f"{manifest.train_rows} rows ({shares}), {manifest.test_rows} kept for the test"
    if metrics is None:
        return text
    before, after = (metrics.key.get(f"loss_{model}") for model in ("base", "adapter"))
    if before is not None and after is not None:
        text += f"; loss on people's answers {before:.2f} → {after:.2f}"
    before, after = (metrics.key.get(f"fidelity_{model}") for model in ("base", "adapter"))
    if before is not None and after is not None:
        text += f"; in the asked voice {before:.0%} → {after:.0%}"
    return text


def _answers(settings: Settings, metrics: Metrics) -> Iterator[tuple[str, str]]:
    from persona_dagster.evaluation.report import shown

    answers = metrics.folder / "answers.parquet"
    if not answers.is_file():
        return
    personas = load_personas(settings.config_dir, settings.accepted_dir)
    for group in shown(pl.read_parquet(answers), personas)[:3]:
        sample = group["samples"][0]
        yield "", f"[{group['color']}]{_plain(group['tag'])}[/] {_cut(sample['question'])}"
        yield "  base", f"[dim]{_cut(sample['base'])}[/dim]"
        yield "  adapter", _cut(sample["adapter"])


def _cut(text: str | None) -> str:
    line = " ".join((text or "–").split())
    return _plain(line if cell_len(line) <= ANSWER_CELLS else f"{set_cell_size(line, ANSWER_CELLS - 1).rstrip()}…")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _next(recipes: tuple[str, ...], metrics: Metrics | None, links: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    program = "make" if (PROJECT_ROOT / "Makefile").is_file() else "persona"
    for name, place in links.items():
        yield "Report", f"{place}" + (f" ({name})" if len(links) > 1 else "")
    if metrics is None:
        yield (
            "Next",
            f"persona funnel: where every row went; persona build {' '.join(recipes)}: the mix, then train and judge",
        )
        return
    yield "Next", f"{program} chat: talk to it; {program} ui: the same run in Dagster"
    yield "", "persona import FILE, then persona build: the same from your own posts"
