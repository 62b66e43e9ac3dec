"""PTT articles: bytes → the article, its pushes and the author's replies between them.

`text_raw` keeps the residue that a reader sees (meta lines, quotes, signature, 發信站 lines); user ids, nicknames
and addresses in it are replaced, since this is the last place that knows which words they are.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

from persona_dagster.digest import text_digest
from persona_dagster.records import Kind, Outcome, Post
from persona_dagster.sites.json_validation import guarded
from persona_dagster.sites.parser_results import (
    ADDRESS,
    NICK,
    USER,
    AuthorKey,
    Parsed,
    decode,
    incomplete,
    people_masker,
)
from persona_dagster.sites.ptt import size as ptt_size
from persona_dagster.sites.ptt.markup import Article, Cut, PushLine, TextRun, scan_article
from persona_dagster.sites.ptt.quotes_and_line_wrapping import take_apart

Mask = Callable[[str], str]

TAIPEI = timezone(timedelta(hours=8))  # no daylight saving since 1979; ZoneInfo costs 5 times more a conversion
ARTICLE_ID = re.compile(r"[MG]\.(\d{9,10})\.A(?:\.[0-9A-F]+)?")
BOARD = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.\-]+")
ORIGIN = "https://www.ptt.cc"

ID_LIKE = re.compile(r"[A-Za-z0-9_.]{3,}")
AUTHOR = re.compile(r"\s*([^\s(]+)\s*(?:\((.*)\))?\s*$", re.DOTALL)
HEADER = re.compile(r"^\s*(作者|發信人|標題|時間|日期)[:：]?\s+(.*?)(?:\s+(看板|站內|信區)[:：]?\s+(\S+))?\s*$")
FUSED_TIME = re.compile(r"\s*時間[:：]\s*([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})\s*$")
CTIME = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\d{4})")
MONTHS = {name: month for month, name in enumerate(calendar.month_abbr) if month}
# Boards of before 2008 repeat the mark before the address. A forged push may end in anything, but not in digits.
PUSH_WHEN = re.compile(r"\s*[推噓→]?\s*((?:\d{1,3}\.){3}[\d*]{1,3})?\s*(\d\d)/(\d\d)(?: (\d\d):(\d\d))?\s*$")

CANONICAL = re.compile(r'<link rel="canonical" href="[^"]*/([MG]\.[^"/]+)\.html"')
REMOVED = re.compile(r"^\(\w+ 刪除 \w+ 的推文")  # what a moderator leaves where a push stood
CUT = re.compile(r"^\(forgotten 刪除 ([0-9a-f]{12}(?:_\d+)?) 的推文")  # what redaction.py leaves
STATION = re.compile(r"^※ (?:發信站|Origin): ")
OWN_URL = re.compile(r"^※ 文章網址: https?://\S*/([MG]\.\d+\.A(?:\.[0-9A-F]+)?)\.html")
BELOW = re.compile(r"^※ (?:發信站|文章網址|編輯)|^◆ From:|^\s*$")  # between an article and its pushes, in bare text
TRAILER = re.compile(r"^(?:※ (?:發信站|Origin|文章網址|編輯|轉錄者)|◆ (?:From|Modify)|※ 本文|\(\w+ 刪除 \w+ 的推文)")
FORWARDED = re.compile(r"^※ \[本文轉錄自")
ADDRESSES = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}(?:\d{1,3}|\*)(?![\d.])")
NAMED = (  # places where the site writes somebody's id and nickname
    (re.compile(r"^(※ 引述《)[^》(]*?(\s*)(\(.*\))?(》)", re.MULTILINE), r"\1" + USER + r"\2(" + NICK + r")\4"),
    (re.compile(r"^\(\w+ 刪除 \w+ (的推文)", re.MULTILINE), rf"({USER} 刪除 {USER} \1"),
    (re.compile(r"^(※ (?:編輯|轉錄者): )\S+", re.MULTILINE), r"\1" + USER),
    (re.compile(r"^(\s*(?:作者|發信人)[:：]?\s+)\S+(?:\s\(.*?\))?(?=\s|$)", re.MULTILINE), r"\1" + USER + f" ({NICK})"),
)
REPLY_MARK = re.compile(r"^\s*(?:re|回覆)\s*[:：]\s*", re.IGNORECASE)


@dataclass(slots=True)
class Line:
    """One line of the page: text, or a push."""

    text: str = ""
    push: PushLine | None = None
    hidden: bool = False  # some of it black on black


@dataclass(slots=True)
class Head:
    """What the top of the article says of it."""

    author: str | None = None
    title: str | None = None
    board: str | None = None
    written: datetime | None = None
    flags: list[str] = field(default_factory=list)


@guarded
def parse_article(
    body: bytes, *, board: str, article_id: str, author_key: AuthorKey, fetched_at: datetime | None = None
) -> Parsed:
    """The article and every push of a page, or `parse_incomplete` with what could be read and why not more."""
    source = decode(body)
    article = scan_article(source)
    problems = [*article.problems, *_page_problems(source, article, article_id)]
    posts, flags = _posts(article, board, article_id, author_key, fetched_at)
    if "truncated_by_site" not in flags and (misfit := ptt_size.misfit(source, article)):
        if misfit.explained:
            flags.append("length_unproven")
        else:
            problems.append(misfit.why)
    if len({post.post_id for post in posts}) != len(posts):
        problems.append("two posts of one id")
    if not ptt_size.states_length(source):
        flags.append("length_unstated")  # whole as far as its markup tells; a lost push would not show
        if _twice(article):
            problems.append("a run of pushes stands there twice")
    if problems:
        return incomplete("; ".join(problems[:3]), posts, flags)
    return Parsed(Outcome.OK, posts, flags)


def _page_problems(source: str, article: Article, article_id: str) -> Iterator[str]:
    """The page's own ends, and whether it is the article that was asked for."""
    whole = "<html" in source[:2000].lower()
    rest = source[article.end :]
    if whole and not rest.rstrip().endswith("</html>"):
        yield "the page does not end with </html>"
    if not whole and rest.strip():
        yield "something follows #main-content"
    canonical = CANONICAL.search(source, 0, article.end)
    if canonical and article_id and canonical[1] != article_id:
        yield f"the page is {canonical[1]}, not {article_id}"
    for item in article.items:
        if isinstance(item, PushLine) and ("\n" in item.content.strip("\n") or not _ends_well(item.when)):
            yield f"a push that does not end in a date: {ADDRESSES.sub(ADDRESS, item.when.strip())[:30]!r}"
            break


