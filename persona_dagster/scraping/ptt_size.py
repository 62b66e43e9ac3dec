"""Does the page hold as many bytes as the article's file? `data-offset` says how long the file was.

Pages since about 2015 carry it. It turns "a shorter list" from something that no markup check can see into
arithmetic: a lost push is about 102 bytes.
"""

from __future__ import annotations

import re

from persona_dagster.scraping.ptt_markup import Article, PushLine, Run

PUSH_BYTES = 102  # every push is padded to the same width
CODE_BYTES = 16  # the longest pair of colour codes around a run
SLACK = 12  # bytes: line ends and separators that the page does not show
SERVER_COLOURED = re.compile(r"※|==>|[:>] ")  # coloured by the server itself: no codes in the file

OFFSET = re.compile(r'data-offset="(\d+)"')


def width(text: str) -> int:
    """Bytes in the BBS's own encoding: two for every character that is not ASCII."""
    return len(text) + sum(1 for character in text if ord(character) > 127)


def mismatch(source: str, article: Article) -> str | None:
    """Why the page cannot be the whole file; None when it can, or does not say its length.

    On the 12 real pages that carry it, plain ones agree within 4 bytes; a coloured run hides 3-11 bytes of codes.
    """
    stated = OFFSET.search(source, article.end)
    if stated is None:
        return None
    least, coloured = 0, 0
    for item in article.items:
        if isinstance(item, PushLine):
            least += PUSH_BYTES
        elif isinstance(item, Run):
            least += width(item.text)
            coloured += bool(item.colour) and not SERVER_COLOURED.match(item.text)
    least += sum(width(tag) + 2 + width(value) + 1 for tag, value in article.metas)
    length = int(stated[1])
    if least - SLACK <= length <= least + SLACK + CODE_BYTES * coloured:
        return None
    return f"the article's file has {length} bytes, the page shows {least} (and {coloured} coloured runs)"
