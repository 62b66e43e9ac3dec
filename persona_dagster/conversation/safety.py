"""What a pair may not hold: sexual content, self-harm, hate, doxing, minors; a flag each, by the words of unsafe.yaml.

A lexicon finds what is said in so many words, and no more: of the 81 pairs of `../shared/labels` that readers marked
unsafe, most name a private person or mean more than they say. What is flagged stays out of the mix by default.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from persona_dagster.config.loading import ConfigError, read_single, read_yaml

# A full name before a title: three characters of which the first is one of the common family names.
NAMED_PERSON = (
    r"[陳林黃張李王吳劉蔡楊許鄭謝郭洪曾邱廖賴徐周葉蘇莊呂江何蕭羅高潘簡朱鍾游詹彭胡施沈余盧梁趙顏柯翁魏孫戴范方宋鄧杜傅侯曹薛丁卓"
    r"馬董溫唐藍石紀姚連馮歐程湯田康姜汪鄒尤巫鐘黎涂龔嚴韓袁金童陸夏柳邵錢伍倪溫]"
    r"[^\s\p{P}的是在有個們位了和跟與]{2}(?:老師|教授|教官|助教|主任|會長|校長)"
)
KINDS = ("sexual", "self_harm", "hate", "doxing", "minors")


Lexicon = dict[str, tuple[str, ...]]


def find_unsafe(config_dir: Path, accepted: Path | None = None) -> tuple[Lexicon, ConfigError | None]:
    return read_single("unsafe.yaml", _read, config_dir, accepted)


def load_unsafe(config_dir: Path, accepted: Path | None = None) -> Lexicon:
    """unsafe.yaml. With `accepted`, a bad one goes on as it last was; without, raises `ConfigError`."""
    return find_unsafe(config_dir, accepted)[0]


def _read(path: Path) -> Lexicon:
    value = read_yaml(path)
    wrong = sorted(set(value) - set(KINDS)) or [
        kind for kind, words in value.items() if not (words and all(isinstance(word, str) and word for word in words))
    ]
    if wrong:
        raise ConfigError(f"{path}: {', '.join(wrong)}: lists of words under {', '.join(KINDS)} are expected")
    return {kind: tuple(words) for kind, words in value.items()}


def unsafe_kinds(question: str, answer: str, lexicon: dict[str, tuple[str, ...]]) -> pl.Expr:
    """A list column: the kinds of which a word stands in one of the two columns."""

    def holds(kind: str, text: str) -> pl.Expr:
        found = pl.col(text).str.contains_any(list(lexicon.get(kind, ())), ascii_case_insensitive=True)
        return found | pl.col(text).str.contains(NAMED_PERSON) if kind == "doxing" else found

    kinds = [
        pl.when((holds(kind, question) | holds(kind, answer)).fill_null(value=False)).then(pl.lit(kind))
        for kind in KINDS
    ]
    return pl.concat_list(kinds).list.drop_nulls()
