"""Does the page hold as many bytes as the article's file? `data-offset` says how long the file was.

Pages since about 2015 carry it. It turns "a shorter list" from something that no markup check can see into
arithmetic: a lost push is about 102 bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from persona_dagster.sites.ptt.markup import Article, PushLine, TextRun

PUSH_BYTES = 102  # every push is padded to the same width
SLACK = 48  # bytes; under half a push. Plain real pages agree within 4
SERVER_COLOURED = re.compile(r"※|==>|[:>] ")  # coloured by the server itself: no codes in the file

STATION = re.compile(r"※ (?:發信站|Origin): ")
PASTED_LESS, HIDDEN_CODES = 60, 24  # bytes

OFFSET = re.compile(r'data-offset="?(\d+)\b')
OLD_LAYOUT = re.compile(r"images\.ptt\.cc/v2\.7/")  # of 2014, which does not state the length


def states_length(source: str) -> bool:
    """Whether a page of this layout says how long its article's file is."""
    return "<html" in source[:2000].lower() and not OLD_LAYOUT.search(source)


def width(text: str) -> int:
    """Bytes in the BBS's own encoding: two for every character that is not ASCII."""
    return 2 * len(text) - len(text.encode("ascii", "ignore"))


@dataclass(frozen=True, slots=True)
class Misfit:
    """The page and the length that it states do not agree."""

    why: str
    explained: bool  # what the author coloured or pasted may account for it; nothing proves that it does


def misfit(source: str, article: Article) -> Misfit | None:
    """Why the page cannot be shown to be the whole file; None when it is, or when its layout states no length."""
    stated = OFFSET.search(source, article.end)
    if stated is None:
        return Misfit("the page does not state its length", False) if states_length(source) else None
    shown, fewest, most, coloured = 0, 0.0, 0.0, 0
    for item, following in zip(article.items, [*article.items[1:], None], strict=False):
        if isinstance(item, PushLine):
            shown += PUSH_BYTES
        elif isinstance(item, TextRun):
            shown += width(item.text)
            if item.colour and not SERVER_COLOURED.match(item.text):
                codes = _codes(item.colour, isinstance(following, TextRun) and bool(following.colour))
                # Bare f2 and f6 are the server's own as often as the author's.
                fewest += 0 if item.colour in ("f2", "f6") else codes / 2
                most += codes * 1.1
                coloured += 1
    shown += sum(width(tag) + 2 + width(value) + 1 for tag, value in article.metas)
    length = int(stated[1])
    if shown + fewest - SLACK <= length <= shown + most + SLACK:
        return None
    # Codes that change nothing do not show; a push that was pasted may have lost the spaces at its end.
    pasted = _pasted(article)
    explained = bool(coloured or pasted) and (
        shown - SLACK - PASTED_LESS * pasted <= length <= shown + 3 * most + HIDDEN_CODES * coloured + SLACK
    )
    why = f"the article's file has {length} bytes, the page shows {shown} (and about {most:.0f} of colour codes)"
    return Misfit(why, explained)


def _pasted(article: Article) -> int:
    """Pushes above the last 發信站 line: part of what the author wrote."""
    stations = [n for n, item in enumerate(article.items) if isinstance(item, TextRun) and STATION.match(item.text)]
    return sum(isinstance(item, PushLine) for item in article.items[: stations[-1]]) if stations else 0


def _codes(colour: str, coloured_after: bool) -> int:
    """Bytes of `ESC[1;33;44m` before a coloured run, and of `ESC[m` after it where plain text follows."""
    names = colour.split()
    digits = sum(1 if name == "hl" else 2 for name in names)
    return 3 + digits + len(names) - 1 + (0 if coloured_after else 3)
