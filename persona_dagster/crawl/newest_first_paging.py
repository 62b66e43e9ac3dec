"""A list without page numbers, walked from its newest row down (Dcard, Threads): how far it must go this time."""

from __future__ import annotations

from collections.abc import Sequence

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.frontier import ANCHORS, BACK, FRESH, Listed, Span, anchors, meets, middle

DAY = 86_400


class Descent:
    """Takes in the list page by page; what is below a page cannot be asked for by itself, so a walk that was cut off
    leaves a gap, and the next one goes through what is known down to it."""

    def __init__(self, work: Pass, kind: str, goal: float | None):
        self.work, self.kind, self.frontier = work, kind, work.frontier
        self.wanted = goal  # unix seconds; None: as many days as a first walk goes
        self.span: Span | None = None
        self.inside = False  # between rows that were listed before

    @property
    def goal(self) -> float:
        return float(self.frontier.note("goal") or 0)

    def take(self, rows: Sequence[Listed]) -> bool:
        """A page's rows, newest first. True when everything below is known, or lies behind the goal."""
        at = middle(rows)
        if at is None:
            return False
        if self.span is None:
            self._begin(at)
        assert self.span is not None
        known = {row.key for row in rows if self._known(row.key)}
        keys = [row.key for row in rows]
        beyond = self._beyond(rows)
        with self.frontier.step():
            self.work.owe(self.kind, rows, BACK if self.inside else FRESH, beyond)
            if self.inside and (set(keys) & set(self.span.bottom) or at <= self.span.oldest):
                self.inside = False
            if not self.inside:
                self.span.oldest, self.span.bottom = min(self.span.oldest, at), keys[-ANCHORS:]
            if not self.joined and len(self.span.top) < ANCHORS:
                self.span.top = anchors({**self.span.top, **dict.fromkeys(keys)})
            self.frontier.keep(self.span)
            self._join(keys, at, len(known) == len(keys) > 1)
        return self.done

    def _begin(self, at: int) -> None:
        self.work.board_now = float(at)
        goals = [self.wanted or at - self.work.site.first_days * DAY]
        goals += [old] if (old := self.frontier.note("goal")) is not None else []
        self.frontier.set_note("goal", int(min(goals)))
        self.frontier.reach(self.kind, int(min(goals)))
        self.span, self.joined = self.frontier.new_span(at, at), False

    def _known(self, key: str) -> bool:
        item = self.frontier.item(self.kind, key)
        return item is not None and item.state != "outside"

    def _beyond(self, rows: Sequence[Listed]) -> frozenset[str]:
        """The rows at the page's end that lie behind the goal."""
        found = []
        for row in reversed(rows):
            if row.created >= self.goal:
                break
            found.append(row.key)
        return frozenset(found)

    def _join(self, keys: list[str], at: int, all_known: bool) -> None:
        assert self.span is not None
        for lower in self.frontier.spans():
            if lower.id == self.span.id or lower.oldest > self.span.newest:
                continue
            if meets(lower, keys) or (all_known and lower.oldest <= at <= lower.newest):
                reached = bool(set(keys) & set(lower.bottom)) or at <= lower.oldest
                self.span = self.frontier.merge(self.span, lower)
                self.joined, self.inside = True, not reached

    def end(self) -> None:
        """The list's own end: there is nothing below."""
        if self.span is not None:
            for other in self.frontier.spans():
                if other.id != self.span.id:
                    self.frontier.drop(other)
            self.span.whole = True
            self.frontier.keep(self.span)

    @property
    def done(self) -> bool:
        if self.span is None:
            return False
        last = self.frontier.spans()[-1]
        return last.id == self.span.id and (last.whole or last.oldest <= self.goal)