def _ends_well(when: str) -> bool:
    return bool(PUSH_WHEN.match(when)) or not any(character.isdigit() for character in when)


def _twice(article: Article) -> bool:
    """Where the time goes back, a run of pushes begins that stood there before; one alone may be somebody's flood."""
    pushes = [item for item in article.items if isinstance(item, PushLine)]
    times = [tuple(int(part or 0) for part in m.groups()[1:]) if (m := PUSH_WHEN.match(p.when)) else () for p in pushes]
    back = [n for n in range(1, len(times) - 1) if times[n] and times[n] < times[n - 1]]
    if not back:
        return False
    names = [(push.user, push.tag, push.content, push.when) for push in pushes]
    first = {pair: n for n, pair in reversed([*enumerate(pairwise(names))])}
    return any(first[names[n], names[n + 1]] < n for n in back)


def lines_of(article: Article) -> list[Line]:
    """Text runs joined and split at line breaks, with the pushes between them in order."""
    lines: list[Line] = []
    text, hidden = "", False
    for item in article.items:
        if isinstance(item, TextRun):
            text += item.text
            hidden |= "f0" in item.colour.split() and "hl" not in item.colour and bool(item.text.strip())
        else:
            if text:
                lines += [Line(part, hidden=hidden) for part in text.removesuffix("\n").split("\n")]
                text, hidden = "", False
            if isinstance(item, PushLine):
                lines.append(Line(push=item))
    if text:
        lines += [Line(part, hidden=hidden) for part in text.removesuffix("\n").split("\n")]
    return lines


def boundary(lines: list[Line], article_id: str) -> int:
    """Index of the first line after the article itself: pushes before it were pasted or forged by the author.

    The 發信站 line that is followed by this article's own URL ends it; else the last one before the first push;
    else the first one at all; without any, the first push.
    """
    stations = [n for n, line in enumerate(lines) if line.push is None and STATION.match(line.text)]
    own = [n for n, line in enumerate(lines) if (m := OWN_URL.match(line.text)) and m[1] == article_id]
    first_push = next((n for n, line in enumerate(lines) if line.push), len(lines))
    before = [n for n in stations if own and n < own[0]] or [n for n in stations if n < first_push]
    if before:
        end = before[-1]
    elif stations:
        end = stations[0]
    else:
        return first_push
    # What follows up to the next push (◆ From, 文章網址, a postscript) still belongs to the article.
    return next((n for n in range(end + 1, len(lines)) if lines[n].push), len(lines))


