"""The inference filter: residue goes, ordinary text stays to the last character, streams equal wholes."""

from __future__ import annotations

import random

import pytest

from persona_dagster.models.output_filter import StreamFilter, filter_text

# (what a model said, what is left)
RESIDUE = [
    ("[感性感情導師] 抱抱你，慢慢來", "抱抱你，慢慢來"),
    ("【極品感情嘴替】：笑死", "笑死"),
    ("[人格:感情導師] 你好", "你好"),
    ("先說結論[NLP助教]，再說理由", "先說結論，再說理由"),
    ("推 abc123: 真的很扯    01/12 12:26\n→ <USER>: 幫推 01/13 09:00\n噓 foo: 爛", "真的很扯\n幫推\n爛"),
    ("好的\n※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 1.2.3.4\n※ 文章網址: https://www.ptt.cc/bbs/x.html", "好的"),
    ("◆ From: 1.2.3.4\n快逃", "快逃"),
    ("作者: abc (暱稱) 看板: Hate 標題: [問卦] 哈 時間: Mon Jan  1 12:00:00 2024\n內文", "內文"),
    ("※ 引述《someone (某人)》之銘言：\n: 他說的話\n我覺得不對", "他說的話\n我覺得不對"),
    ("※ 編輯: someone (1.2.3.4), 01/02/2024 10:11:12\n好", "好"),
    ("B12 B13 你說得對", "你說得對"),
    ("回B12 沒錯", "沒錯"),
    ("@B3：沒錯", "沒錯"),
    ("b45 說得好", "說得好"),
    ("我也是\n2024年 1月2日 12:30\n", "我也是"),
    ("真的    01/12 12:26", "真的"),
    ("我也是\n01/12 12:26\n對啊", "我也是\n對啊"),
    ("好\n1.2.3.4 2024/01/12 12:26", "好"),
    ("<|im_start|>assistant\n你好<|im_end|>", "你好"),
    ("<|start_header_id|>assistant<|end_header_id|>\n\n你好<|eot_id|>", "你好"),
    ("[INST] 你好 [/INST]", "你好"),
    ("assistant: 你好", "你好"),
    ("好\n### Response: 對", "好\n對"),
    ("Re: [爆卦] 天啊", "天啊"),
    ("[黑特] 主管", "主管"),
    ("https://i.imgur.com/abc123.jpg\n你看", "你看"),
    ("<USER> 你好，打給<PHONE>", "你好，打給〔電話〕"),
    ("打給我 0912-345-678 或 test@example.com", "打給我 〔電話〕 或 〔電子郵件〕"),
    ("電話02-23456789分機123，謝謝", "電話〔電話〕，謝謝"),
    ("我住台北市信義區松仁路100號3樓", "我住〔地址〕"),
    ("身分證 A123456789 給你", "身分證 〔證號〕 給你"),
    ("IP 是 140.112.3.4 哦", "IP 是 〔IP〕 哦"),
    ("加我 line id: happy_girl99 喔", "加我 line id: 〔帳號〕 喔"),
    ("帳號 012-345678901234 匯款", "帳號 〔帳戶〕 匯款"),
    ("好喔\n--\nSent from my iPhone", "好喔"),
]

