"""What no regular expression can do to a PTT article: find where it ends, part quotes from the author's own
words, and join what the 80-column editor wrapped. Plain Python, on rows that show a mark of it.

For the parser of pages, and for rows of others, which bring a page's text and no page.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

# A row without any of these is prose already. Hard wraps show as a line break after 30 characters or more.
GATE = r"^\"?作者|※|---split---|(?m:^: ?)|(?m:^-- ?$)|引述|(?m:^[推噓→] ?[A-Za-z<])|[^\n]{30}\n[^\n]|--"
MARKED = re.compile(GATE)

FOOTER = re.compile(r"^[ *]*[※◆] ?(?:發信站|From)[:：]")
ATTRIBUTION = re.compile(r"^[ :>]*※? ?引述 ?《")
# A person: as the parsers name one, as the detectors of personal data do, or an id that nothing has masked yet.
PERSON = r"(?:<(?:USER|user)>|[A-Za-z][A-Za-z0-9]{1,11})"
PUSH = re.compile(rf"^ ?[推噓→] ?{PERSON} *[:：]")
PUSH_HEAD = re.compile(
    rf"\A(?: ?[推噓→] ?(?:<[A-Za-z]{{4,6}}>|{PERSON}) *[:：] ?| ?<[A-Za-z]{{4,6}}> *[:：] ?| ?[推噓→] ?[:：] ?)+"
)
PUSH_TIME = re.compile(
    r" ?(?:<IP>|<ip>|(?:[0-9]{1,3}\.){3}[0-9]{1,3})? ?(?:[0-9]{4}/)?[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}[ \n]*\Z"
)
QUOTE = re.compile(r"^(?:[:：](?: |$)|: ?:|:(?=[^\s:：]{2}))")
ANGLE_QUOTE = re.compile(r"^>(?: |$|>)")
# Lines that begin something of their own are never the rest of the line above.
OWN_LINE = re.compile(
    r"^(?:[ \-*•·●○◎■□▲△★☆※#＊>:：◆◇→推噓]|[0-9]{1,3}(?:[、)）:：/]|\.(?![0-9]))"
    r"|[(（][0-9一二三四五六七八九十]{1,3}[)）]"
    r"|[一二三四五六七八九十]{1,3}[、.]|https?://|[A-Za-z]+(?: [A-Za-z]+)?[:：])"
)
# A signature is at most six lines on PTT; with drawn borders and blank lines crawls show up to twelve.
SIGNATURE_LINES = 12
# The editor breaks at 78-80 columns; a line two columns shorter is one whose next character was wide.
WRAP_FROM, WRAP_TO = 75, 81
SPLITS_WORDS = 79  # a line this full was cut within a word; a shorter one between words
WORDS_FROM = 60  # from here on an English line is a wrapped one if the next line's first word had no room on it
CLOSING = ")）」』】"  # ends a sentence only after what ends one: 「…。」, but not 「馬王」
SENTENCE_ENDS = frozenset("。！？!?…~～:：" + CLOSING)  # a full line that ends a sentence was ended by its author
FIRST_WORD = re.compile(r"[A-Za-z0-9][!-~]*")
LINK_TO_THE_END = re.compile(r"(?:https?://|www\.)[!-~]+$")
OVERFLOW = 8  # columns of a quoted line that its mark pushed over the edge, and that stand alone below it
# A crawl that lost the line ends leaves quote marks within the line: quote and answer cannot be told apart.
FLATTENED = re.compile(r"^[ ※]*引述 ?《|^ ?[:：][^\n]{40}|(?: : [^\n]{1,200}?){3}")
# What ends such a line: the app's signature, the next article, the signature after a lone mark.
FLAT_TAIL = re.compile(
    rf"[-—]{{0,6}} ?[Ss]ent ?[Ff]rom|[ ─]作者:? ?{PERSON}(?: ?\([^)\n]{{0,40}}\))? ?(?:看板|站內)"
    r"|※ ?發信站|[.。]?引述 ?《[^》\n]{1,60}》之銘言"
    r"|(?<!-)--(?!-)(?=[^\n]{0,160}\Z)|(?<=[？?！!。卦])(?:--|----)(?![->])"
    r"|(?<=[^ -~])----(?=[^ -~])(?!補充|更新|編輯|以下)"
)
# Below the article the same mark stands before its author's answers to pushes; what stands between two is a signature.
MARK = re.compile(r"(?<!-)(?:--|----)(?!-)")
EDITED_AT = re.compile(r"^(?:\d\d/\d\d ?\d\d:\d\d)+|(?:\d\d/\d\d ?\d\d:\d\d)+$")
ANSWERS = 160  # characters; more of them are no part of what the article says
# Far from the end, the mark parts an article from its author's answers to pushes: whose are which, nobody can tell.
LONE_MARK = re.compile(r"[\u3400-\u9fff）)」？！。]--[\u3400-\u9fff「]")


@dataclass(slots=True)
class TakenApart:
    """An article taken apart."""

    own: str
    quoted: str | None = None
    flattened: bool = False


def _two_columns(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "??" * (error.end - error.start), error.end


codecs.register_error("two_columns", _two_columns)


def columns(line: str) -> int:
    """Terminal columns: what is not Latin is two wide in Big5, and so is what PTT shows beyond it (Japanese forms)."""
    return len(line) if line.isascii() else len(line.encode("cp950", "two_columns"))


def _end_of_body(lines: list[str]) -> int:
    """How many lines belong to the post: footer, closing mark and signature end it."""
    footer = next((number for number, line in enumerate(lines) if FOOTER.match(line)), None)
    end = len(lines) if footer is None else footer
    while end and not lines[end - 1].strip():
        end -= 1
    if end and lines[end - 1].strip() in ("--", '--"'):
        end -= 1
    elif footer is None:
        return len(lines)
    # What the last mark closes may be a signature that another mark opens.
    for number in range(end - 1, max(end - 2 - SIGNATURE_LINES, -1), -1):
        if lines[number].strip() == "--":
            return number
    return end


def _wrapped(before: str, width: int, tight: str) -> bool:
    """Whether the editor, not the author, ended the line `before` of so many columns."""
    if not before or not tight or OWN_LINE.match(tight):
        return False
    if WRAP_FROM <= width <= WRAP_TO:
        if before[-1] not in CLOSING:
            return before[-1] not in SENTENCE_ENDS
        if before[-2:-1] in SENTENCE_ENDS:
            return False
        if before[-1] in "」』）":  # read: right in 44 of 47; after ) and 】 in 2 of 12
            return tight[0] not in "（(「『【·" and not tight[0].isdigit()
        return tight[0] in "、，。；！？的"
    word = FIRST_WORD.match(tight)
    no_room = word is not None and width + 1 + len(word[0]) > SPLITS_WORDS
    return (
        no_room
        and WORDS_FROM <= width < WRAP_FROM
        and (before[-1] == "," or before[-1:].isalnum())
        and before.isascii()
    )


def rejoin(lines: list[str]) -> str:
    """Lines joined where the editor broke them: a full line followed by one that does not begin anew."""
    joined: list[str] = []
    width, last = 0, ""
    listed = sum(line.startswith("．") for line in lines) > 1  # one alone stands within a foreign name
    for line in lines:
        tight = line.rstrip()
        if joined and _wrapped(last, width, tight) and not (listed and tight[0] == "．"):
            before = joined[-1]
            words = before[-1].isascii() and tight[0].isascii() and tight[0].isalnum() and width < SPLITS_WORDS
            apart = " " if words and not LINK_TO_THE_END.search(before) else ""
            joined[-1] = before + apart + tight
        else:
            joined.append(tight)
        width, last = columns(tight), tight
    return "\n".join(joined)


def _overflow(lines: list[str], number: int) -> bool:
    """Whether a line is the rest of the quoted one above it, which goes on below."""
    above, line, below = lines[max(number - 1, 0)], lines[number].strip(), "".join(lines[number + 1 : number + 2])
    return bool(
        line and columns(line) <= OVERFLOW and QUOTE.match(above) and QUOTE.match(below) and columns(above) >= WRAP_FROM
    )


def _one_line(text: str) -> TakenApart:
    """An article whose line ends a crawl lost."""
    if FLATTENED.search(text):
        return TakenApart(own=text, flattened=True)
    tail = FLAT_TAIL.search(text)
    if (
        tail and tail[0] == "----" and text[-2:] in ("卦？", "卦?", "嗎？", "嗎?")
    ):  # still the article, its question comes last
        tail = None
    own = text[: tail.start()].rstrip(" -—–─━═_") if tail else text  # the app draws a line above its name
    answers = _answers(text[tail.start() :]) if tail else ""
    mixed = LONE_MARK.search(own) is not None or len(answers) > ANSWERS
    return TakenApart(own=f"{own}\n{answers}" if answers and not mixed else own, flattened=mixed)


def push_words(text: str) -> str:
    """A push as the page shows it without tag, author, address and time."""
    return PUSH_TIME.sub("", PUSH_HEAD.sub("", text))


def _answers(tail: str) -> str:
    """What an author wrote to those who pushed, of all that stands below a flattened article."""
    if "作者" in tail[:4] or "發信站" in tail[:6] or "引述" in tail[:4]:  # another article, or the page's own lines
        return ""
    _, *parts = MARK.split(tail)
    last = EDITED_AT.sub("", parts[-1].strip()).strip() if parts else ""
    return last if re.search(r"\w", last) and not last.lower().startswith("sent") else ""


def take_apart(text: str) -> TakenApart:
    """A PTT article, possibly with header, footer and pushes, as the author's own words and what they quote."""
    if not MARKED.search(text):
        return TakenApart(own=text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith('"作者'):  # a cell of a CSV file
        text = text.strip('"\n')
    head = text.partition("\n---split---")[0]
    if "\n" not in head.strip():
        return _one_line(head)
    lines = head.split("\n")
    body = lines[: _end_of_body(lines)]
    answers = any(ATTRIBUTION.match(line) for line in body)
    own: list[str] = []
    quoted: list[str] = []
    for number, line in enumerate(body):
        if ATTRIBUTION.match(line):
            continue
        if PUSH.match(line):
            quoted.append(line)
        elif QUOTE.match(line) or (answers and ANGLE_QUOTE.match(line)):
            quoted.append(re.sub(r"^(?:[:>：] ?)+", "", line))
        elif _overflow(body, number):
            quoted[-1] += line
        else:
            own.append(line)
    return TakenApart(own=rejoin(own), quoted=rejoin(quoted).strip() or None)
