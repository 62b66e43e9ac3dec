"""Residue: forum markers, persona tags, dates and personal data that an answer must not hold.

A share of answers in 0-1, for the raw output and for what is left after the inference filter. The patterns are
this module's own, and not the filter's: a filter measured by its own rules would always be perfect. Personal data
is what `corpus.privacy` finds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from persona_dagster.config.personas import Personas
from persona_dagster.corpus import privacy

# Seen in what models of this corpus spray: what PTT, Dcard and Threads print around a text.
PATTERNS: dict[str, re.Pattern[str]] = {
    "push_line": re.compile(r"(?m)^\s*(?:推|噓|→)\s*(?:<USER>|[A-Za-z][A-Za-z0-9]{1,11})?\s*[:：]"),
    "station": re.compile(r"[※◆]\s*(?:發信站|From|文章網址|文章代碼|編輯|轉錄者)|批踢踢實業坊|ptt\.cc", re.IGNORECASE),
    "quotation": re.compile(r"※\s*引述|(?m:^\s*(?::|>)\s*\S)"),
    "header": re.compile(
        r"(?m)^\s*(?:作者|看板|站內)\s*[:：]|^\s*作者\s+\S+.*看板|^\s*時間\s*[:：]?\s*[A-Z][a-z]{2} [A-Z]"
    ),
    "push_time": re.compile(r"\b(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])\s+\d{1,2}:\d{2}\b"),
    "date": re.compile(r"\b20[0-2]\d[-/年.]\s?\d{1,2}[-/月.]\s?\d{1,2}|\d{1,2}\s?月\s?\d{1,2}\s?日\s?\d{1,2}:\d{2}"),
    "signature": re.compile(r"(?m)^--\s*$|Sent from", re.IGNORECASE),
    "floor": re.compile(r"(?<![A-Za-z])[Bb]\d{1,4}(?![A-Za-z0-9])(?!\s*(?:群|維生素))"),
    "link": re.compile(r"https?://|www\.|imgur", re.IGNORECASE),
    "board_tag": re.compile(r"\[(?:公告|新聞|爆卦|閒聊|心得|問題|求助|討論|抱怨|黑特)\]|(?m:^Re:)"),
    "placeholder": re.compile(r"<(?:USER|URL|EMAIL|PHONE|IP|[A-Z]{2,8}(?:_ID)?)>"),
}


@dataclass(frozen=True)
class Residue:
    """`share` of answers that hold any residue, and how many answers hold each kind."""

    share: float | None
    kinds: dict[str, int]


def tag_pattern(personas: Personas) -> re.Pattern[str]:
    """Any persona's tag, or an alias that is written as a tag."""
    tags = {tag for persona in personas.personas.values() for tag in (persona.tag, *persona.aliases)}
    bracketed = sorted((tag for tag in tags if tag[0] in "[【"), key=len, reverse=True)
    return re.compile("|".join(re.escape(tag) for tag in bracketed) + r"|<\|?(?:im_start|im_end|endoftext|eot_id)\|?>")


def find(text: str, tags: re.Pattern[str]) -> list[str]:
    """The kinds of residue in `text`."""
    found = ["persona_tag"] if tags.search(text) else []
    found += [name for name, pattern in PATTERNS.items() if pattern.search(text)]
    return found + sorted({kind.lower() for _, _, kind in privacy.find(text)})


def measure(answers: Sequence[str], personas: Personas, clean: Callable[[str], str] | None = None) -> Residue:
    """Residue over `answers`, after `clean` where it is given."""
    tags = tag_pattern(personas)
    kinds = [find(clean(answer) if clean else answer, tags) for answer in answers]
    counted = Counter(kind for found in kinds for kind in found)
    return Residue(sum(map(bool, kinds)) / len(answers) if answers else None, dict(counted.most_common()))
