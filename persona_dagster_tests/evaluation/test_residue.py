"""Forum residue and personal data: found where it is, not where it is not."""

from __future__ import annotations

import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.evaluation import residue
from persona_dagster.models.output_filter import filter_text

DIRTY = {
    "persona_tag": "[感性感情導師] 抱抱你",
    "push_line": "推 abc123: 笑死",
    "station": "※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 臺灣",
    "quotation": "※ 引述《somebody》之銘言：",
    "header": "作者 somebody (暱稱) 看板 Boy-Girl",
    "push_time": "真的假的 11/05 23:41",
    "date": "2024/03/05 他就走了",
    "signature": "說完了\n--\n",
    "floor": "回覆 B12 你說得對",
    "link": "看這個 https://i.imgur.com/abc.jpg",
    "board_tag": "[心得] 分手之後",
    "placeholder": "謝謝 <USER> 的建議",
    "email": "寫信給 some.one@example.com",
    "phone": "打 0912-345-678 給我",
    "ip": "來自 140.112.1.1",
    "id": "身分證 A123456789",
    "line_id": "加我 LINE: some_one99",
}
CLEAN = [
    "維生素 B12 群要吃嗎？",
    "第 3 點：把 r 設成 16，學習率 2e-4。",
    "1/2 的人都這樣想，10:30 再說。",
    "時間會沖淡一切，標題不重要。",
    "抱抱你，慢慢來。",
    "版本 1.2.3 修好了。",
    "他說：「隨便。」我說：「好。」",
]


@pytest.mark.parametrize("kind", DIRTY)
def test_residue_is_found(kind: str, personas: Personas) -> None:
    assert kind in residue.find(DIRTY[kind], residue.tag_pattern(personas))


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_is_left_alone(text: str, personas: Personas) -> None:
    assert residue.find(text, residue.tag_pattern(personas)) == []


def test_the_inference_filter_takes_out_what_is_found(personas: Personas) -> None:
    left = [
        kind
        for kind, text in DIRTY.items()
        if residue.find(filter_text(text, personas).text, residue.tag_pattern(personas))
    ]
    # Within prose these may be meant: the filter leaves them, the report counts them.
    assert set(left) == {"date", "push_time", "link", "board_tag"}


def test_share_before_and_after_a_filter(personas: Personas) -> None:
    answers = [DIRTY["link"], "抱抱你", DIRTY["persona_tag"], "笑死"]
    assert residue.measure(answers, personas).share == 0.5
    cleaned = residue.measure(answers, personas, lambda text: text.replace("[感性感情導師] ", ""))
    assert cleaned.share == 0.25
    assert cleaned.kinds == {"link": 1}
    assert residue.measure([], personas).share is None
