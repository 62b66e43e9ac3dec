"""The rule list: two engines, one outcome; cleaned text stays as it is; nothing raises, nothing takes long."""

from __future__ import annotations

import random
import time

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona_dagster.corpus import privacy, rules
from persona_dagster.corpus.funnel import RuleTrace
from persona_dagster.corpus.rule_engine import apply_rule, apply_rules
from persona_dagster.corpus.rules import MAX_PASSES, RuleError, load_rules, rules_for, rules_version
from persona_dagster.sites.ptt import quotes_and_line_wrapping

FRAGMENTS = [
    *(
        "笑死",
        "推 ",
        "→ abc123: 好",
        "※ 引述《someone (nick)》之銘言：",
        ": 引用的話",
        "\n",
        "\n\n\n",
        "--",
        "--\n",
        " ",
    ),
    *(
        "\u3000",
        "\t",
        "https://i.imgur.com/a.jpg",
        "(https://x.tw/)",
        "www.ptt.cc",
        "B12",
        "B3 ",
        "#問 ",
        "#心情 #感情",
    ),
    *(
        "＃工作",
        "@some.body",
        "！！！！",
        "????",
        "哈哈哈哈哈哈哈哈",
        "wwwwwwwww",
        "😂😂😂😂",
        "👏🏼👏🏼👏🏼👏🏼",
        "\u200b",
        "\u202e",
    ),
    *(
        "\ufeff",
        "\u200d",
        "&amp;lt;",
        "&quot;",
        "<b>",
        "</em>",
        "\x1b[1;31m",
        "*[m",
        "\x00",
        "\u0336",
        "\u0301\u0302\u0303",
    ),
    *(
        "ＡＢＣ１２３",
        "𝐓𝐡",
        "====",
        "-----",
        "Sent from JPTT on my iPhone",
        "1\n/\n2",
        "1.媒體來源:",
        "備註：",
        "[]",
        "()",
    ),
    *(
        "※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 1.2.3.4",
        "※ 編輯: abc (1.2.3.4), 01/02/2020 03:04:05",
        "<USER>",
        "<EMAIL>",
    ),
    *(
        "作者abc (x)看板B標題t時間Sat May 30 03:33:04 2020",
        "a",
        "1",
        "。。。。。。。。",
        "……………",
        "\r\n",
        "\u2028",
        "（",
        "）",
    ),
    "instagram.com/abc",
]
hostile = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), max_size=24).map("".join)
ROWS = [(source, kind) for source in rules.SOURCES for kind in ("post", "comment", "title")]


def clean_text(text: str, source: str = "ptt", kind: str = "post") -> str:
    """One text through the rules with Python's `re`, until nothing changes: the reference for the engine."""
    for _ in range(MAX_PASSES):
        before = text
        for rule in rules_for(source, kind):
            text = rule.apply(text)
        if text == before:
            return text
    return ""


def by_polars(texts: list[str], source: str, kind: str) -> list[str]:
    return apply_rules(pl.Series(texts, dtype=pl.String), rules_for(source, kind), RuleTrace())[0].to_list()


@pytest.mark.parametrize(("source", "kind"), ROWS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(hostile, min_size=1, max_size=8))
def test_polars_and_re_agree_byte_for_byte_and_a_second_cleaning_changes_nothing(texts, source, kind):
    cleaned = by_polars(texts, source, kind)
    assert cleaned == [clean_text(text, source, kind) for text in texts]
    assert by_polars(cleaned, source, kind) == cleaned


def test_golden_parity_on_real_rows_rule_by_rule(real_rows, soak):
    chosen = random.Random(7).sample(real_rows, len(real_rows) if soak else 6000)
    texts = [row["text"] or "" for row in chosen]
    for rule in load_rules():
        series = pl.Series(texts, dtype=pl.String)
        after = apply_rule(series, rule).to_list()
        different = [text for text, by_rust in zip(texts, after, strict=True) if rule.apply(text) != by_rust]
        assert not different, f"{rule.name}: {len(different)} rows differ"


