"""Which column is which field: guessed by names and content, shown, written down as YAML, used for the next file alike.

A mapping is data. `guess` looks at the first records of a file; `Mapping.rows` turns each record into rows of the
import schema, the comments that lie within a post's record included.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from collections.abc import Mapping as AnyMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from persona_dagster.digest import json_digest
from persona_dagster.intake.open_and_decode import IntakeError
from persona_dagster.intake.schema import FIELDS, KINDS, SOURCES, TAGS, Row, RowError, canonical_source, row_of
from persona_dagster.intake.times import moment

TAIPEI = "Asia/Taipei"
# Spellings of columns, the likelier first; compared without case, spaces, `_`, `-` and what stands before a dot.
NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        *("text", "content", "body", "fulltext", "posttext", "postcontent", "articlecontent", "commentcontent"),
        *("pushcontent", "commenttext", "replytext", "messagecontent", "message", "msg", "selftext", "caption", "內容"),
        *(
            "內文",
            "本文",
            "文章內容",
            "貼文內容",
            "留言內容",
            "回覆內容",
            "推文內容",
            "留言",
            "文字",
            "訊息",
            "正文",
            "comment",
            "description",
        ),
    ),
    "title": ("title", "標題", "articletitle", "posttitle", "subject", "topic", "文章標題", "主題", "題目", "headline"),
    "author": (
        *(
            "author",
            "authorid",
            "authorname",
            "userid",
            "username",
            "user",
            "uid",
            "poster",
            "作者",
            "發文者",
            "使用者",
            "帳號",
        ),
        *("pushuserid", "commenter", "nickname", "member", "sender", "from", "暱稱", "留言者", "name"),
    ),
    "created_at": (
        *("createdat", "createdtime", "created", "createtime", "publishedat", "published", "posttime", "postdate"),
        *(
            "datetime",
            "timestamp",
            "date",
            "time",
            "takenat",
            "pushipdatetime",
            "時間",
            "日期",
            "發文時間",
            "發布時間",
            "發佈時間",
        ),
        *("發表時間", "留言時間", "建立時間", "createdutc"),
    ),
    "id": (
        *(
            "id",
            "postid",
            "articleid",
            "commentid",
            "pid",
            "aid",
            "cid",
            "itemid",
            "messageid",
            "tid",
            "uuid",
            "編號",
            "文章編號",
        ),
        *("文章代碼", "code", "pk"),
    ),
    "parent_id": (
        *(
            "parentid",
            "parent",
            "replyto",
            "replytoid",
            "inreplyto",
            "inreplytoid",
            "rootid",
            "threadid",
            "父文章",
            "原文編號",
        ),
        *("所屬文章", "文章id", "linkid"),
    ),
    "board": (
        "board",
        "boardname",
        "看板",
        "版名",
        "版面",
        "forumalias",
        "forum",
        "forumname",
        "subreddit",
        "channel",
        "category",
        "分類",
    ),
    "score": (
        *(
            "score",
            "likecount",
            "likes",
            "like",
            "reactioncount",
            "upvotes",
            "ups",
            "pushcount",
            "讚數",
            "按讚數",
            "愛心數",
            "推文數",
        ),
        *("心情數", "喜歡數", "favorites"),
    ),
    "tag": ("tag", "pushtag", "推噓", "推文標記", "推噓文"),
    "floor": ("floor", "樓層", "樓", "floornumber"),
    "source": ("source", "platform", "site", "來源", "平台"),
    "kind": ("kind", "type", "類型", "類別"),
    "url": ("url", "link", "permalink", "網址", "連結", "articleurl", "posturl", "href"),
    "deleted": ("deleted", "isdeleted", "hidden", "removed", "已刪除"),
}
CHILDREN = ("messages", "comments", "pushes", "replies", "push", "留言", "推文")  # lists of comments within a post
# Columns that only one site's data has.
SITE_COLUMNS = {
    "ptt": frozenset(
        ["pushtag", "pushuserid", "pushcontent", "articletitle", "articleid", "pushipdatetime", "messagecount", "推噓"]
    ),
    "dcard": frozenset(
        ["forumalias", "forumname", "anonymousschool", "withnickname", "commentcount", "forumid", "reactioncount"]
    ),
    "threads": frozenset(["textpostappinfo", "takenat", "likeandviewcountsdisabled", "replytoauthor"]),
}
HOSTS = (("ptt.cc", "ptt"), ("dcard.tw", "dcard"), ("threads.net", "threads"), ("threads.com", "threads"))
IN_NAME = re.compile(r"(?i)(ptt|dcard|threads)")
BOARD_IN_NAME = re.compile(
    r"(?i)(?:ptt|dcard|threads)[_\-. ]+([A-Za-z][A-Za-z0-9_\-]{1,30}?)(?:[_\-. ]*(?:posts?|comments?|\d[\d_\-]*))*$"
)
NO_BOARD = frozenset(
    [
        "post",
        "posts",
        "comment",
        "comments",
        "data",
        "dump",
        "export",
        "crawl",
        "all",
        "articles",
        "article",
        "raw",
        "csv",
        "json",
    ]
)
PTT_ID = re.compile(r"[MG]\.\d{9,10}\.A(?:\.[0-9A-F]{1,3})?(?:#.*)?")
PTT_TITLE = re.compile(r"^(?:(?:Re|Fw): ?)?\[[^\]]{1,6}\]")
SEEN = 200  # records that a guess looks at


class FieldMap(BaseModel):
    """Field of the import schema → column of the record (a dot leads into an object)."""

    model_config = ConfigDict(extra="forbid")

    fields: dict[str, str]

    @field_validator("fields")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(value) - set(FIELDS)):
            raise ValueError(f"no field {', '.join(unknown)}; known are {', '.join(FIELDS)}")
        return value

    def record(self, value: AnyMapping[str, Any]) -> dict[str, Any]:
        return {field: found for field, column in self.fields.items() if (found := _at(value, column)) is not None}


class Children(FieldMap):
    """Comments that lie in a list within their post's record."""

    column: str