# Nothing of this is residue.
ORDINARY = [
    "會議改到 2024/01/02 10:00，地點不變。",
    "截止時間是 12/31 23:59",
    "會議時間：\n2024/12/13 20:19\n地點不變",
    "2024/10/15 11:38\n第一場開始",
    "下一班車：\n12/13 20:19\n不要遲到",
    "出發日：\n2024年1月2日 12:30\n記得帶護照",
    "我們在 2023 年 5 月 20 日 14:30 見面。",
    "Transformer (Vaswani et al., 2017) 在 2017-06-12 公開。",
    "重點有三：\n[1] 資料\n[2] 模型\n[3] 評估",
    "[重點] 先看資料，再看模型。",
    "【注意】學習率不要太大",
    "【NLP】是自然語言處理的縮寫",
    "list[int] 和 dict[str, Any] 是型別標註",
    "B12 缺乏會貧血，B6 也要補充。",
    "B200 的記憶體比 H100 大",
    "B1 有停車場，B2 是美食街。",
    "To B2B 客戶的信要正式一點",
    "→ BERT: 雙向編碼\n→ GPT: 單向解碼",
    "→ 結論：先睡一覺",
    "推薦你看 Attention Is All You Need",
    "推 BERT：因為簡單",
    "噓，小聲一點",
    "- 第一點\n- 第二點\n  - 細節",
    "> 引用別人的話\n\n我的回答",
    "1. 定義\n2. 例子\n\n```python\nx = a[0] if a else None  # 2024/01/01\n```",
    "在網路上找資料，走出這條路，號稱最強",
    "住在中山路附近的人都知道",
    "台北的天氣很好，高雄也是",
    "準確率 0.9123456789，召回率 0.85",
    "共 1,234,567,890 元",
    "訂單編號 20240102123456 已出貨",
    "版本 1.2.3.4 更新內容",
    '<div class="box">文字</div> 是 HTML',
    "向量 <x, y> 的內積",
    "a < b 而且 c > d",
    "P(A|B) = P(B|A) P(A) / P(B)",
    "時間：晚上八點，地點：老地方",
    "標題要短，作者要寫清楚",
    "Re 是前綴，不是回覆",
    "QQ 抱抱，XD，哈哈哈哈",
    "：他說的也有道理",
    "助教：這題很好，我們一步一步來",
    "He said [sic] on 3/4/2021 (Thursday) that it works.",
    "使用者會先看到登入頁，系統再導向首頁。",
    "參考：\nhttps://arxiv.org/abs/1706.03762\n裡面的圖一",
    "email 格式是 name@domain",
    "Python 3.11 與 3.12 都可以，`pip install torch==2.13.0`",
    "失戀第 1 天、第 2 天、第 30 天",
    "比例是 16:9，時間 08:30 出門",
    "信義區 24 小時營業的書店",
    "[x] 完成\n[ ] 未完成",
    "f(x) = [x > 0] * x",
]


@pytest.mark.parametrize(("said", "left"), RESIDUE)
def test_residue_goes_and_is_shown(said: str, left: str) -> None:
    filtered = filter_text(said)
    assert filtered.text == left
    assert filtered.removed


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert filter_text(text) == filter_text(text).__class__(text, ())


@pytest.mark.parametrize("text", [*(said for said, _ in RESIDUE), *ORDINARY])
def test_a_stream_in_any_pieces_equals_the_whole(text: str, soak: bool) -> None:
    whole = filter_text(text)
    for seed in range(300 if soak else 12):
        pieces = random.Random(seed)
        stream, out, place = StreamFilter(), "", 0
        while place < len(text):
            size = pieces.randint(1, 5) if seed else 1
            out += stream.feed(text[place : place + size])
            place += size
        assert out + stream.close() == whole.text
        assert stream.removed == whole.removed


def test_mixtures_of_residue_and_prose_stream_as_they_filter(soak: bool) -> None:
    texts = [*(said for said, _ in RESIDUE), *ORDINARY]
    for seed in range(2000 if soak else 60):
        draw = random.Random(seed)
        text = draw.choice(["\n", "", " ", "\n\n\n"]).join(draw.sample(texts, 3))
        stream = StreamFilter()
        out, place = "", 0
        while place < len(text):
            size = draw.randint(1, 6)
            out += stream.feed(text[place : place + size])
            place += size
        assert out + stream.close() == filter_text(text).text, text


def test_prose_is_held_back_by_little() -> None:
    text = "今天想跟你說，失戀不是你的錯，慢慢來，我會陪你。記得吃飯，也記得睡覺，剩下的交給時間。"
    stream = StreamFilter()
    let_go, behind = 0, []
    for place, char in enumerate(text, start=1):
        let_go += len(stream.feed(char))
        behind.append(place - let_go)
    assert max(behind) <= 2


def test_filtering_twice_changes_nothing() -> None:
    for said, _ in RESIDUE:
        once = filter_text(said).text
        assert filter_text(once).text == once


def test_a_long_hostile_text_stays_linear() -> None:
    import time

    for text in ("[" * 20_000, "推 a: " * 5_000, "0912 " * 5_000, " " * 20_000, "路1" * 10_000, "<|" * 10_000):
        started = time.process_time()
        filter_text(text)
        assert time.process_time() - started < 5
