"""Personal data and its look-alikes, written without sight of the rules: precision and recall, kind by kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.corpus import privacy

LABELLED = [
    json.loads(line) for line in Path(__file__).with_name("pii_labelled.jsonl").read_text(encoding="utf-8").splitlines()
]
# Addresses and accounts have no fixed shape: without context even a reader is unsure.
FLOORS = {
    "email": 0.98,
    "phone": 0.98,
    "ip": 0.98,
    "national_id": 0.98,
    "line_id": 0.98,
    "ig_fb_id": 0.98,
    "bank_account": 0.9,
    "address": 0.9,
}
NAMED_ELSEWHERE = {"PLATE", "STUDENT_ID"}  # look-alikes of other kinds that have become kinds of their own


def of_kind(kind: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = [row for row in LABELLED if row["kind"] == kind]
    return [row for row in rows if row["spans"]], [row for row in rows if not row["spans"]]


def test_the_set_is_sound() -> None:
    assert {row["kind"] for row in LABELLED} == set(FLOORS)
    assert len({row["text"] for row in LABELLED}) == len(LABELLED)
    for row in LABELLED:
        end = 0
        for start, stop in row["spans"]:
            assert end <= start < stop <= len(row["text"]), row
            end = stop
    for kind in FLOORS:
        positives, look_alikes = of_kind(kind)
        assert min(len(positives), len(look_alikes)) >= 60, kind


@pytest.mark.parametrize("kind", FLOORS)
def test_precision_and_recall(kind: str) -> None:
    positives, look_alikes = of_kind(kind)
    missed = []
    for row in positives:
        masked, _ = privacy.mask(row["text"])
        if any(row["text"][start:stop] in masked for start, stop in row["spans"]):
            missed.append(f"{row['text']!r} -> {masked!r}")
    wrong = []
    for row in look_alikes:
        masked, found = privacy.mask(row["text"])
        if set(found) - NAMED_ELSEWHERE:  # a plate is no national id, and personal all the same
            wrong.append(f"{row['text']!r} -> {masked!r}")
    found = len(positives) - len(missed)
    recall = found / len(positives)
    precision = found / max(found + len(wrong), 1)
    failing = "\n".join(["missed:", *missed, "masked but harmless:", *wrong])
    figures = f"{kind}: precision {precision:.3f}, recall {recall:.3f}"
    assert precision >= FLOORS[kind] and recall >= FLOORS[kind], f"{figures}\n{failing}"


@pytest.mark.parametrize("text", ["mix ed55db82328fbc44cf63ba679c", "見 ignore.1 與 online.v2", "commit 3ig4f0.9a"])
def test_a_site_inside_a_word_names_no_account(text: str) -> None:
    assert privacy.find(text) == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("我的臉書名字她看得到是 Lo", "我的臉書名字她看得到是 Lo"),
        ("開啟FB搜尋或LINE掃描QR CODE", "開啟FB搜尋或LINE掃描QR CODE"),
        ("新學生信箱（@gm.nuu.edu.tw）", "新學生信箱（@gm.nuu.edu.tw）"),
        ("Fb: Taylor Cheng (台中)", "Fb: <FB_ID> (台中)"),
        ("找我 @some.shop.tw", "找我 <USER>"),
        ("問 @_cho_ge 和 @0331haru", "問 <USER> 和 <USER>"),
        ("錄影 1080p@60fps 很順", "錄影 1080p@60fps 很順"),
        ("0963-631-880\n(2)第二點", "<PHONE>\n(2)第二點"),
        ("03-5512377 11:00 開門", "<PHONE> 11:00 開門"),
        ("意者洽 0912473073 張先生", "意者洽 <PHONE> 張先生"),
        ("預約或訂購：0972271597", "預約或訂購：<PHONE>"),
        ("電 話：0225238000", "電 話：<PHONE>"),
        ("台北市\n0225238000\n11:00", "台北市\n<PHONE>\n11:00"),
        ("9:30pm02 2523 8000#3236", "9:30pm<PHONE>"),
        ("推 a0933954587 的分析", "推 a<PHONE> 的分析"),
        ("共 0912345678 元", "共 0912345678 元"),
        ("LINE🆔：@abc.shop", "LINE🆔：<LINE_ID>"),
    ],
)
def test_what_a_reader_of_the_masked_corpus_found(text: str, masked: str) -> None:
    assert privacy.mask(text)[0] == masked
