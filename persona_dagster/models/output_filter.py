"""What a model repeats of the forums it learnt from, taken out of its answers: whole texts and streams alike.

A filter is a chain of rules, each of which holds back no more of a stream than a match could still need. What
was let go is never taken back, and a stream in any pieces gives what `filter_text` gives for the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import regex

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.corpus import privacy
from persona_dagster.corpus.personal_data.addresses import CITY
from persona_dagster.corpus.rules import load_rules

# Lines that only a PTT page has: the cleaning rules know them. Of the rest, those that ordinary prose could hit
# (links, floors, dates, hashtags) are written anew below, for answers: when in doubt, the words stay.
CORPUS_RULES = (
    "ptt_header",
    "ptt_header_lines",
    "ptt_station",
    "ptt_links",
    "ptt_edits",
    "ptt_forwards",
    "ptt_attribution",
    "app_signature",
)

_USER = r"(?:<USER>|[A-Za-z][A-Za-z0-9]{1,11})"
_STAMP = r"(?:(?:<IP>|(?:[0-9]{1,3}\.){3}[0-9]{1,3}) *)?(?:[0-9]{4}/)?[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}"
# Alone in a line: PTT's has no year, unless an address stands before it; after a colon it is what was asked for.
_LONE_STAMP = (
    r"(?<![:：]\n) *(?:(?:<IP>|(?:[0-9]{1,3}\.){3}[0-9]{1,3}) *(?:[0-9]{4}/)?)?"
    r"[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2} *(?:\n|\Z)"
)
_FLOOR = r"[Bb][0-9]{1,4}"
_FORUM_HOSTS = (
    r"(?:[a-z0-9\-]+\.)?"
    r"(?:imgur\.com|ptt\.cc|dcard\.tw|megapx\.dcard\.tw|meee\.com\.tw|ppt\.cc|threads\.(?:net|com))"
)

TEMPLATE = (
    r"<\|im_start\|>(?: ?(?:system|user|assistant)\n?)?|<\|start_header_id\|>[a-z]{0,20}<\|end_header_id\|>\n{0,2}"
    r"|<(?:start|end)_of_turn>(?:(?:user|model)\n)?|<\|[^<>|\n]{1,40}\|>|<｜[^<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>"
    r"|</s>(?=\s*\Z)"
)
OWN_RULES = (
    ("role_marker", r"\A\s*(?i:assistant|user|system|助理|使用者)(?:[:：] ?|\n)", ""),
    ("role_marker", r"^ *###\s*(?:Instruction|Response|Input|System|User|Assistant|Human)\s*[:：] ?", ""),
    ("role_marker", r"^(?:Human|Assistant|ASSISTANT|USER): ", ""),
)
FORUM_RULES = (
    ("push", rf"^ *(?:推|噓|→) ?{_USER} *: ?(?P<keep>[^\n]{{0,200}}?) *{_STAMP} *$", r"\g<keep>"),
    ("push", rf"^ *[推噓] ?(?:<USER> *[:：]|{_USER} *:) ?|^ *→ ?<USER> *[:：] ?|\A[推噓→] ?[:：] ?", ""),
    ("stamp", rf"^{_LONE_STAMP}|(?: {{2,40}}|(?<= )<IP> *){_STAMP} *$", ""),
    ("stamp", r"^(?<![:：]\n) *(?:[0-9]{4} ?年 ?)?[0-9]{1,2} ?月 ?[0-9]{1,2} ?日 [0-9]{2}:[0-9]{2} *(?:\n|\Z)", ""),
    # A vitamin, a graphics card or a basement opens a line too: a floor is called, repeated, or stands alone.
    (
        "floor",
        rf"^ *(?:(?:[@＠]|回覆? ?|[Tt]o ?|[Rr]e:? ?){_FLOOR}(?:[ ,，、+&/]*{_FLOOR})*"
        rf"|{_FLOOR}(?:[ ,，、+&/]+{_FLOOR})+|b(?:1[3-9]|[2-9][0-9]|[0-9]{{3,4}})(?= )"
        rf"|{_FLOOR}(?= *(?:\n|\Z)))(?![0-9A-Za-z])樓?[ ,，、:：]*",
        "",
    ),
    ("quote_mark", r"^: (?=\S)", ""),
    (
        "board_tag",
        r"^(?:(?:Re|RE|Fw|FW): ?)+(?:\[[^\[\]\n]{1,6}\] ?)?|^\[(?:爆卦|問卦|黑特|公告|協尋|求助|閒聊|政治)\] ?",
        "",
    ),
    ("forum_link", rf"^ *(?:https?://)?{_FORUM_HOSTS}/[!-~]* *(?:\n|\Z)", ""),
    ("signature", r"^-- *(?:\n|\Z)", ""),
    ("mention", r"\A[ \n]*(?:<USER>[ ,，、:：\n]*)+|^ *(?:<USER>[ ,，、]*)+(?:\n|\Z)", ""),
)
# What stands for personal data: readable, and unlike anything that the corpus holds.
WORDS = {
    "EMAIL": "〔電子郵件〕",
    "PHONE": "〔電話〕",
    "IP": "〔IP〕",
    "ID": "〔證號〕",
    "LINE_ID": "〔帳號〕",
    "IG_ID": "〔帳號〕",
    "FB_ID": "〔帳號〕",
    "CHAT_ID": "〔帳號〕",
    "SITE_ID": "〔帳號〕",
    "PASSPORT": "〔證號〕",
    "STUDENT_ID": "〔學號〕",
    "PLATE": "〔車牌〕",
    "ADDRESS": "〔地址〕",
    "BANK": "〔帳戶〕",
    "USER": "〔某人〕",
    "NAME": "〔姓名〕",
}


@dataclass(frozen=True, slots=True)
class Removed:
    """A piece that was taken out or replaced: the rule, and the model's own words."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Filtered:
    text: str
    removed: tuple[Removed, ...]