def _posts(
    article: Article, board: str, article_id: str, author_key: AuthorKey, fetched_at: datetime | None
) -> tuple[list[Post], list[str]]:
    lines = lines_of(article)
    end = boundary(lines, article_id)
    head = _head(article, lines[:end], article_id)
    users = {line.push.user for line in lines if line.push} | {head.author or ""}
    mask = _masker(users)
    flags = list(head.flags)
    if any(line.text.startswith("(") and REMOVED.match(line.text) for line in lines):
        flags.append("removed_pushes")
    if any(isinstance(item, Cut) for item in article.items):
        flags.append("truncated_by_site")
    if any(line.push for line in lines[:end]):
        flags.append("pushes_in_body")
    if any(line.hidden for line in lines[:end]):
        flags.append("hidden_text")
    if any(line.text.startswith("※ 編輯:") for line in lines):
        flags.append("edited")
    if any(FORWARDED.match(line.text) for line in lines[:end]):
        flags.append("forwarded")
    body = [(_push_text(line.push) if line.push else line.text).rstrip() for line in lines[:end]]
    words = take_apart("\n".join(body))
    if words.flattened:
        flags.append("flattened")
    after = lines[end:]
    score = sum({"推": 1, "噓": -1}.get(line.push.tag, 0) for line in after if line.push)
    root = Post(
        source="ptt",
        board=board,
        kind="post",
        post_id=article_id,
        url=f"{ORIGIN}/bbs/{board}/{article_id}.html",
        text_raw=mask("\n".join((*(f"{tag} {value}".rstrip() for tag, value in article.metas), *body)).strip("\n")),
        text=mask(words.own),
        thread_id=thread_of(article_id, head.title),
        author_key=author_key(head.author) if head.author else None,
        created_at=head.written,
        title=head.title,
        quoted=mask(words.quoted) if words.quoted else None,
        score=score,
        flags=flags,
    )
    answers = list(_answers(after, root, author_key, mask, fetched_at))
    if root.created_at and any("no_time" in answer.flags for answer in answers):
        flags.append("odd_push")
    return [root, *answers], flags


def thread_of(article_id: str, title: str | None) -> str:
    """A root opens its own thread; a reply (`Re:`) names its thread by the title, until `linking` finds the root."""
    return f"re:{text_digest(plain_title(title))[:16]}" if title and REPLY_MARK.match(title) else article_id


def plain_title(title: str) -> str:
    """The title that all articles of a thread share, without `Re:` (also repeated) and spacing."""
    while (shorter := REPLY_MARK.sub("", title)) != title:
        title = shorter
    return re.sub(r"\s+", "", title).lower()


def _head(article: Article, lines: list[Line], article_id: str) -> Head:
    """From the metalines; where there are none, from the header that older or forwarded articles carry as text."""
    head = Head()
    pairs = list(article.metas)
    if not pairs:
        head.flags.append("no_metalines")
        for line in lines[:6]:
            if match := HEADER.match(line.text):
                pairs.append((match[1], match[2]))
                if match[3]:
                    pairs.append((match[3], match[4]))
    found = dict(reversed(pairs))  # the first of a kind wins
    if (author := found.get("作者") or found.get("發信人")) and (match := AUTHOR.match(author)):
        head.author = match[1]
    head.board = found.get("看板") or found.get("站內")
    title, time = found.get("標題"), found.get("時間") or found.get("日期")
    if title and not time and (fused := FUSED_TIME.search(title)):
        title, time = title[: fused.start()], fused[1]
        head.flags.append("fused_title")
    head.title = title.strip() if title else None
    head.written = _written(time, article_id)
    return head


def _written(time: str | None, article_id: str) -> datetime | None:
    """The 時間 line; where it is missing or contradicts the id by more than a day, the id's own unix time."""
    match = ARTICLE_ID.fullmatch(article_id)
    by_id = datetime.fromtimestamp(int(match[1]), UTC) if match else None
    stated = _ctime(time) if time else None
    if stated and by_id and abs(stated - by_id) > timedelta(days=1):
        return by_id
    return stated or by_id


def _ctime(time: str) -> datetime | None:
    if not (match := CTIME.search(time)):
        return None
    month, day, hour, minute, second, year = match.groups()
    try:
        local = datetime(int(year), MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=TAIPEI)
    except (KeyError, ValueError):
        return None
    return local.astimezone(UTC)


def _masker(users: set[str]) -> Mask:
    people = people_masker(users)

    def mask(text: str) -> str:
        if "※" in text or "作者" in text or "發信人" in text or "的推文" in text:
            for pattern, placeholder in NAMED:
                text = pattern.sub(placeholder, text)
        return people(ADDRESSES.sub(ADDRESS, text) if "." in text else text)

    return mask


