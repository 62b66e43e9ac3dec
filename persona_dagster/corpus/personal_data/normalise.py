"""One spelling of letters, digits and signs for the detectors; spans are carried back to the text as it stands.

Hostile spellings are many, and each detector should know one: full width, circled and mathematical letters and digits,
dashes of any kind, and characters that take no room are undone here, once.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_TONES = "\u0300\u0301\u0304\u030c"  # of Pinyin
_NAMED_FOR = re.compile(r"(?:LETTER (?:SMALL )?(?:CAPITAL )?|SYMBOL LETTER )([A-Z])$")


def _ascii_twins() -> dict[int, str]:
    """Every character that is another form of one ASCII character, by NFKC or, as ᴀ, 🅰 and 🇦, by its name."""
    twins = {}
    for code in (*range(0x1D00, 0x1D80), *range(0x1F150, 0x1F200), *map(ord, "ɢɪɴʀʏʙʜʟ")):
        if found := _NAMED_FOR.search(unicodedata.name(chr(code), "")):
            twins[code] = found[1].lower()
    for code in (*range(0x80, 0x3400), *range(0xFE00, 0x10000), *range(0x1D400, 0x1D800), *range(0x1F100, 0x1F190)):
        folded = unicodedata.normalize("NFKD" if code < 0x250 else "NFKC", chr(code)).rstrip(_TONES)
        if len(folded) == 1 and folded.isascii():
            twins[code] = folded
        elif len(folded) == 3 and folded[0] + folded[2] == "()" and folded[1].isascii():
            twins[code] = folded[1]  # ⑴, 🄐
    return twins


def _of_category(*categories: str) -> list[int]:
    return [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in categories]


def _digits(category: str) -> dict[int, str]:
    """The characters of a category that are one digit each, but for ASCII's."""
    values = {code: unicodedata.digit(chr(code), None) for code in _of_category(category) if code > 0x7F}
    return {code: str(value) for code, value in values.items() if value is not None}


FOLD = (
    _digits("No")  # ❸
    | _ascii_twins()
    | dict.fromkeys((*_of_category("Pd"), 0x2212, 0x2796, 0x30FC, 0x4E36), "-")
    | dict.fromkeys((*_of_category("Zs"), 0x09), " ")
    | dict.fromkeys((0xB7, 0x2022, 0x2027, 0x2219, 0x22C5, 0x25CF, 0x30FB, 0x2E31), ".")
    | {
        0x300C: '"',
        0x300D: '"',
        0x3010: "[",
        0x3011: "]",
        **dict.fromkeys((0x3014, 0xFE5D), "["),
        **dict.fromkeys((0x3015, 0xFE5E), "]"),
        **dict.fromkeys((0x2192, 0x21D2, 0x261E, 0x27A1, 0x1F449, 0x1F447), ":"),  # arrows that point at a name
        0x301C: "~",
        0x4E28: "|",
        0x2116: "#",
    }
    # Greek and Cyrillic letters that look like Latin ones.
    | str.maketrans("аеорсухіјѕԁһԛԝкмтвнАВЕКМНОРСТУХІЈЅԌ", "aeopcyxijsdhqwkmtbhABEKMHOPCTYXIJSG")
    | str.maketrans("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧορνικ", "ABEZHIKMNOPTYXopvik")
)
# Digits of other scripts (٣, ३, 〣): two side by side are of a number; one alone is the arm or the cheek of a face.
_SCRIPTS = {code: digit for code, digit in _digits("Nd").items() if code not in FOLD}
_SCRIPTS |= {0x3021 + place: str(place + 1) for place in range(9)}
_NUMBER_OF_A_SCRIPT = re.compile(f"[{''.join(map(chr, _SCRIPTS))}]{{2}}")
# Format characters (zero width, direction, soft hyphen), variation selectors, and marks laid over a character (keycaps,
# strokes): whatever carries them reads the same without.
UNSEEN = frozenset(
    chr(code)
    for code in (*_of_category("Cf", "Me"), *range(0x300, 0x370), *range(0xFE00, 0xFE10), 0x34F, 0x115F, 0x1160, 0x3164)
)
_RARE = UNSEEN | set(map(chr, _SCRIPTS))
# 〇 and formal digits of cheques; read as digits only where a shape asks for them.
HAN_DIGITS = {
    ord(form): str(digit)
    for digit, forms in enumerate(
        ("零〇○", "一壹弌ㄧ", "二貳弍", "三參叁", "四肆", "五伍", "六陸", "七柒", "八捌", "九玖")
    )
    for form in forms
}
HAN_NUMERALS = "".join(map(chr, HAN_DIGITS))
_RADIO = str.maketrans("洞么幺兩拐勾", "011279")
_LOOKALIKE = re.compile(r"(?<![A-Za-z])[OoIl](?=[\-. ]?[0-9])|(?<![0-9])[0-9]+[OoIl][0-9OoIl]*(?![a-z])")
_OF_LETTERS = str.maketrans("OoIl", "0011")
# What may stand between the characters of a number: signs, and what signs are called.
GAP = r"(?:[^0-9A-Za-z\u4e00-\u9fff<>\n]|之|點|底線|斜線|[橫槓減]線?){0,3}"
# A Han digit and another digit (or a letter read as one) side by side: no number is without; 一個 and 第二 are alone.
_IN_A_NUMBER = re.compile(rf"[{HAN_NUMERALS}]\n?{GAP}[0-9OoIl{HAN_NUMERALS}]|[0-9OoIl]\n?{GAP}[{HAN_NUMERALS}]")


@dataclass(frozen=True, slots=True)
class Normalised:
    """`text` to search in; `places`: for each of its characters the index in the original, None where all agree."""

    text: str
    places: list[int] | None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The original's span for `text[start:end]`, unseen characters within it included."""
        return (start, end) if self.places is None else (self.places[start], self.places[end - 1] + 1)


def normalise(text: str) -> Normalised:
    if text.isascii():
        return Normalised(text, None)
    if _RARE.isdisjoint(text):
        return Normalised(text.translate(FOLD), None)
    if _NUMBER_OF_A_SCRIPT.search(text):
        text = text.translate(_SCRIPTS)
    return _without(text, _unseen(text))


def _unseen(text: str) -> set[int]:
    return {place for place, character in enumerate(text) if character in UNSEEN}


def _without(text: str, gone: set[int]) -> Normalised:
    places = [place for place in range(len(text)) if place not in gone]
    return Normalised("".join(text[place] for place in places).translate(FOLD), places)


@lru_cache(maxsize=4)  # one text passes all detectors before the next
def digits_of(text: str) -> str:
    """`lookalikes` of `text` with Han digits read as digits where one can be part of a number, as soldiers read them
    out too."""
    if "洞" in text:
        text = text.translate(_RADIO)
    if _IN_A_NUMBER.search(text):
        text = text.translate(HAN_DIGITS)
    return lookalikes(text)


def lookalikes(text: str) -> str:
    """`text`, as long as it was, with O and l among digits as 0 and 1."""
    return _LOOKALIKE.sub(lambda found: found[0].translate(_OF_LETTERS), text)