class Stage(Protocol):
    """A step of the chain: text in, settled text out; `last` settles all."""

    removed: list[Removed]

    def feed(self, piece: str, last: bool) -> str: ...


class StreamFilter:
    """Filters an answer as it is written: `feed` pieces, then `close`; what they return, joined, is the answer."""

    def __init__(self, personas: Personas | None = None) -> None:
        rules = [_Rule(*rule) for rule in _rules(personas or _packaged())]
        self._stages: list[Stage] = [*rules, _Privacy(), _Tidy()]

    @property
    def removed(self) -> tuple[Removed, ...]:
        """What was taken out so far, rule by rule."""
        return tuple(piece for stage in self._stages for piece in stage.removed)

    def feed(self, piece: str, last: bool = False) -> str:
        for stage in self._stages:
            piece = stage.feed(piece, last)
        return piece

    def close(self) -> str:
        return self.feed("", last=True)


def filter_text(text: str, personas: Personas | None = None) -> Filtered:
    """`text` without residue, and what was removed; `personas` (packaged ones by default) name the tags."""
    stream = StreamFilter(personas)
    return Filtered(stream.feed(text, last=True), stream.removed)


@cache
def _packaged() -> Personas:
    return load_personas(PACKAGED)


def _rules(personas: Personas) -> list[tuple[str, str, str]]:
    corpus = {rule.name: rule for rule in load_rules()}
    lines = [(name, corpus[name].python.pattern, corpus[name].python_replace) for name in CORPUS_RULES]
    return [("template", TEMPLATE, ""), *OWN_RULES, ("persona_tag", tag_pattern(personas), ""), *lines, *FORUM_RULES]


def tag_pattern(personas: Personas) -> str:
    """Any persona's tag or bracketed alias, in square or lenticular brackets, and the seed's `[人格:…]`."""
    tags = {tag for persona in personas.personas.values() for tag in (persona.tag, *persona.aliases)}
    names = sorted({tag.strip("[]【】") for tag in tags if tag[0] in "[【"}, key=lambda name: (-len(name), name))
    inner = "|".join([*map(regex.escape, names), r"人格 ?[:：][^\[\]【】\n]{1,20}"])
    return rf"[\[【［] ?(?:{inner}) ?[\]】］] ?[:：]? ?"


@cache
def _compiled(pattern: str) -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    """The pattern, and one that never matches but, partially, wherever the end of the text cuts a try short."""
    return regex.compile(pattern, regex.MULTILINE), regex.compile(f"(?:{pattern})(?!)", regex.MULTILINE)


