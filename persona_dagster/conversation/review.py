"""The page of `persona review`: one answer at a time, the most uncertain first; a key is a label in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.conversation.builders import VoiceJudge, candidates
from persona_dagster.conversation.labels import append, label

MOST = 300  # answers of one sitting
CHOICES = (
    ("是 · yes (y)", "y"),
    ("都不是 · no voice (n)", "n"),
    ("不安全 · unsafe (u)", "u"),
    ("跳過 · skip (s)", "s"),
)
KEYS = """<script>document.addEventListener('keydown', event => {
  if ('ynus'.includes(event.key)) document.getElementById('label-' + event.key)?.click();
});</script>"""


@dataclass(frozen=True, slots=True)
class Candidate:
    doc_id: str
    question_doc: str | None
    thread: str  # text of the thread's first post
    question: str
    answer: str
    persona: str  # the voice that is nearest to its threshold
    probability: float
    near: list[str]  # answers of the persona's example lines that are most like it


class Explaining(VoiceJudge, Protocol):
    """A judge that can show what an answer is like: `voice_classifier.Voices`."""

    def nearest(self, name: str, answers: Sequence[str]) -> list[list[str]]: ...


def queue(
    posts: pl.DataFrame, edges: pl.DataFrame, personas: Personas, judge: Explaining, known: set[str]
) -> list[Candidate]:
    """The candidates of all feeds that nobody has labelled, nearest to a threshold first, one a question."""
    pairs = pl.concat([found for found in candidates(posts, personas, edges=edges).values() if found.height])
    pairs = pairs.with_columns(doc_id=pl.col("doc_ids").list.last()).filter(~pl.col("doc_id").is_in(sorted(known)))
    pairs = pairs.unique("doc_id", keep="first", maintain_order=True)
    hints = pairs.select(pl.col(f"hint_{name}").alias(name) for name in personas.personas)
    scores = judge.scores(pairs["question"].to_list(), pairs["answer"].to_list(), hints)
    far = [(pl.col(name) - judge.threshold(name)).abs().fill_null(1.0).alias(name) for name in personas.personas]
    gaps = scores.select(far)
    names = list(personas.personas)
    nearest = gaps.select(gap=pl.min_horizontal(names), at=pl.concat_list(names).list.arg_min())
    order = pl.concat([pairs, nearest, scores.select(pl.all().name.prefix("voice_"))], how="horizontal")
    threads = posts.filter(pl.col("kind") != "comment").select(
        thread_id=pl.concat_str("source", pl.col("board").fill_null(""), "post_id", separator=":"), thread="text"
    )
    order = order.join(threads.unique("thread_id"), on="thread_id", how="left", maintain_order="left")
    shown = order.sort("gap", "doc_id").unique("question", keep="first", maintain_order=True).head(MOST)
    near: dict[str, list[str]] = {}
    for (at,), part in shown.group_by("at"):
        near |= zip(part["doc_id"], judge.nearest(names[at], part["answer"].to_list()), strict=True)
    return [
        Candidate(
            row["doc_id"],
            row["doc_ids"][0] if len(row["doc_ids"]) > 1 else None,
            row["thread"] or "",
            row["question"],
            row["answer"],
            (name := names[row["at"]]),
            row[f"voice_{name}"] or 0.0,
            near[row["doc_id"]],
        )
        for row in shown.iter_rows(named=True)
    ]


class Review:
    """The candidates that wait, and the file that takes what is said of them."""

    def __init__(self, waiting: list[Candidate], path: Path, by: str) -> None:
        self.waiting, self.path, self.by, self.total = waiting, path, by, len(waiting)

    @property
    def current(self) -> Candidate | None:
        return self.waiting[0] if self.waiting else None

    def take(self, key: str, seen: str) -> None:
        """Writes what `key` says of the candidate that was `seen`; nothing where the page shows another by now."""
        candidate = self.current
        if candidate is None or seen != candidate.doc_id:
            return
        if key != "s":
            persona = candidate.persona if key == "y" else None
            more = {"question_doc": candidate.question_doc, "unsafe": key == "u"}
            append(self.path, [label(candidate.doc_id, persona, self.by, **more)])
        self.waiting.pop(0)


def review_page(review: Review, personas: Personas) -> Any:
    """A Gradio page, all plain text; launch it with `head=KEYS`."""
    import gradio as gr

    def shown() -> tuple[str, ...]:
        done, one = f"{review.total - len(review.waiting)} / {review.total}", review.current
        if one is None:
            return ("", "", "", "", "", done, "")
        voice = f"{personas.personas[one.persona].tag} {one.probability:.0%}"
        return (one.thread, one.question, one.answer, voice, "\n".join(one.near), done, one.doc_id)

    with gr.Blocks(title="persona review") as page:
        gr.Markdown("### 這個回答是這個人格會說的嗎？ Would this persona say this?")
        done = gr.Textbox(label="標註 · labels", interactive=False)
        thread = gr.Textbox(label="討論串 · thread", interactive=False, lines=3, max_lines=6)
        question = gr.Textbox(label="回覆的對象 · replies to", interactive=False, lines=3, max_lines=8)
        answer = gr.Textbox(label="回答 · answer", interactive=False, lines=5)
        voice = gr.Textbox(label="人格 · persona", interactive=False)
        near = gr.Textbox(label="最像的例句 · nearest example lines", interactive=False, lines=2)
        seen = gr.State("")
        fields = [thread, question, answer, voice, near, done, seen]
        with gr.Row():
            for title, key in CHOICES:

                def take(doc_id: str, key: str = key) -> tuple[str, ...]:
                    review.take(key, doc_id)
                    return shown()

                gr.Button(title, elem_id=f"label-{key}").click(take, inputs=seen, outputs=fields)
        page.load(shown, outputs=fields)
    return page
