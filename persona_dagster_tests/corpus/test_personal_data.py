"""Hostile spellings through `persona clean` itself, and the second detector that a release has to pass."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from persona_dagster.config.sources import load_sources
from persona_dagster.corpus import privacy
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.corpus.personal_data.normalise import HAN_DIGITS, normalise
from persona_dagster.corpus.personal_data.second_look import identifiers

MARKED = re.compile("⟦(.*?)⟧")
PLACEHOLDER = re.compile(f"<(?:{'|'.join(privacy.KINDS)})>")


def hostile() -> Iterator[tuple[str, bool, str]]:
    """Kind, whether it holds an identifier, and the line as written. $PERSONA_HOSTILE_SET names a set of somebody else,
    instead of ours: JSON lines of `text`, `kind` and `span` (or `spans`): null, a string or [start, end], or several.
    """
    if other := os.environ.get("PERSONA_HOSTILE_SET"):
        for row in map(orjson.loads, Path(other).read_bytes().splitlines()):
            span = row["spans"] if "spans" in row else row["span"]
            yield row["kind"], bool(span), marked(row["text"], span)
        return
    kind = ""
    for path in sorted(Path(__file__).parent.glob("hostile_personal_data*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("== "):
                kind = line[3:]
            elif line[:2] in ("+ ", "- "):
                yield kind, line[0] == "+", line[2:]


def marked(text: str, span: str | list[Any] | None) -> str:
    spans = [] if not span else [span] if isinstance(span, str) or isinstance(span[0], int) else span
    for value in [one if isinstance(one, str) else text[one[0] : one[1]] for one in spans]:
        assert value in text, f"{value!r} is not in {text!r}"
        text = text if f"⟦{value}⟧" in text else text.replace(value, f"⟦{value}⟧")
    return text


LINES = list(hostile())


def letters(text: str) -> str:
    """Letters and digits alone, however they are spelt."""
    read = unicodedata.normalize("NFKC", text).translate(HAN_DIGITS)
    return "".join(character for character in read if character.isalnum()).lower()


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`text` of every line after `persona clean`, as a user runs it."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"source": "dcard", "kind": "post", "id": str(number), "board": "mood", "text": MARKED.sub(r"\1", line)}
        for number, (_, _, line) in enumerate(LINES)
    ]
    (folder / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    clean_file(folder / "in.jsonl", folder / "out.jsonl", load_sources(folder, "sample"))
    out = {row["id"]: row["text"] for row in map(orjson.loads, (folder / "out.jsonl").read_bytes().splitlines())}
    return [out[str(number)] for number in range(len(LINES))]


@pytest.mark.parametrize("kind", dict.fromkeys(kind for kind, _, _ in LINES))
def test_recall_and_precision_through_persona_clean(cleaned: list[str], kind: str) -> None:
    missed, wrong, found = [], [], 0
    for (of, personal, line), text in zip(LINES, cleaned, strict=True):
        if of != kind:
            continue
        if not personal:
            wrong += [f"{line!r} -> {text!r}"] if PLACEHOLDER.search(text) else []
        elif any(letters(value) in letters(PLACEHOLDER.sub(" ", text)) for value in MARKED.findall(line)):
            missed.append(f"{line!r} -> {text!r}")
        else:
            found += 1
    alone = not found and not missed  # look-alikes of every kind
    recall = 1.0 if alone else found / (found + len(missed))
    precision = 1 - len(wrong) / sum(of == kind for of, _, _ in LINES) if alone else found / (found + len(wrong) or 1)
    print(f"{kind}: recall {recall:.3f} of {found + len(missed)}, precision {precision:.3f}")
    told = "\n".join(["missed:", *missed, "masked but harmless:", *wrong])
    assert recall >= 0.9 and precision >= 0.95, f"{kind}: recall {recall:.3f}, precision {precision:.3f}\n{told}"


def test_the_set_is_large_enough() -> None:
    assert len(LINES) >= 365 and len({line for _, _, line in LINES}) == len(LINES)


def test_a_column_is_masked_as_its_texts_are_one_by_one() -> None:
    """What the gate of the column lets pass unread, no detector may find."""
    texts = [MARKED.sub(r"\1", line) for _, _, line in LINES]
    column, counts = privacy.mask_series(pl.Series([*texts, None]))
    assert column.to_list() == [*(privacy.mask(text)[0] for text in texts), None]
    assert counts == sum((privacy.mask(text)[1] for text in texts), start=type(counts)())


@pytest.mark.parametrize("text", ["a\u200bb\ufe0fｃ", "０９—２８", "plain", "全形　空白 №"])
def test_spans_are_carried_back_to_the_text_as_it_stands(text: str) -> None:
    read = normalise(text)
    for at in range(len(read.text)):
        start, end = read.span(at, at + 1)
        folded = unicodedata.normalize("NFKC", text[start:end])
        assert read.text[at] == folded or not read.text[at].isalnum()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0 9-2 8.3/4 1 7 7 6", "telephone"),
        ("零九二八三四一七七六", "telephone"),
        ("02-2736-4418", "telephone"),
        ("a.b@c.example", "email"),
        ("4111 1111 1111 1111", "card"),
        ("A-1 9 4 5 8 0 7 3 0", "national id"),
    ],
)
def test_the_second_detector_sees_through_spelling(text: str, kind: str) -> None:
    assert kind in set(identifiers(f"說 {text} 好嗎"))
    assert list(identifiers("打 1922 或 0800-021-000，2023 年 <PHONE> 共 1,299 元")) == []


def test_the_output_filter_has_a_word_for_every_kind() -> None:
    from persona_dagster.models.output_filter import WORDS

    assert set(WORDS) == set(privacy.KINDS)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("身分證 A1★2★3★4★5★6★7★8★9，星星拿掉", "身分證 <ID>，星星拿掉"),
        ("我的護🐱照號碼是 312🐱456🐱789", "我的護🐱照號碼是 <PASSPORT>"),
        ("手機 0912・345・678 找我", "手機 <PHONE> 找我"),
        ("手機 ٠٩١٢-٣٤٥-٦٧٨ 找我", "手機 <PHONE> 找我"),
        ("手機 ０〩〡〢-〣〤〥-〦〧〨 找我", "手機 <PHONE> 找我"),
        ("終於 ٩(๑❛ᴗ❛๑)۶ 謝謝 (๑ºั╰╯ºั๑) 加完就刪", "終於 ٩(๑❛ᴗ❛๑)۶ 謝謝 (๑ºั╰╯ºั๑) 加完就刪"),
        ("第❸間，๒๐ 年的老店", "第❸間，๒๐ 年的老店"),
        ("這家 4★共12則，5★8則 🎉2026🎉 年再去", "這家 4★共12則，5★8則 🎉2026🎉 年再去"),
        ("微信搜 kai槓lin槓77，槓就是槓", "微信搜 <CHAT_ID>，槓就是槓"),
        ("寄到 kai.lin圈a mail點com 給我", "寄到 <EMAIL> 給我"),
        ("新 竹 市 東 區 光 復 路 二 段 1 0 1 號，到了打給我", "<ADDRESS>，到了打給我"),
        ("S碼M碼L碼都有，A和B和C 三班，3點5分到4點10分", "S碼M碼L碼都有，A和B和C 三班，3點5分到4點10分"),
        ("我 真 的 好 累 2 天 沒 睡", "我 真 的 好 累 2 天 沒 睡"),
        ("我的戶兆是 312456789", "我的戶兆是 <PASSPORT>"),
        ("威欣 ruby零五二八 找我", "威欣 <LINE_ID> 找我"),
        ("ㄓㄤˋㄏㄠˋ 7000-1142-5839-1", "ㄓㄤˋㄏㄠˋ <BANK>"),
        ("D1sc0rd 找 panda_0392", "D1sc0rd 找 <CHAT_ID>"),
        ("L-I-N-E 是 kelly_915", "L-I-N-E 是 <LINE_ID>"),
        ("用護罩擋 312 下就贏了，威信掃地", "用護罩擋 312 下就贏了，威信掃地"),
    ],
)
def test_a_disguise_hides_nobody(text: str, masked: str) -> None:
    assert privacy.mask(text)[0] == masked


def test_what_is_masked_stays_as_it_is() -> None:
    texts = ["IG: <IG_ID>", "LINE🔎<LINE_ID>", "本名：<NAME>", *(MARKED.sub(r"\1", line) for _, _, line in LINES)]
    once = [privacy.mask(text)[0] for text in texts]
    assert [privacy.mask(text)[0] for text in once] == once


def test_a_line_that_ends_in_digits_takes_no_number_of_the_next_with_it() -> None:
    masked, _ = privacy.mask_series(pl.Series(["營業 5pm~11pm\n0937547275\n路過", "編號 a11pm0937547275"]))
    assert masked.to_list() == ["營業 5pm~11pm\n<PHONE>\n路過", "編號 a11pm0937547275"]


def test_the_hour_of_an_edit_in_september_is_no_telephone() -> None:
    line = "※ 編輯: abc (1.160.0.1 臺灣), 09/08/2026 17:20:49"
    assert "<PHONE>" not in privacy.mask(line)[0]
    assert privacy.mask("09/08/2026 打 0937547275")[0].endswith("<PHONE>")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("昨天 BKR-5512 的狗狗好可愛", "PLATE"),
        ("有人看到 nmw-3312 嗎", "PLATE"),
        ("092-KHT 很吵", "PLATE"),
        ("EFS-1855 鏡頭開箱", None),
        ("CSC-3021 這門課會當人嗎", None),
        ("KTM-1290 重機", None),
        ("鴻海(2317-TW)是白衣騎士", None),
        ("有人認識 b09401077 嗎", "STUDENT_ID"),
        ("清大 108062233 電資大三", "STUDENT_ID"),
        ("料號 B10705021 缺貨", None),
        ("全班 110000000 元捐款", None),
        ("將來銀行 88800012345678 謝謝", "BANK"),
        ("團費匯 50812345678901(第一)", "BANK"),
        ("刷 4311-9522-0123-4564 不過", "BANK"),  # its check digit is wrong
        ("刷卡滿 3000 6000 9000 送", None),
        ("KKTIX 韓國場實名 309988776", "PASSPORT"),
        ("飯店一晚 320 500 800 三種", None),
        ("jenny_w22 ← 加賴", "LINE_ID"),
        ("My LINE is tim.chen 謝謝", "LINE_ID"),
        ("Line\nkk_0912", "LINE_ID"),
        ("waited 25min in line and about 10min", None),
        ("脆上 cat_daily77 那個人", "SITE_ID"),
        ("telegram 的 chat_id 怎麼拿", None),
        ("Discord 打 @everyone 會被踢嗎", None),
        ("@cache 這個裝飾器和 @my_timer 差在哪", None),
        ("kevin_w#yahoo.com.tw", "EMAIL"),
        ("amychen 底線 03 老鼠 gmail", "EMAIL"),
        ("老媽電話是 293-4412", "PHONE"),
        ("2394-7152 打這支訂餐", "PHONE"),
        ("電話費 1999 吃到飽", None),
        ("今彩 09、12、18、23、34", None),
    ],
)
def test_shape_tells_where_no_word_does(text: str, kind: str | None) -> None:
    _, counts = privacy.mask(text)
    assert dict(counts) == ({kind: 1} if kind else {})
