"""Users where a site or its crawler prints who wrote, and mentions by @. All texts here are normalised."""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

# Accounts of PTT where it prints who wrote: they are for the detector of users.
WRITER = re.compile(r"(?:《 ?|作者[: ]{0,3}|編輯: |轉錄者: |(?:^|\n)[推噓→:] ?|@)$")
# Where PTT prints who wrote: headers, quotes, edits, pushes. The id goes, the residue around it stays.
USER = re.compile(
    r"作者[: ]{0,3}(?P<header>[A-Za-z][A-Za-z0-9]{1,11}(?: ?\([^\n]{0,40}?\))?)(?= *(?:看板|站內|\n|$))"
    r"|引述 ?《 ?(?P<quoted>[^》\n<]{1,60}?) ?》"
    r"|※ 編輯: (?P<editor>[A-Za-z][A-Za-z0-9]{1,11})(?= )"
    r"|※ 轉錄者: (?P<forwarder>[A-Za-z][A-Za-z0-9]{1,11})(?= )"
    r"|^(?P<embed>[a-z0-9._]{3,30})(?=\n[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:\n|$))"
    r"|^(?:推|噓|→|:) ?(?P<push>[A-Za-z][A-Za-z0-9]{1,11}) {0,12}:",
    re.MULTILINE,
)
NOT_A_MENTION = re.compile(  # everybody on a server, and what programs write with the same sign
    r"@(?:everyone|here|all|channel|property|override|staticmethod|classmethod|abstractmethod|media|click|import"
    r"|param|return|types|app|test"
    r"|dataclass|cache|component|keyframes|autowired|entity|bean|input|change|submit|angular|babel|vue|nestjs"
    r"|deprecated|latest|wraps"
    r"|(?:[a-z]+_)?(?:required|cache|exempt|view|fixture|property|task)|pytest|router|functools|(?:[a-z]+)?mapping"
    r"|service|controller"
    r"|restcontroller|repository|transactional|nullable|notnull|injectable|composable|published|state|objc"
    r"|available|mainactor"
    r"|supports|layer|tailwind|apply|include|extend|mixin|charset|layout|section|endsection|foreach"
    r"|endif)(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
PROGRAM = re.compile(
    r"decorator|裝飾器|sql|c#|annotation|註解|(?:^|\n) *(?:def|class|function|public|private) ", re.IGNORECASE
)
MENTION = re.compile(
    r"(?<![A-Za-z0-9_.@/])@"
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.]{2,29})(?![A-Za-z0-9_@(/])",
    re.IGNORECASE,
)
QUANTITY_NAME = re.compile(
    r"[0-9._]*(?:p|fps|g?hz|[mckµ]?m|[gmk]b|k?w|k|[ap]m|mah|v|x|nd|st|th)?", re.IGNORECASE
)  # 1080p@60fps
MAIL_HOST = re.compile(
    r"\.(?:edu|com|org|net|gov|idv|mil)(?:\.tw)?$", re.IGNORECASE
)  # the half of an address: @gm.x.edu.tw


def users(text: str) -> Iterator[Span]:
    for found in USER.finditer(text):
        group = next(name for name, value in found.groupdict().items() if value is not None)
        yield found.span(group)
    for found in MENTION.finditer(text):
        name = found["name"]
        code = NOT_A_MENTION.match(found.group()) or PROGRAM.search(text[max(0, found.start() - 40) : found.end() + 40])
        if not code and not MAIL_HOST.search(name) and not QUANTITY_NAME.fullmatch(name):
            yield found.span()
