"""The blind page of `persona judge`: two answers, unnamed, sides drawn by hash; a vote is a line in a file.

The file holds ids and votes, no text, and is the lineage of `judge_kappa` and `preference`: which generations, which
pair, whose vote, when.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import write_json
from persona_dagster.evaluation.preference import Pair, Vote, make_pairs, read_votes, vote_row

CHOICES: tuple[tuple[str, Vote], ...] = (
    ("左邊好 · left (←)", "left"),
    ("一樣 · tie (↓)", "tie"),
    ("右邊好 · right (→)", "right"),
)
KEYS = """<script>document.addEventListener('keydown', event => {
  const button = {ArrowLeft: 'vote-left', ArrowDown: 'vote-tie', ArrowRight: 'vote-right'}[event.key];
  if (button) { event.preventDefault(); document.getElementById(button)?.click(); }
});</script>"""


class Ballot:
    """The pairs that `judge` has not voted on, and the file that takes the votes."""

    def __init__(self, pairs: list[Pair], path: Path, recipe: str, generations: str, judge: str) -> None:
        self.path, self.recipe, self.generations, self.judge = path, recipe, generations, judge
        self.total = len(pairs)
        done = set(read_votes([path]).filter(pl.col("judge") == judge)["pair_id"]) if path.is_file() else set()
        self.waiting = [pair for pair in pairs if pair.pair_id not in done]

    @property
    def pair(self) -> Pair | None:
        return self.waiting[0] if self.waiting else None

    def vote(self, vote: Vote, seen: str | None = None) -> None:
        """Writes the vote on the next pair, and goes on; nothing where the voter had `seen` another one (a key that was
        pressed twice)."""
        if (pair := self.pair) is None or seen not in (None, pair.pair_id):
            return
        at = datetime.now(UTC).isoformat(timespec="seconds")
        row = vote_row(pair, vote, recipe=self.recipe, generations=self.generations, judge=self.judge, at=at)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.waiting.pop(0)


def vote_by_model(
    generations: Path, recipe: str, path: Path, *, url: str, model: str, key: str | None, personas: dict[str, str]
) -> dict[str, Any]:
    """A model's votes on all pairs, into the same file; the record of how they came about, beside it."""
    from persona_dagster.evaluation.llm_judge import PREFIX, ask_model

    pairs = make_pairs(pl.read_parquet(generations / "generations.parquet"))
    ballot = Ballot(pairs, path, recipe, generations.name, f"{PREFIX}{model}")
    waiting = list(ballot.waiting)
    asked = ask_model(waiting, url, model, key=key, personas=personas)
    for vote in asked.votes:
        ballot.vote(vote)
    record = {**asked.record, "generations": generations.name}
    write_json(path.with_name(f"{path.stem}-{model.replace('/', '-')}.json"), record)
    return record


def vote_page(generations: Path, recipe: str, path: Path, judge: str) -> Any:
    """A Gradio page over the answers in the folder `generations`, as plain text; launch it with `head=KEYS`."""
    import gradio as gr

    pairs = make_pairs(pl.read_parquet(generations / "generations.parquet"))
    ballot = Ballot(pairs, path, recipe, generations.name, judge)

    def shown() -> tuple[str, ...]:
        done = f"{ballot.total - len(ballot.waiting)} / {ballot.total}"
        pair = ballot.pair
        if pair is None:
            return ("", "", "", "", done, "")
        return (pair.asked, pair.question, pair.left_answer, pair.right_answer, done, pair.pair_id)

    with gr.Blocks(title="persona judge") as page:
        gr.Markdown("### 哪個回答比較好？ Which answer is better?")
        done = gr.Textbox(label="votes", interactive=False)
        asked = gr.Textbox(label="asked voice", interactive=False)
        question = gr.Textbox(label="問題 · question", interactive=False, lines=2)
        with gr.Row():
            left = gr.Textbox(label="A", interactive=False, lines=8)
            right = gr.Textbox(label="B", interactive=False, lines=8)
        seen = gr.State("")
        fields = [asked, question, left, right, done, seen]
        with gr.Row():
            for label, vote in CHOICES:

                def take(pair_id: str, vote: Vote = vote) -> tuple[str, ...]:
                    ballot.vote(vote, pair_id)
                    return shown()

                gr.Button(label, elem_id=f"vote-{vote}").click(take, inputs=seen, outputs=fields)
        page.load(shown, outputs=fields)
    return page
