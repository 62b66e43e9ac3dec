"""What cleaning did: per rule the rows and bytes it touched and a few examples; per flag, language and kind of
personal data how many. Examples are taken from masked text only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import polars as pl

EXAMPLES = 5
EXAMPLE_CHARS = 160
LINES = 30  # of a table; boards can be hundreds


@dataclass
class RuleCount:
    """One rule: rows it changed, bytes it took away, and up to five `(before, after)`."""

    rows: int = 0
    bytes_removed: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


def excerpt(before: str, after: str) -> tuple[str, str]:
    """The surroundings of the first difference, short enough to read."""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = max(0, same - 30)
    return before[start : start + EXAMPLE_CHARS], after[start : start + EXAMPLE_CHARS]


@dataclass
class RuleTrace:
    """Counts by rule, in the order in which rules first fired."""

    rules: dict[str, RuleCount] = field(default_factory=dict)

    def note(self, name: str, before: pl.Series, after: pl.Series) -> None:
        """Record the rows of a column that a rule changed (both columns hold the changed rows only)."""
        count = self.rules.setdefault(name, RuleCount())
        count.rows += len(before)
        count.bytes_removed += int(before.str.len_bytes().sum() or 0) - int(after.str.len_bytes().sum() or 0)
        wanted = EXAMPLES - len(count.examples)
        if wanted > 0:
            count.examples += [excerpt(b, a) for b, a in zip(before[:wanted], after[:wanted], strict=True)]


@dataclass
class Funnel:
    """Rows in, rows out, and why."""

    rows_in: int = 0
    rows_out: int = 0
    usable: int = 0
    removed: Counter[str] = field(default_factory=Counter)  # rows that left, by cause
    flags: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    personal_data: Counter[str] = field(default_factory=Counter)
    unknown_labels: Counter[str] = field(default_factory=Counter)  # boards and personas that no configuration names
    trace: RuleTrace = field(default_factory=RuleTrace)
    problems: list[str] = field(default_factory=list)  # what could not be read, with place and cure

    def add(self, other: Funnel) -> None:
        """Take in the counts of another partition or batch."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.problems += other.problems
        self.usable += other.usable
        for mine, theirs in (
            (self.removed, other.removed),
            (self.flags, other.flags),
            (self.languages, other.languages),
            (self.personal_data, other.personal_data),
            (self.unknown_labels, other.unknown_labels),
        ):
            mine.update(theirs)
        for name, count in other.trace.rules.items():
            mine_count = self.trace.rules.setdefault(name, RuleCount())
            mine_count.rows += count.rows
            mine_count.bytes_removed += count.bytes_removed
            mine_count.examples += count.examples[: EXAMPLES - len(mine_count.examples)]

    def dump(self) -> dict[str, Any]:
        """What `load` makes it of again: the counts of rows by rules alone, which finished rows do not tell."""
        return {
            "removed": dict(self.removed),
            "personal_data": dict(self.personal_data),
            "unknown_labels": dict(self.unknown_labels),
            "rules": {name: vars(count) for name, count in self.trace.rules.items()},
        }

    @classmethod
    def load(cls, value: dict[str, Any]) -> Funnel:
        return cls(
            removed=Counter(value["removed"]),
            personal_data=Counter(value["personal_data"]),
            unknown_labels=Counter(value["unknown_labels"]),
            trace=RuleTrace({name: RuleCount(**count) for name, count in value["rules"].items()}),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-like, without examples: fit for metadata and the event log."""
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "usable": self.usable,
            "removed": dict(self.removed),
            "flags": dict(self.flags.most_common()),
            "languages": dict(self.languages.most_common()),
            "personal_data": dict(self.personal_data.most_common()),
            "unknown_labels": dict(self.unknown_labels.most_common()),
            "rules": {n: {"rows": c.rows, "bytes_removed": c.bytes_removed} for n, c in self.trace.rules.items()},
        }

    def markdown(self) -> str:
        """A table for a terminal or an asset's metadata: counts only, never text."""
        lines = [f"{self.rows_in:,} rows in, {self.rows_out:,} out, {self.usable:,} usable", ""]
        lines += [f"- {problem}" for problem in self.problems[:LINES]] + ([""] if self.problems else [])
        lines += ["| rule | rows | bytes removed |", "|---|--:|--:|"]
        lines += [f"| {name} | {c.rows:,} | {c.bytes_removed:,} |" for name, c in self.trace.rules.items()]
        for title, counts in (
            ("removed", self.removed),
            ("flag", self.flags),
            ("language", self.languages),
            ("personal data", self.personal_data),
            ("label that no configuration names", self.unknown_labels),
        ):
            if counts:
                lines += ["", f"| {title} | count |", "|---|--:|"]
                lines += [f"| {key} | {count:,} |" for key, count in counts.most_common(LINES)]
                if rest := counts.most_common()[LINES:]:
                    lines.append(f"| {len(rest)} more | {sum(count for _, count in rest):,} |")
        return "\n".join(lines)
