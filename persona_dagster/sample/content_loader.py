"""What the replica's people wrote: YAML files beside this module, one list a board (`ptt/Hate-1.yaml`).

Loads and validates them, picks the small sample for tests, and gives every item the stable id that its site
would have given it. All of it was written for this project.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import xxhash
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from persona_dagster.sample.clock import FIRST_DAY, moment

PACKAGED = Path(__file__).parent / "content"
NOTES = PACKAGED / "notes"  # the NLP primer
PTT_USER = r"^[A-Za-z][A-Za-z0-9]{1,11}$"


class ContentError(ValueError):
    """A content file that cannot be served; the message names file and item."""


def number(*parts: object) -> int:
    """A stable 64-bit number for the parts: every choice of the replica is drawn from it, never from a RNG."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def sexagesimal(value: object) -> object:
    """YAML 1.1 reads an unquoted 21:35 as 1295; turn it back."""
    return f"{value // 60:02d}:{value % 60:02d}" if isinstance(value, int) else value


Time = Annotated[str, BeforeValidator(sexagesimal), Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Day = Annotated[int, Field(ge=0)]
Gender = Literal["F", "M"]


class Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class SampleItem(Written):
    """What all sites' posts share. `day` counts from the replica's epoch; later days are not visible yet."""

    id: str = Field(min_length=1)
    day: Day
    time: Time

    @property
    def at(self) -> datetime:
        return moment(self.day, self.time)


class Push(Written):
    tag: Literal["推", "噓", "→"] = "推"
    user: str = Field(pattern=PTT_USER)
    text: str


class PttItem(SampleItem):
    author: str = Field(pattern=PTT_USER)
    nick: str = ""
    category: str | None = None
    title: str
    body: str
    re: str | None = None  # id of the post that is answered
    quote: str | None = None  # lines of it; None: its first lines
    signature: str | None = None
    app: str | None = None
    edited_day: Day | None = None
    edited_body: str | None = None
    deleted_day: Day | None = None
    pinned: bool = False
    shape: str | None = None  # an odd shape of `ptt_article_variants`; None: drawn from the id
    pushes: tuple[Push, ...] = ()


class DcardComment(Written):
    text: str = ""
    likes: int = Field(0, ge=0)
    gender: Gender = "F"
    school: str | None = None
    hidden: bool = False


class DcardItem(SampleItem):
    school: str | None = None
    gender: Gender
    title: str
    content: str
    topics: tuple[str, ...] = ()
    likes: int = Field(0, ge=0)
    comments: tuple[DcardComment, ...] = ()
    edited_day: Day | None = None
    edited_body: str | None = None
    deleted_day: Day | None = None


class ThreadsReply(Written):
    user: str
    text: str | None
    likes: int = Field(0, ge=0)


class ThreadsItem(SampleItem):
    user: str
    text: str | None  # None: only a picture
    likes: int = Field(0, ge=0)
    more: tuple[str, ...] = ()  # the author goes on in answers to themselves
    replies: tuple[ThreadsReply, ...] = ()
    edited_day: Day | None = None
    edited_body: str | None = None
    deleted_day: Day | None = None


I = TypeVar("I", PttItem, DcardItem, ThreadsItem)  # noqa: E741
Anything = PttItem | DcardItem | ThreadsItem
MODELS: dict[str, type[Anything]] = {"ptt": PttItem, "dcard": DcardItem, "threads": ThreadsItem}


def visible(items: Sequence[I], day: int) -> list[I]:
    """What exists on `day`, deleted posts included (a site still lists or answers for them), oldest first."""
    return sorted((item for item in items if item.day <= day), key=lambda item: (item.at, item.id))


def deleted(item: Anything, day: int) -> bool:
    return item.deleted_day is not None and item.deleted_day <= day


def edited(item: Anything, day: int) -> bool:
    return item.edited_body is not None and item.edited_day is not None and item.edited_day <= day


def answer_times(item: SampleItem, count: int) -> list[datetime]:
    """When the `count` answers to a post came: minutes to hours apart, in order, drawn from the post's id."""
    times, at = [], item.at
    for index in range(count):
        gap = number(item.id, index, "gap")
        # Most follow within minutes; one in six after hours, as threads go quiet and wake up.
        at += timedelta(seconds=60 + gap % 1500 if gap % 6 else 3600 + gap % 14400)
        times.append(at)
    return times


def ptt_file(board: str, item: PttItem) -> str:
    """The article's id: `M.<unix seconds>.A.<3 hex digits>`."""
    seconds = int(item.at.timestamp()) + number("ptt", board, item.id) % 60
    return f"M.{seconds}.A.{number('ptt', board, item.id, 'suffix') % 4096:03X}"


def dcard_id(forum: str, item: DcardItem) -> int:
    """A post's number: it grows with time, as the site's does (239 millions in June 2022)."""
    return 260_000_000 + int(item.at.timestamp() - moment(0, "00:00").timestamp()) + number(forum, item.id) % 60


def stable_uuid(*parts: object) -> str:
    return str(uuid.UUID(int=number(*parts) << 64 | number(*parts, "low"), version=4))


CODE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def threads_pk(at: datetime, *parts: object) -> int:
    """An Instagram-style id: milliseconds since 2011-08-24 in the upper bits, 23 drawn bits below."""
    return (int(at.timestamp() * 1000) - 1_314_220_021_300) << 23 | number("threads", *parts) % (1 << 23)


def threads_code(pk: int) -> str:
    """The short code of a pk: its base 64 digits."""
    digits = ""
    while pk:
        pk, digit = divmod(pk, 64)
        digits = CODE[digit] + digits
    return digits


@dataclass(frozen=True)
class Content:
    """All posts, by site and board."""

    ptt: Mapping[str, list[PttItem]]
    dcard: Mapping[str, list[DcardItem]]
    threads: Mapping[str, list[ThreadsItem]]

    def items(self) -> Iterator[tuple[str, str, Anything]]:
        """(site, board, item) of everything, future days included."""
        for site in MODELS:
            boards: Mapping[str, list[Anything]] = getattr(self, site)
            for board, items in boards.items():
                for item in items:
                    yield site, board, item

    @cached_property
    def ptt_files(self) -> dict[tuple[str, str], PttItem]:
        """(board, article id) → item."""
        return {(board, ptt_file(board, item)): item for board, items in self.ptt.items() for item in items}

    @cached_property
    def dcard_ids(self) -> dict[int, tuple[str, DcardItem]]:
        return {dcard_id(forum, item): (forum, item) for forum, items in self.dcard.items() for item in items}


def board_of(path: Path) -> str:
    """`Hate.yaml`, `Hate-1.yaml` → `Hate`: a trailing number only keeps files short."""
    return re.sub(r"-\d+$", "", path.stem)


def read_items(path: Path, model: type[I]) -> list[I]:
    try:
        # The C loader is ten times faster than the pure one; both read the same language.
        values: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContentError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(values, list):
        raise ContentError(f"{path}: must hold a list of items")
    items = []
    for index, value in enumerate(values):
        name = value.get("id", f"number {index + 1}") if isinstance(value, dict) else f"number {index + 1}"
        try:
            items.append(model.model_validate(value))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise ContentError(f"{path}: item {name}: {wrong}") from error
    return items


def read_boards(folder: Path, model: type[I]) -> dict[str, list[I]]:
    boards: dict[str, list[I]] = {}
    seen: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        board = board_of(path)
        for item in read_items(path, model):
            if other := seen.get((board, item.id)):
                raise ContentError(f"{path}: item {item.id}: the id stands already in {other}; ids are unique by board")
            seen[board, item.id] = path
            boards.setdefault(board, []).append(item)
    return boards


def load(folder: Path = PACKAGED) -> Content:
    """The content under `folder`. Raises ContentError that names the file and the item."""
    return _load(folder, tuple((path, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*.yaml"))))


@lru_cache(maxsize=2)
def _load(folder: Path, _state: tuple[tuple[Path, int], ...]) -> Content:
    """Reading takes 0.3 s, and a run over all boards serves the replica eight times."""
    content = Content(
        ptt=read_boards(folder / "ptt", PttItem),
        dcard=read_boards(folder / "dcard", DcardItem),
        threads=read_boards(folder / "threads", ThreadsItem),
    )
    for board, items in content.ptt.items():
        days = {item.id: item.at for item in items}
        for item in items:
            if item.re is not None and days.get(item.re, item.at) >= item.at:
                raise ContentError(f"ptt/{board}: item {item.id}: answers {item.re!r}, which is no earlier item")
    for site, have in (("ptt", content.ptt_files), ("dcard", content.dcard_ids)):
        want = sum(len(items) for items in getattr(content, site).values())
        if len(have) != want:
            raise ContentError(f"{site}: {want - len(have)} items share an id with another; move one by a minute")
    return content


def answers(item: Anything) -> int:
    if isinstance(item, PttItem):
        return len(item.pushes)
    return len(item.comments if isinstance(item, DcardItem) else item.replies)


def answered(item: Anything) -> str | None:
    """The id of the post that a `Re:` answers."""
    return item.re if isinstance(item, PttItem) else None


def smallest(items: list[I], count: int) -> list[I]:
    """The `count` most answered posts of now with what they answer, one still to come, and one edit and deletion."""
    by_answers = sorted(items, key=lambda item: (-answers(item), item.id))
    now = [item for item in by_answers if item.day <= FIRST_DAY]
    chosen = now[:count]
    chosen += [item for item in now if answered(item)][:1]
    chosen += [item for item in by_answers if item.day > FIRST_DAY][:1]
    chosen += [item for item in now if item.edited_day][:1] + [item for item in now if item.deleted_day][:1]
    wanted = {item.id for item in chosen} | {answered(item) for item in chosen}
    return [item for item in items if item.id in wanted]


def tiny(content: Content | None = None) -> Content:
    """About 30 posts of the same files, enough for dialogues of every persona."""
    content = content or load()
    return Content(
        ptt={board: smallest(items, 1) for board, items in content.ptt.items()},
        dcard={board: smallest(items, 2) for board, items in content.dcard.items()},
        threads={board: smallest(items, 2) for board, items in content.threads.items()},
    )