class _Rule:
    """One pattern over a stream. Text is settled up to the first place where a match is still undecided."""

    def __init__(self, kind: str, pattern: str, replace: str) -> None:
        self.kind, self.replace = kind, replace
        self.removed: list[Removed] = []
        self.pattern, self.undecided = _compiled(pattern)
        self.text = ""
        self.done = 0

    def feed(self, piece: str, last: bool) -> str:
        self.text += piece
        parts: list[str] = []
        place = self.done
        while place < len(self.text):
            if not last and self.undecided.match(self.text, place, partial=True):
                break
            found = self.pattern.match(self.text, place)
            if found is None or found.end() == place:
                place += 1
                continue
            parts += (self.text[self.done : place], found.expand(self.replace))
            self.removed.append(Removed(self.kind, found[0].strip()))
            place = self.done = found.end()
        parts.append(self.text[self.done : place])
        self.done = place
        return "".join(parts)


# What could still become personal data: the last word, the digits before it, or a place whose number is to come.
_HAN, _NUMBER = r"[\u4e00-\u9fff]", r"[0-9一二三四五六七八九十百段巷弄之號号樓室F\-~、 ]"
_OPEN = regex.compile(
    r"(?:[!-~０-９Ａ-Ｚａ-ｚ＠．]|(?<=[0-9)])[ \-]{1,2}(?=[0-9(#]|\Z)|(?<=[A-Za-z0-9]) (?=[@(\[]|\Z)){1,120}\Z"
    r"|[零〇一二三四五六七八九0-9]{1,12}\Z"
    rf"|{CITY} ?(?:{_HAN}{{1,3}}[區鄉鎮市] ?)?(?:{_HAN}{{1,3}}[里村] ?)?{_HAN}{{0,6}}{_NUMBER}{{0,30}}\Z"
    rf"|(?:路|街|大道|巷){_NUMBER}{{0,30}}\Z|[台臺新桃高基嘉苗彰南雲屏宜花澎金連馬大]\Z"
)
_PLACEHOLDER = regex.compile(rf"<({'|'.join(WORDS)})>")  # what masked training text taught the model to say
_STREET = regex.compile(rf"{CITY}|路|街|大道|巷")
_AHEAD = 8  # characters after a match that may still speak against it (a unit, 號出口)
_BEHIND = 120  # characters before it that may speak for or against it


class _Privacy:
    """Personal data, as the corpus finds it. An address begins at its city, else at its road: what stands before
    reads like any prose until the road comes, and is gone by then."""

    def __init__(self) -> None:
        self.removed: list[Removed] = []
        self.text = ""
        self.done = 0

    def feed(self, piece: str, last: bool) -> str:
        self.text += piece
        size = len(self.text)
        spans = self._spans()
        settled = size if last else self._settled(spans)
        parts: list[str] = []
        for start, end, kind in spans:
            if end > settled:
                break
            parts += (self.text[self.done : start], WORDS[kind])
            self.removed.append(Removed(kind.lower(), self.text[start:end]))
            self.done = end
        parts.append(self.text[self.done : settled])
        self.done = max(self.done, settled)
        return "".join(parts)

    def _spans(self) -> list[tuple[int, int, str]]:
        offset = max(0, self.done - _BEHIND)
        spans = []
        window = self.text[offset:]
        found = privacy.find(window) + [(*match.span(), match[1]) for match in _PLACEHOLDER.finditer(window)]
        for left, right, kind in sorted(found):
            start, end = left + offset, right + offset
            street = _STREET.search(self.text, start, end) if kind == "ADDRESS" else None
            start = street.start() if street else start
            # PTT's own lines name users too; the rules before have had them, and an arrow before a word is prose.
            if start >= self.done and (kind != "USER" or self.text[start] in "@＠<"):
                spans.append((start, end, kind))
        return spans

    def _settled(self, spans: list[tuple[int, int, str]]) -> int:
        size = len(self.text)
        settled = size
        if open_from := _OPEN.search(self.text, max(self.done, size - 160)):
            settled = open_from.start()
        for start, end, _ in spans:
            if start < settled and end > min(settled, size - _AHEAD):
                settled = start
        return max(settled, self.done)


class _Tidy:
    """No blank ends, and no more than one blank line where something was taken out."""

    def __init__(self) -> None:
        self.removed: list[Removed] = []
        self.begun = False
        self.blank = ""

    def feed(self, piece: str, last: bool) -> str:
        body = (self.blank + piece).rstrip()
        self.blank = "" if last else (self.blank + piece)[len(body) :]
        if not self.begun:
            body = body.lstrip()
        self.begun = self.begun or bool(body)
        return regex.sub(r"\n[ \t]*\n[ \t]*(?:\n[ \t]*)+", "\n\n", body)
