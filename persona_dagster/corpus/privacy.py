"""Personal data out of text: identifiers of people replaced by typed placeholders.

The one path for all of it, `mask` for a text and `mask_series` for a column: normalise, detect, carry the spans back.
The detectors stand in personal_data/.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from persona_dagster.corpus.personal_data import (
    accounts,
    addresses,
    identity_documents,
    names,
    phone_and_bank_numbers,
    profile_links,
    tagger,
    users,
)
from persona_dagster.corpus.personal_data.normalise import GAP, HAN_NUMERALS, normalise

Found = tuple[int, int, str]  # start, end, kind

# Every kind that text may come out with, in the order of their precedence: an earlier one has a place before a later.
KINDS = (
    "EMAIL", "LINE_ID", "IG_ID", "FB_ID", "CHAT_ID", "SITE_ID", "ID", "PASSPORT", "STUDENT_ID", "IP", "ADDRESS",
    "PHONE", "PLATE", "BANK", "USER", "NAME",
)  # fmt: skip
# The sign is what no finding of the detector can lack: it spares most texts the detector.
DETECTORS = (
    (
        "EMAIL",
        addresses.emails,
        re.compile(r"@|(?<![a-z])at(?![a-z])|老鼠|protected|mail|yahoo|outlook|icloud|信箱|艾特|dot", re.I),
    ),
    (None, profile_links.linked, re.compile(r"\.[A-Za-z]{2,3}/|line:", re.I)),
    (None, accounts.named, re.compile(r"[A-Za-z0-9_.][ \-]?[A-Za-z0-9_.]|臉書|微博")),
    (
        "ID",
        identity_documents.national_ids,
        re.compile(rf"[A-Za-z]{GAP}[0-9A-Da-dOoIl兩洞{HAN_NUMERALS}]{GAP}[0-9{HAN_NUMERALS}]|[證証]|字號"),
    ),
    (
        "PASSPORT",
        identity_documents.passports,
        re.compile(rf"[0-9{HAN_NUMERALS}]{GAP}[0-9OoIl{HAN_NUMERALS}]|<<"),
    ),
    (
        "STUDENT_ID",
        identity_documents.student_ids,
        re.compile(rf"[0-9{HAN_NUMERALS}](?:{GAP}[0-9OoIl{HAN_NUMERALS}]){{2}}"),
    ),
    ("IP", addresses.addresses_of_machines, re.compile(r"[0-9][\])]?\.|[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:|[0-9][\[(]\.")),
    (
        "ADDRESS",
        addresses.addresses,
        re.compile(r"[號号樓ㄏ]|[0-9] ?[Ff]|[Nn]o\.? ?[0-9]|Rd|Road|St|Ave|B[lo]"),
    ),
    (
        "PHONE",
        phone_and_bank_numbers.phones,
        re.compile(rf"[0-9{HAN_NUMERALS}](?:{GAP}[0-9OoIl{HAN_NUMERALS}]){{6}}|[0Oo]9[0-9]{{2}}|洞"),
    ),
    (
        "PLATE",
        identity_documents.plates,
        re.compile(rf"[0-9{HAN_NUMERALS}](?:{GAP}[0-9OoIl{HAN_NUMERALS}]){{2}}"),
    ),
    (
        "BANK",
        phone_and_bank_numbers.bank_accounts,
        re.compile(rf"[0-9]{{3}}[0-9A-Z )\-]{{5}}|[0-9{HAN_NUMERALS}](?:{GAP}[0-9OoIl{HAN_NUMERALS}]){{9}}|局號"),
    ),
    ("NAME", names.names, re.compile(r"叫|名|人|fb|facebook|臉書", re.I)),
    ("USER", users.users, re.compile(r"作者|引述|※|@[A-Za-z0-9_]|[推噓:→]|\n[0-9]{4}-")),
)
URL = re.compile(r"(?:https?://|www\.)[!-;=?-~]+")
REPEATED = 6  # letters that an identifier has to have to be looked for in the rest of its text
INSIDE_URLS = {"EMAIL", "LINE_ID", "IG_ID", "FB_ID", "CHAT_ID", "SITE_ID", "IP"}  # other digits of a link are its own

# What no identifier can lack: three letters or digits of any spelling with little between them, or one of these signs.
# Looser than any detector, since a row that stops here is not looked at again.
_LETTERS = (
    r"0-9A-Za-z零〇○一二三四五六七八九壹貳參叁肆伍陸柒捌玖洞么幺兩拐勾\x{3105}-\x{312f}"
    r"０-９Ａ-Ｚａ-ｚ\x{250}-\x{2af}\x{370}-\x{4ff}\x{1d00}-\x{1d7f}\x{2070}-\x{24ff}\x{1d400}-\x{1d7ff}\x{1f100}-\x{1f1ff}"
)
_SAID = re.compile(rf"[0-9A-Za-z{HAN_NUMERALS}]")
WORTH_READING = (
    rf"(?:[{_LETTERS}][^\n]{{0,4}}){{3}}|[號号@＠]|(?i:f ?b|ｆｂ|facebook|protected)|臉書|引述"
    r"|叫|名|[收寄]件人|聯絡人|收款人"
)


def find(text: str, hidden: Iterable[Found] = ()) -> list[Found]:
    """Spans of personal data `(start, end, kind)`, in order, never overlapping: what patterns find, and of `hidden`,
    which is what the tagger finds in posts, the rest. (It knows posts only: to a model's answers and to cards, in which
    nobody hides anything, it is not applied.)"""
    read = normalise(text)
    taken = [(*read.span(start, end), kind) for start, end, kind in _found_in(read.text)]
    links = [found.span() for found in URL.finditer(text)]  # patterns know what of a link is a person's
    for start, end, kind in hidden:
        for left, right in _free(text, taken, start, end) if not _overlaps(links, start, end) else ():
            insort(taken, (left, right, kind))
    return taken


def _free(text: str, taken: Sequence[Found], start: int, end: int) -> list[tuple[int, int]]:
    """What is not taken between `start` and `end`: all of it, or pieces with a letter or a digit of their own."""
    within = [span for span in taken if span[0] < end and start < span[1]]
    if not within:
        return [(start, end)]
    edges = [start, *(edge for span in within for edge in span[:2]), end]
    return [
        (left, right) for left, right in zip(edges[::2], edges[1::2], strict=True) if _SAID.search(text[left:right])
    ]


def _found_in(text: str) -> list[Found]:
    """The same of a text in one spelling."""
    links = [found.span() for found in URL.finditer(text)]
    taken: list[Found] = []
    for start, end, kind in _detected(text):
        in_link = kind not in INSIDE_URLS and _overlaps(links, start, end)
        if not in_link and not _overlaps(taken, start, end):
            insort(taken, (start, end, kind))
    said = {text[start:end]: kind for start, end, kind in taken if end - start >= REPEATED}
    for identifier, kind in said.items():  # wherever it is said again, without its cue
        for again in re.finditer(rf"(?<![0-9A-Za-z]){re.escape(identifier)}(?![0-9A-Za-z])", text):
            if not _overlaps(taken, *again.span()):
                insort(taken, (*again.span(), kind))
    return taken


def _detected(text: str) -> Iterator[Found]:
    """All findings, by precedence."""
    for kind, detector, sign in DETECTORS:
        if sign.search(text):
            for start, end, *own in detector(text):
                yield start, end, kind or own[0]


def _overlaps(spans: Sequence[tuple[int, int] | Found], start: int, end: int) -> bool:
    """Whether one of the spans, which are in order and apart, shares a character with this one."""
    after = bisect_left(spans, (end,))
    return after > 0 and spans[after - 1][1] > start


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with personal data replaced by `<EMAIL>`, `<PHONE>`, …, and how many of each kind."""
    (masked,), counts = _masked([text])
    return masked, counts


def mask_series(texts: pl.Series) -> tuple[pl.Series, Counter[str]]:
    """`mask` over a column."""
    candidates = texts.str.contains(WORTH_READING).fill_null(value=False)
    if not candidates.any():
        return texts, Counter()
    masked, counts = _masked(texts.filter(candidates).to_list())
    return texts.clone().scatter(candidates.arg_true(), pl.Series(masked, dtype=pl.String)), counts


def _masked(texts: Sequence[str]) -> tuple[list[str], Counter[str]]:
    counts: Counter[str] = Counter()
    masked = []
    for text, hidden in zip(texts, tagger.tag(texts), strict=True):
        parts: list[str] = []
        position = 0
        for start, end, kind in find(text, hidden):
            parts += (text[position:start], f"<{kind}>")
            counts[kind] += 1
            position = end
        masked.append("".join((*parts, text[position:])) if parts else text)
    return masked, counts
