"""What a reader of a file yields: one `Item` a record, with its row in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from persona_dagster.intake.schema import Row
from persona_dagster.records import Capture


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a file: what it gives, or why nothing. `code` names the reason for counting.

    Of `rows` the first is the record itself, the others are comments that lay within it.
    """

    row: int  # from 1
    rows: tuple[Row, ...] = ()
    captures: tuple[Capture, ...] = ()
    code: str = ""
    why: str = ""
    cure: str = ""
    raw: Any = None  # the record itself, where it was refused

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return sum(2 * len(row.fields["text"]) for row in self.rows) + sum(len(one.body) for one in self.captures)