@pytest.mark.parametrize("rule", load_rules(), ids=lambda rule: rule.name)
def test_no_rule_takes_more_than_linear_time(rule):
    """Python's `re` backtracks (Rust's does not): hostile repetitions of what a rule begins with, at 1x and 16x."""
    seeds = ["-", "#a", "B1", "哈", "! ", "<b ", "作者", "※ ", "<USER>", ":", "(", "https://", "a.", "\n", " ", "1."]
    seeds += ["😂", "&", "\x1b[1", "推 a"]
    for seed in seeds:
        small, large = seed * 800, seed * 12800
        start = time.process_time()
        rule.apply(small)
        middle = time.process_time()
        rule.apply(large)
        taken, before = time.process_time() - middle, middle - start
        # 16 times the input: 16x is linear, 256x is quadratic; below 50 ms is noise
        assert taken < 0.05 or taken < 80 * before, f"{seed!r}: {before:.4f}s -> {taken:.4f}s"


def test_a_text_that_never_settles_is_emptied_and_told():
    nested = "&" + "amp;" * 40 + "lt;"
    cleaned, unsettled = apply_rules(pl.Series([nested, "好"]), rules_for("ptt", "post"), RuleTrace())
    assert cleaned.to_list() == ["", "好"]
    assert unsettled.to_list() == [True, False]
    assert clean_text(nested) == ""


def test_markdown_of_notes_and_dialogues_survives():
    note = "# 標題\n\n- 一\n  - 二\n\n```python\nif x:\n    print('#a', 'https://x.tw')\n```\n\n1. 步驟  \n2. B12"
    for source in ("notes", "capybara"):
        assert by_polars([note], source, "post") == [note]


def test_the_trace_counts_what_a_rule_touched():
    trace = RuleTrace()
    apply_rules(pl.Series(["看 https://x.tw/a 這個", "沒事"]), rules_for("dcard", "comment"), trace)
    count = trace.rules["links"]
    assert (count.rows, count.bytes_removed) == (1, len("https://x.tw/a"))
    assert count.examples == [("看 https://x.tw/a 這個", "看  這個")]


def test_a_rule_outside_the_dialect_is_refused():
    for pattern in (r"(?=a)", r"(?<!a)b", r"\d+", r"(a)\1"):
        with pytest.raises(RuleError, match="dialect"):
            rules._rule({"name": "x", "sources": ["ptt"], "pattern": pattern, "why": ""})


def test_the_version_is_stable_and_follows_the_rules(monkeypatch, tmp_path):
    assert rules_version() == rules_version()
    here = tmp_path / "corpus"
    for name in ("rules.yaml", *rules.CODE):
        copied = (here / name).resolve()
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes((rules.HERE / name).read_bytes())
    before = rules_version()
    monkeypatch.setattr(rules, "HERE", here)
    assert rules_version() == before
    (here / "rules.yaml").write_bytes(b"[]")
    assert rules_version() != before


HOSTILE = [
    "a", "a@", "a.", "@a", "0", "09", "0-", "1.", "(0", "::", "f:", "fb ", "line:", "ig的", "路", "街1號", "市區路1",
    "號", "-", "--", "字----", "？--", ": ", ": :", "> ", "推 a:", "※ ", "引述《", "作者", "字\n", "https://", "<USER>",
    " ", "\n", "底線 ", "a底線", "賴 a_", "ig a.", "B08", "4111 ", "AAA-", "dc a", "電話2",
]  # fmt: skip


@pytest.mark.parametrize("step", [privacy.mask, quotes_and_line_wrapping.take_apart], ids=["mask", "take_apart"])
def test_what_no_rule_can_do_takes_no_more_than_linear_time_either(step):
    for seed in HOSTILE:
        for ending in ("", "嗎？", "\n--\n"):
            small, large = seed * (1600 // len(seed)) + ending, seed * (25600 // len(seed)) + ending
            start = time.process_time()
            step(small)
            middle = time.process_time()
            step(large)
            taken, before = time.process_time() - middle, middle - start
            # 16 times the input: 16x is linear, 256x is quadratic; below 50 ms is noise
            assert taken < 0.05 or taken < 80 * before, f"{seed!r}: {before:.4f}s -> {taken:.4f}s"