class ColumnMapping(FieldMap):
    """How records of one kind of file become rows; what `mappings/*.yaml` holds."""

    columns: tuple[str, ...]  # by which a file of the same kind is known
    source: str | None = None  # of all rows, where no column says it
    board: str | None = None
    kind: str | None = None
    time_zone: str = TAIPEI  # of times without one
    encoding: str | None = None
    children: Children | None = None

    @field_validator("source")
    @classmethod
    def _source(cls, value: str | None) -> str | None:
        if value is not None and value not in SOURCES:
            raise ValueError(f"no source {value!r}; known are {', '.join(SOURCES)}")
        return value

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str | None) -> str | None:
        if value is not None and value not in KINDS:
            raise ValueError(f"no kind {value!r}; known are {', '.join(KINDS)}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        ZoneInfo(value)
        return value

    @property
    def identity(self) -> bool:
        """Whether records are rows of the import schema as they stand."""
        return (
            all(field == column for field, column in self.fields.items())
            and not (self.source or self.board or self.kind or self.children)
            and self.time_zone == TAIPEI
        )

    @property
    def signature(self) -> str:
        return json_digest(sorted(self.columns))[:12]

    @property
    def digest(self) -> str:
        return json_digest(self.model_dump(mode="json"))

    def rows(self, record: Any) -> list[Row]:
        """The row of a record, and those of its comments. Raises `RowError`."""
        if self.identity or not isinstance(record, dict):
            return [row_of(record)]
        given = {"source": self.source, "board": self.board, "kind": self.kind}
        named = {**{name: value for name, value in given.items() if value}, **self.record(record)}
        row = row_of(self._timed(named))
        if not self.children:
            return [row]
        return [row, *self._comments(record, row)]

    def _comments(self, record: dict[str, Any], row: Row) -> Iterator[Row]:
        assert self.children
        found = _at(record, self.children.column)
        for number, child in enumerate(found if isinstance(found, list) else ()):
            if not isinstance(child, dict):
                continue
            named = self.children.record(child)
            if not isinstance(named.get("text"), str):
                continue  # the site hides the words of a removed comment
            named.setdefault("id", f"{row.row_id}#{number}")
            yield row_of(
                self._timed(
                    {"source": row.source, "board": row.board, "kind": "comment", "parent_id": row.row_id, **named}
                )
            )

    def _timed(self, named: dict[str, Any]) -> dict[str, Any]:
        at = named.get("created_at")
        if self.time_zone != TAIPEI and at is not None:
            found = moment(str(at), zone=ZoneInfo(self.time_zone))
            if found:
                named["created_at"] = found.isoformat()
        return named


def _at(value: AnyMapping[str, Any], column: str) -> Any:
    if column in value:
        return value[column]
    head, dot, rest = column.partition(".")
    inner = value.get(head) if dot else None
    return _at(inner, rest) if isinstance(inner, dict) else None


def plain(column: str) -> str:
    """What is compared: `postId`, `post_id` and `Post ID` are one name."""
    return re.sub(r"[\s_\-.()（）:：*]+", "", unicodedata.normalize("NFKC", column).casefold())


def columns_of(records: list[Any]) -> tuple[str, ...]:
    """Columns of the records in order of first appearance, those of objects within them by dotted names."""
    names: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            for name, value in record.items():
                names[name] = None
                if isinstance(value, dict):
                    names |= dict.fromkeys(f"{name}.{inner}" for inner in value)
    return tuple(names)


def guess(records: list[Any], name: str, *, given: AnyMapping[str, str] | None = None) -> ColumnMapping:
    """The mapping that the first records of a file suggest; `given` (field → column, or source, board, kind) wins.

    Raises `IntakeError` where no text is found, or nothing says which site it is from.
    """
    records = [record for record in records[:SEEN] if isinstance(record, dict)]
    columns = columns_of(records)
    given = dict(given or {})
    constants = {
        key: given.pop(key) for key in ("source", "board", "kind") if given.get(key) and given[key] not in columns
    }
    if strange := sorted(set(given.values()) - set(columns)):
        raise IntakeError(name, f"has no column {', '.join(strange)}", f"It has {', '.join(columns) or 'none'}")
    fields = {**_by_names(records, columns), **given}
    if constants.get("source"):
        try:
            constants["source"] = canonical_source(constants["source"])
        except RowError as error:
            raise IntakeError(name, error.why, error.cure) from error
    if "text" not in fields:
        if not (longest := _longest(records, columns, set(fields.values()))):
            raise IntakeError(
                name,
                "no column holds text",
                f"Name it with --map text=COLUMN; it has {', '.join(columns) or 'no columns'}",
            )
        fields["text"] = longest
    children = _children(records, columns)
    # Columns of other meaning have these names too: Capybara's and a news dump's `source` is no site. One value that is
    # known makes a column ours, and the other rows are refused, each by itself, unless one was given for the file.
    for field, known in (("source", _is_source), ("kind", _is_kind)):
        values = [value for record in records if field in fields and (value := _at(record, fields[field]))]
        if field in fields and not (all if field in constants else any)(known(value) for value in values):
            del fields[field]
    source = constants.get("source") or (None if "source" in fields else _site(records, columns, fields, name))
    if source is None and "source" not in fields:
        raise IntakeError(
            name,
            "nothing in it says which site it is from",
            f"Give --source {'|'.join(SOURCES)} (its columns: {', '.join(columns)})",
        )
    board = constants.get("board") or (None if "board" in fields else _board_in(name, source))
    return ColumnMapping(
        columns=columns,
        fields=dict(sorted(fields.items(), key=lambda item: FIELDS.index(item[0]))),
        source=source,
        board=board,
        kind=constants.get("kind"),
        children=children,
    )


def _by_names(records: list[dict[str, Any]], columns: tuple[str, ...]) -> dict[str, str]:
    """Fields whose column is known by name. A column stands for one field; the earlier spelling wins."""
    spelt: dict[str, str] = {}
    for column in columns:
        spelt.setdefault(plain(column), column)
        spelt.setdefault(plain(column.rpartition(".")[2]), column)
    found: dict[str, str] = {}
    for field, names in NAMES.items():
        options = (spelt[name] for name in names if name in spelt and spelt[name] not in found.values())
        for column in options:
            if _fits(field, [_at(record, column) for record in records]):
                found[field] = column
                break
    # A comment names its post by the post's id: of two ids the comment's own is the id.
    if (
        "parent_id" not in found
        and (own := spelt.get("commentid"))
        and (post := spelt.get("postid") or spelt.get("articleid"))
    ):
        found |= {"id": own, "parent_id": post}
    elif found.get("id") == spelt.get("postid") != None and "id" in spelt:  # noqa: E711 - None is no column
        found["id"], found["parent_id"] = spelt["id"], spelt["postid"]
    if (
        found.get("id") == spelt.get("id")
        and "parent_id" not in found
        and "postid" in spelt
        and spelt["postid"] != found.get("id")
    ):
        found["parent_id"] = spelt["postid"]
    return found


def _fits(field: str, values: list[Any]) -> bool:
    """Whether a column's content can be the field that its name says."""
    present = [value for value in values if value not in (None, "")]
    if not present:
        return field not in ("text", "source", "kind")
    if field in ("text", "source", "kind"):
        return any(isinstance(value, str) for value in present)  # the other rows are refused, each by itself
    fits = FITTING.get(field, lambda value: not isinstance(value, list | dict))
    return sum(map(fits, present)) > len(present) / 2


FITTING: dict[str, Callable[[Any], bool]] = {
    "created_at": lambda value: moment(str(value), near=datetime.now(UTC)) is not None,
    "tag": lambda value: str(value).strip() in TAGS,
}


def _longest(records: list[dict[str, Any]], columns: tuple[str, ...], taken: set[str]) -> str | None:
    """The column whose values read most like prose."""
    sizes = {
        column: sum(len(value) for record in records if isinstance(value := _at(record, column), str))
        for column in columns
        if column not in taken
    }
    best = max(sizes, key=lambda column: sizes[column], default=None)
    return best if best and sizes[best] >= 4 * len(records) else None


def _children(records: list[dict[str, Any]], columns: tuple[str, ...]) -> Children | None:
    by_name = {plain(column): column for column in columns}
    for name in CHILDREN:
        column = by_name.get(name)
        inner = [
            child
            for record in records
            if column and isinstance(_at(record, column), list)
            for child in _at(record, column)
        ]
        inner = [child for child in inner if isinstance(child, dict)][:SEEN]
        if column and inner:
            fields = _by_names(inner, columns_of(inner))
            if "text" in fields:
                fields = {
                    key: value for key, value in fields.items() if key not in ("source", "kind", "parent_id", "board")
                }
                return Children(column=column, fields=fields)
    return None


def _is_source(value: Any) -> bool:
    try:
        canonical_source(value)
    except RowError:
        return False
    return True


def _is_kind(value: Any) -> bool:
    return str(value).strip().lower() in KINDS


def _site(records: list[dict[str, Any]], columns: tuple[str, ...], fields: dict[str, str], name: str) -> str | None:
    """The site by addresses, by columns of its own, by ids and titles, by the file's name; or none."""
    values = {field: [str(_at(record, column) or "") for record in records] for field, column in fields.items()}
    tests = (_by_address(records, columns), _by_columns(records, columns), _by_ids(values))
    if found := next(filter(None, tests), None):
        return found
    if named := IN_NAME.search(name.replace("!", "/").rpartition("/")[2]) or IN_NAME.search(name):
        return named[1].lower()
    titles = [title for title in values.get("title", ()) if title]
    if titles and sum(PTT_TITLE.match(title) is not None for title in titles) > 0.6 * len(titles):
        return "ptt"
    return "dcard" if "floor" in fields else None


def _by_address(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str | None:
    values = (_at(record, column) for column in columns for record in records[:20])
    links = [value[:60] for value in values if isinstance(value, str) and value.startswith("http") and " " not in value]
    return next((site for host, site in HOSTS if any(host in link for link in links)), None)


def _by_columns(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str | None:
    inner = [value for column in columns if isinstance(value := records[0].get(column), list)]
    nested = columns_of([child for value in inner for child in value])
    names = {plain(column.rpartition(".")[2]) for column in (*columns, *nested)}
    best = max(SITE_COLUMNS, key=lambda site: len(SITE_COLUMNS[site] & names))
    return best if SITE_COLUMNS[best] & names else None


def _by_ids(values: dict[str, list[str]]) -> str | None:
    named = any(PTT_ID.fullmatch(value) for field in ("id", "parent_id") for value in values.get(field, ()))
    return "ptt" if named or "tag" in values else None


def _board_in(name: str, source: str | None) -> str | None:
    stem = name.rpartition("/")[2].rpartition("!")[2].split(".", 1)[0]
    found = BOARD_IN_NAME.search(stem) if source else None
    return found[1] if found and found[1].lower() not in NO_BOARD else None


class Mappings:
    """The mappings that were settled, a YAML file each below `$PERSONA_HOME/config/mappings`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, columns: tuple[str, ...], problems: list[IntakeError] | None = None) -> ColumnMapping | None:
        """The mapping for files of these columns. One that cannot be read is reported, and passed over."""
        wanted = json_digest(sorted(columns))[:12]
        for path in sorted(self.folder.glob("*.yaml")):
            try:
                mapping = read_mapping(path)
            except IntakeError as error:
                if problems is None:
                    raise
                problems.append(error)
                continue
            if mapping.signature == wanted:
                return mapping
        return None

    def text(self, mapping: ColumnMapping, name: str) -> str:
        """The mapping as its file says it."""
        head = (
            f"# How files like {name} are read. Edit it and import again; files with the same columns are read alike.\n"
            f"# fields: field of the import schema -> column ({', '.join(FIELDS)}).\n"
        )
        return head + yaml.safe_dump(
            mapping.model_dump(mode="json", exclude_none=True), allow_unicode=True, sort_keys=False
        )

    def path(self, mapping: ColumnMapping, name: str) -> Path:
        stem = re.sub(r"[^\w.-]+", "_", name.rpartition("/")[2].rpartition("!")[2].split(".", 1)[0]) or "mapping"
        return self.folder / f"{stem}-{mapping.signature}.yaml"


def read_mapping(path: Path) -> ColumnMapping:
    """One mapping file. Raises `IntakeError` naming file and key."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ColumnMapping.model_validate(value)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise IntakeError(
            path.name,
            f"is no YAML ({getattr(error, 'problem', error)})",
            "Mend it or delete it",
            mark.line + 1 if mark else None,
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IntakeError(
            path.name, f"{where or 'the file'}: {first['msg']}", "Mend that key, or delete the file and import again"
        ) from error
    except OSError as error:
        raise IntakeError(str(path), error.strerror or str(error), "Check the path") from error
