"""What a board's crawl knows and owes: stretches of the listing that are covered, gaps between them, and every post
that was ever listed, with what became of it.

A SQLite file beside the board's parts, changed a request at a time, so that a pass which is cut off anywhere goes on
where it was. Lost or damaged, it is made again from the archive. Nothing here knows a site: rows are ids with a
time, and positions where the site numbers its rows from the oldest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from statistics import median_low
from typing import Any, Literal

import orjson

from persona_dagster.archive.database import open_database, remove_database

NAME = ".frontier.sqlite"
VERSION = 1
ANCHORS = 40  # ids at each end of a span by which it is found again
TRIES = 3  # failures after which a page is put into quarantine
WEEK = 7 * 96  # cache times of a quarter of an hour: how often what is in quarantine is tried again
UNBUILT = "unbuilt"  # a note that stands from the first until the state was made from the archive
FRESH, BACK = 0, 1  # lanes: what is new, what lies behind
State = Literal["todo", "stored", "gone", "unread", "failing", "quarantined", "outside"]
TABLES = """
CREATE TABLE item (
    kind TEXT NOT NULL, key TEXT NOT NULL, created INTEGER NOT NULL, lane INTEGER NOT NULL, state TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, due REAL, why TEXT NOT NULL DEFAULT '', PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX item_due ON item (state, due);
CREATE TABLE span (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO note VALUES ('unbuilt', 'true');
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a list: the post's id and its time (unix seconds)."""

    key: str
    created: int


@dataclass(slots=True)
class Span:
    """A stretch of the listing without a hole, from its newest page to its oldest."""

    id: int
    newest: int  # unix seconds, the median of its newest page: one odd id moves nothing
    oldest: int
    top: dict[str, int | None] = field(default_factory=dict)  # its newest ids with their positions
    bottom: list[str] = field(default_factory=list)  # its oldest ids
    begins: int | None = None  # position above its newest row
    position: int | None = None  # of its oldest row, counted from the board's oldest; None: rows are not numbered
    estimated: bool = False  # its position was moved by what other rows had moved, and not seen to be right since
    whole: bool = False  # it reaches the oldest row that there is
    tries: int = 0  # at the page below it
    due: float = 0.0  # when that page is tried again
    why: str = ""  # it failed


@dataclass(frozen=True, slots=True)
class FrontierItem:
    kind: str
    key: str
    created: int
    lane: int
    state: State
    tries: int
    due: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a board stands, for people and for the scheduler."""

    stored: int
    todo: int
    failing: int
    quarantined: int
    unread: int
    due: int  # revisits whose time has come
    gaps: int  # holes between covered stretches that are still tried
    newest: int | None  # unix seconds: covered from …
    oldest: int | None  # … down to
    goal: int | None  # how far back it is to go
    reached: bool  # the listing is covered so far; posts of it may be owed
    passed_at: float | None  # when the last pass ended
    per_pass: float  # posts behind that a pass stored, lately

    @property
    def passes_left(self) -> float | None:
        """Passes until the goal is reached, at the pace of the last ones; None when that cannot be said."""
        if self.reached and not self.todo:
            return 0.0
        if self.goal is None or self.oldest is None or self.newest is None or not self.per_pass:
            return None
        span, left = max(self.newest - self.oldest, 1), 0 if self.reached else max(self.oldest - self.goal, 0)
        density = max(self.stored, 1) / span  # posts a second
        return (left * density + self.todo) / self.per_pass


class Frontier:
    """The durable state of one board's crawl; `path` None keeps it in memory."""

    def __init__(self, path: Path | None = None):
        self.path = path
        try:
            self._db = open_database(path, TABLES, VERSION)
        except sqlite3.OperationalError:  # locked, or not to be written: not damaged
            raise
        except sqlite3.DatabaseError:
            if path is None:
                raise
            remove_database(path)
            self._db = open_database(path, TABLES, VERSION)

    def close(self) -> None:
        self._db.close()

    @property
    def unbuilt(self) -> bool:
        """Whether it began empty, and was not yet made again from the archive."""
        return self.note(UNBUILT) is not None

    def built(self) -> None:
        self._db.execute("DELETE FROM note WHERE name = ?", (UNBUILT,))

    @contextmanager
    def step(self) -> Iterator[None]:
        """What belongs together is written together."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Posts

    def item(self, kind: str, key: str) -> FrontierItem | None:
        row = self._db.execute("SELECT * FROM item WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return FrontierItem(*row) if row else None

    def knows(self, kind: str, key: str) -> bool:
        return self.item(kind, key) is not None

    def listed(self, kind: str, rows: Iterable[Listed], lane: int, outside: frozenset[str] = frozenset()) -> int:
        """Enter posts that are listed and not known yet; those `outside` of what is asked for are only noted."""
        values = [(kind, row.key, row.created, lane, "outside" if row.key in outside else "todo") for row in rows]
        before = self._db.total_changes
        self._db.executemany(
            "INSERT INTO item (kind, key, created, lane, state) VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key) "
            "DO UPDATE SET state = excluded.state, lane = excluded.lane "
            "WHERE item.state = 'outside' AND excluded.state = 'todo'",
            values,
        )
        return self._db.total_changes - before

    def reach(self, kind: str, goal: int) -> None:
        """The goal lies further back than before: what was outside of it is owed now."""
        self._db.execute(
            "UPDATE item SET state = 'todo', lane = ? WHERE kind = ? AND state = 'outside' AND created >= ?",
            (BACK, kind, goal),
        )

    def settle(
        self, kind: str, key: str, state: State, due: float | None, *, created: int = 0, tries: int = 0, why: str = ""
    ) -> None:
        """What became of a post, and when it is looked at again."""
        self._db.execute(
            "INSERT INTO item (kind, key, created, lane, state, tries, due, why) VALUES (?, ?, ?, 0, ?, ?, ?, ?) "
            "ON CONFLICT (kind, key) DO UPDATE SET state = excluded.state, due = excluded.due, "
            "tries = excluded.tries, why = excluded.why",
            (kind, key, created, state, tries, due, why),
        )

    def fail(self, kind: str, key: str, why: str, now: float, cache: float) -> FrontierItem:
        """Another failure of this one page: tried again later, and weekly once it is in quarantine."""
        old = self.item(kind, key)
        tries = (old.tries if old else 0) + 1
        quarantined = tries >= TRIES
        due = now + cache * (WEEK if quarantined else 4 * 4**tries)
        self.settle(kind, key, "quarantined" if quarantined else "failing", due, tries=tries, why=why)
        item = self.item(kind, key)
        assert item is not None
        return item

    def absolve(self, kind: str, keys: Iterable[str]) -> None:
        """The host as a whole said no: it was not these pages' fault."""
        for key in keys:
            self._db.execute(
                "UPDATE item SET state = 'todo', due = NULL, tries = max(tries - 1, 0), why = '' "
                "WHERE kind = ? AND key = ? AND state IN ('failing', 'quarantined')",
                (kind, key),
            )

    def todo(self, kind: str, lane: int) -> list[str]:
        """Posts that were never tried, oldest first."""
        sql = "SELECT key FROM item WHERE kind = ? AND state = 'todo' AND lane = ? ORDER BY created, key"
        return [key for (key,) in self._db.execute(sql, (kind, lane))]

    def retries(self, kind: str, now: float) -> list[str]:
        """Pages that failed before and whose time has come."""
        sql = (
            "SELECT key FROM item WHERE kind = ? AND state IN ('failing', 'quarantined', 'unread') AND due <= ? "
            "ORDER BY due, key"
        )
        return [key for (key,) in self._db.execute(sql, (kind, now))]

    def revisits(self, kind: str, now: float, most: int) -> list[str]:
        sql = (
            "SELECT key FROM item WHERE kind = ? AND state IN ('stored', 'gone') AND due <= ? ORDER BY due, key LIMIT ?"
        )
        return [key for (key,) in self._db.execute(sql, (kind, now, most))]

    def items(self, *states: State) -> Iterator[FrontierItem]:
        marks = ", ".join("?" * len(states))
        for row in self._db.execute(f"SELECT * FROM item WHERE state IN ({marks}) ORDER BY kind, key", states):
            yield FrontierItem(*row)

    def count(self, *states: State, due: float | None = None) -> int:
        marks = ", ".join("?" * len(states))
        sql, values = f"SELECT count(*) FROM item WHERE state IN ({marks})", list[Any](states)
        if due is not None:
            sql, values = f"{sql} AND due <= ?", [*values, due]
        return self._db.execute(sql, values).fetchone()[0]

    def forget(self, keys: Iterable[str]) -> None:
        """What is forgotten is owed no more."""
        for key in keys:
            self._db.execute("DELETE FROM item WHERE key = ?", (key,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # Stretches of the listing

    def spans(self) -> list[Span]:
        """Newest first."""
        rows = self._db.execute("SELECT id, body FROM span")
        spans = [Span(id=number, **orjson.loads(body)) for number, body in rows]
        return sorted(spans, key=lambda span: (span.newest, span.begins or 0, span.id), reverse=True)

    def keep(self, span: Span) -> None:
        body = {name: getattr(span, name) for name in Span.__dataclass_fields__ if name != "id"}
        self._db.execute("INSERT OR REPLACE INTO span VALUES (?, ?)", (span.id, orjson.dumps(body).decode()))

    def new_span(self, newest: int, oldest: int, position: int | None = None, begins: int | None = None) -> Span:
        (number,) = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM span").fetchone()
        span = Span(number, newest, oldest, position=position, begins=begins)
        self.keep(span)
        return span

    def drop(self, span: Span) -> None:
        self._db.execute("DELETE FROM span WHERE id = ?", (span.id,))

    def merge(self, upper: Span, lower: Span) -> Span:
        """The two as one: there is nothing between them."""
        lower.newest, lower.begins = max(upper.newest, lower.newest), upper.begins
        if upper.top:
            lower.top = anchors({**upper.top, **lower.top})
        with self.step():
            self.drop(upper)
            self.keep(lower)
        return lower

    def shift(self, rows: int, spans: Iterable[Span], *, estimated: bool = False) -> None:
        """So many rows expired at the board's old end: the positions of these spans are lower by them. `estimated`: a
        position that was taken after some of them had expired is now too low, and has to be looked for."""
        if not rows:
            return
        with self.step():
            for span in spans:
                span.estimated |= estimated
                if span.position is not None:
                    span.position = max(span.position - rows, 0)
                    span.whole = span.whole or span.position == 0
                if span.begins is not None:
                    span.begins -= rows
                span.top = {key: at - rows if at is not None else None for key, at in span.top.items()}
                self.keep(span)

    # Notes, and the whole of it

    def note(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return orjson.loads(row[0]) if row else None

    def set_note(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, orjson.dumps(value).decode()))

    def summary(self) -> dict[str, Any]:
        """What the archive keeps of it: all that cannot be told from captures."""
        trouble = self.items("todo", "failing", "quarantined", "outside")
        return {
            "spans": [{name: getattr(span, name) for name in Span.__dataclass_fields__} for span in self.spans()],
            "trouble": [
                [item.kind, item.key, item.created, item.lane, item.state, item.tries, item.due, item.why]
                for item in trouble
            ],
            "notes": {name: self.note(name) for name in ("goal",) if self.note(name) is not None},
        }

    def restore(self, summary: dict[str, Any]) -> None:
        with self.step():
            for value in summary.get("spans", []):
                self.keep(Span(**value))
            for row in summary.get("trouble", []):
                self._db.execute("INSERT OR IGNORE INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            for name, value in summary.get("notes", {}).items():
                self.set_note(name, value)

    def standing(self, now: float) -> Standing:
        spans, goal = self.spans(), self.note("goal")
        oldest = spans[-1].oldest if spans else None
        reached = bool(spans) and (spans[-1].whole or (goal is not None and spans[-1].oldest <= goal))
        return Standing(
            stored=self.count("stored", "gone"),
            todo=self.count("todo"),
            failing=self.count("failing"),
            quarantined=self.count("quarantined"),
            unread=self.count("unread"),
            due=self.count("stored", "gone", due=now),
            gaps=sum(1 for span in spans[:-1] if span.tries < TRIES),
            newest=spans[0].newest if spans else None,
            oldest=oldest,
            goal=goal,
            reached=reached and len(spans) <= 1,
            passed_at=self.note("passed_at"),
            per_pass=float(self.note("per_pass") or 0.0),
        )


def goal_reached(passes_left: float | None, now: float) -> str:
    """When a backfill ends, at one pass a night."""
    if not passes_left:
        return "not known yet" if passes_left is None else "reached"
    day = datetime.fromtimestamp(now, UTC) + timedelta(days=ceil(passes_left))
    return f"about {day:%Y-%m-%d} ({ceil(passes_left)} passes, one a night)"


def anchors(top: dict[str, int | None]) -> dict[str, int | None]:
    """The first `ANCHORS` of them, which are the newest."""
    return dict(list(top.items())[:ANCHORS])


def middle(rows: Sequence[Listed]) -> int | None:
    """The page's time: the median, which no single odd id moves; None for a page without ids."""
    return median_low(row.created for row in rows) if rows else None


def meets(span: Span, keys: Sequence[str]) -> bool:
    """Whether a list names the newest posts of a span: two of them, or the only one that either has."""
    found = sum(key in span.top for key in keys)
    return found >= min(2, len(span.top), max(len(keys), 1)) and found > 0
