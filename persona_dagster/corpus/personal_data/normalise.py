"""One spelling of letters, digits and signs for the detectors; spans are carried back to the text as it stands.

Hostile spellings are many, and each detector should know one: full width, circled and mathematical letters and digits,
dashes of any kind, and characters that take no room are undone here, once.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


FOLD = (
    _ascii_twins()
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
# Format characters (zero width, direction, soft hyphen), variation selectors, and marks laid over a character (keycaps,
# strokes): whatever carries them reads the same without.
UNSEEN = frozenset(
    chr(code)
    for code in (*_of_category("Cf", "Me"), *range(0x300, 0x370), *range(0xFE00, 0xFE10), 0x34F, 0x115F, 0x1160, 0x3164)
)
# What people put between the letters of an identifier, or of the word that says what it is, so that nobody finds it:
# emoji and signs (088★1234, 護💚照), never what belongs between words.
_SIGNS = frozenset(map(chr, _of_category("So", "Sk")))
_BETWEEN = re.compile(r"(?<=\w)[^\w\s\x00-\x7f]+(?=\w)")
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


# What signs are called where one would be found, between letters: wei槓lan, meow(底線)cat, a圈a mail點com.
_SIGN_OF = {"low": "_", "at": "@", "stop": ".", "dash": "-", "hash": "#", "slash": "/"}
_BEHIND = rf"(?<=[A-Za-z0-9{HAN_NUMERALS}])"
_NAMED_SIGN = re.compile(
    rf"{_BEHIND} ?[(\[]?(?:(?P<low>下?底線|底底|下劃線)|(?P<at>小?老鼠|圈[aA]|艾特)|(?P<stop>小?點|[。，])"
    rf"|(?P<dash>[橫減]?[槓杠]|減號|橫線)|(?P<hash>井(?:字號?)?)|(?P<slash>斜線))[)\]]? ?(?=[A-Za-z0-9{HAN_NUMERALS}])"
)
# A word twice or more between letters or digits, and none that counts, lists or ends a sentence.
_FILLED = re.compile(
    r"[A-Za-z0-9._\-]{1,20} ?(?P<filling>"
    r"(?:(?![和與或跟及到至或比加減乘除等年月日號时時分秒點樓元塊萬千百個人次的是在])"
    r"[\u3105-\u312f\u3400-\u9fff\u2500-\u27bf\U0001f300-\U0001faff]){1,4}|\([\u3400-\u9fff]{1,4}\))"
    r" ?[A-Za-z0-9._\-]{1,20}(?: ?(?P=filling) ?[A-Za-z0-9._\-]{1,20})+"
)
_HAN_IN_A_NAME = re.compile(rf"(?<=[A-Za-z_.])[{HAN_NUMERALS}]{{2,}}|[{HAN_NUMERALS}]{{2,}}(?=[A-Za-z_])")
_SPACED = re.compile(r"(?<![\u3400-\u9fff])(?:[\u3400-\u9fff] ){3,}(?:[\u3400-\u9fff0-9] )*[\u3400-\u9fff0-9]")
# Where letters or digits stand beside what may be one of these: most texts have none.
_MIXED = re.compile(
    rf"[A-Za-z0-9_.{HAN_NUMERALS}] ?[(\[]?(?:[底下小老圈艾橫減槓杠井斜]|點[A-Za-z0-9]"
    rf"|[{HAN_NUMERALS}]{{2}}|[^\x00-\x7f]{{1,4}}[) ]?[A-Za-z0-9])"
    rf"|[{HAN_NUMERALS}]{{2}}[A-Za-z_]"
)


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
    if UNSEEN.isdisjoint(text):
        return Normalised(text.translate(FOLD), None)
    return _without(text, _unseen(text))


def undisguised(text: str) -> Iterator[Normalised]:
    """The lines in which something is disguised, each as who reads it understands it: without what parts the letters of
    an identifier, and with its signs for their names."""
    for line in re.finditer(r"[^\n]+", text) if _may_hide(text) else ():
        if _may_hide(line[0]) and (read := _understood(line[0])):
            places = read.places or range(len(read.text))
            yield Normalised(read.text, [line.start() + place for place in places])


def _may_hide(text: str) -> bool:
    return bool(_MIXED.search(text) or not _SIGNS.isdisjoint(text) or _SPACED.search(text))


def _understood(line: str) -> Normalised | None:
    plain = read = normalise(line)
    if not _SIGNS.isdisjoint(line):
        read = _parted(read, [found.span() for found in _BETWEEN.finditer(read.text) if _SIGNS.issuperset(found[0])])
    if _MIXED.search(read.text):
        read = _with_signs(read)
        read = _parted(read, list(_filling(read.text)))
        read = replace(read, text=_HAN_IN_A_NAME.sub(lambda found: found[0].translate(HAN_DIGITS), read.text))
    read = _cut(read, [at for found in _SPACED.finditer(read.text) for at in range(found.start() + 1, found.end(), 2)])
    return None if read == plain else read


def _filling(text: str) -> Iterator[tuple[int, int]]:
    for found in _FILLED.finditer(text):
        for filling in re.finditer(re.escape(found["filling"]), found[0]):
            yield found.start() + filling.start(), found.start() + filling.end()


def _parted(read: Normalised, parting: list[tuple[int, int]]) -> Normalised:
    """With _ for what parts two letters, and with nothing for what parts anything else."""
    text, gone = list(read.text), list[int]()
    for start, end in parting:
        of_letters = re.fullmatch("[A-Za-z]{2}", text[start - 1] + text[end])
        text[start] = "_"
        gone += range(start + bool(of_letters), end)
    return _cut(replace(read, text="".join(text)), gone)


def _with_signs(read: Normalised) -> Normalised:
    """With signs for their names: 底線 is _."""
    text, gone = list(read.text), list[int]()
    for found in _NAMED_SIGN.finditer(read.text):
        text[found.start()] = _SIGN_OF[found.lastgroup or ""]
        gone += range(found.start() + 1, found.end())
    return _cut(replace(read, text="".join(text)), gone)


def _cut(read: Normalised, gone: list[int]) -> Normalised:
    if not gone:
        return read
    kept = sorted(set(range(len(read.text))).difference(gone))
    places = kept if read.places is None else [read.places[at] for at in kept]
    return Normalised("".join(read.text[at] for at in kept), places)


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