def _words(push: PushLine) -> str:
    return push.content.strip().removeprefix(":").strip()


def _push_text(push: PushLine) -> str:
    when = " ".join([part for part in push.when.split() if "." not in part])  # without the address
    return f"{push.tag} {USER}: {_words(push)} {when}".strip()


def _answers(
    lines: list[Line], root: Post, author_key: AuthorKey, mask: Mask, fetched_at: datetime | None
) -> Iterator[Post]:
    """Pushes as comments; text between them, which only the author can write, as replies to the push before."""
    clock = _PushClock(root.created_at, fetched_at)
    seen: dict[str, int] = {}
    reply: list[str] = []
    floor, previous = 0, root.post_id
    for line in [*lines, None]:
        if line is not None and line.push is None:
            if REMOVED.match(line.text):
                floor += 1  # it keeps its place
                if cut := CUT.match(line.text):  # and, where we cut it, its name: a reply below keeps its own
                    if (text := "\n".join(reply).strip()) and previous != root.post_id:
                        yield _reply(root, previous, mask(text))
                    reply, previous = [], f"{root.post_id}#{cut[1].replace('_', '.')}"
                    name = cut[1].split("_")[0]
                    seen[name] = seen.get(name, 0) + 1
            elif not TRAILER.match(line.text):
                reply.append(line.text)
            continue
        if (text := "\n".join(reply).strip()) and previous != root.post_id:
            yield _reply(root, previous, mask(text))
        reply = []
        if line is None or line.push is None:
            return
        floor += 1
        push = line.push
        author = author_key(push.user) if push.user else None
        said = _push_text(push)
        # Named by content, not by place: an author may delete a push, and the others keep their names (but for those
        # that said the same in the same minute: they are numbered). Without what may be an id, a number or an address,
        # which could be guessed from a digest and is masked by who else is on the page; and not by the author's
        # pseudonym: under another key (another home, a lost file) the split would be drawn anew.
        name = text_digest(ID_LIKE.sub(USER, said))[:12]
        seen[name] = seen.get(name, 0) + 1
        named = f"{root.post_id}#{name}" + (f".{seen[name]}" if seen[name] > 1 else "")
        post = _answer(root, "comment", post_id=named, parent=root.post_id, text=mask(said), author=author)
        post.text = mask(_words(push))
        post.created_at, odd = clock.read(push.when)
        post.tag, post.floor = push.tag or None, floor
        post.score = {"推": 1, "噓": -1}.get(push.tag, 0)
        post.flags = odd
        previous = post.post_id
        yield post


def _reply(root: Post, above: str, text: str) -> Post:
    return _answer(root, "reply", post_id=f"{above}.reply", parent=above, text=text, author=root.author_key)


def _answer(root: Post, kind: Kind, *, post_id: str, parent: str, text: str, author: str | None) -> Post:
    return Post(
        source="ptt",
        board=root.board,
        kind=kind,
        post_id=post_id,
        url=root.url,
        text_raw=text,
        parent_id=parent,
        thread_id=root.thread_id,
        author_key=author,
    )


class _PushClock:
    """Pushes carry no year: it starts at the article's and rolls over when the day goes backwards."""

    def __init__(self, start: datetime | None, fetched_at: datetime | None):
        self.at = start.astimezone(TAIPEI) if start else None
        self.latest = fetched_at + timedelta(days=1) if fetched_at else None

    def read(self, when: str) -> tuple[datetime | None, list[str]]:
        match = PUSH_WHEN.match(when)
        if not match or self.at is None:
            return None, ["no_time"]
        month, day, hour, minute = (int(part or 0) for part in match.groups()[1:])
        moment = self._in_year(self.at.year, month, day, hour, minute)
        # A day's slack: authors move pushes about, and clocks differ.
        if moment is None or moment < self.at - timedelta(days=1):
            later = self._in_year(self.at.year + 1, month, day, hour, minute)
            if later and not (self.latest and later > self.latest):
                moment = later
        if moment is None:
            return None, ["impossible_date"]
        self.at = max(self.at, moment)
        return moment.astimezone(UTC), [] if match[4] else ["date_only"]

    @staticmethod
    def _in_year(year: int, month: int, day: int, hour: int, minute: int) -> datetime | None:
        try:
            return datetime(year, month, day, hour, minute, tzinfo=TAIPEI)
        except ValueError:
            return None
