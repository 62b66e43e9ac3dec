"""Progress is told to who shows it, and to nobody else."""

from __future__ import annotations

import io
import re
import time
from itertools import count

import pytest
from rich.console import Console

from persona_dagster import pipes_reporting
from persona_dagster.pipes_reporting import progress, progress_bars


def shown(console: Console) -> str:
    with progress_bars(console):
        for done in (0, 300, 600, 900):
            progress("rows by the rules", done, 1000)
            time.sleep(0.15 * console.is_terminal)  # bars are drawn ten times a second
        progress("captures parsed", 7)
    progress("afterwards", 1, 2)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_bars_show_count_rate_and_time_left_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "captures parsed" in text and "/s" in text and "left" in text and "afterwards" not in text
    assert shown(Console(file=io.StringIO(), force_terminal=False)) == "", "a short stage is not worth a line"
    monkeypatch.setattr(pipes_reporting, "LINE_EVERY", 0)
    text = shown(Console(file=io.StringIO(), force_terminal=False, width=120, get_time=count(100).__next__))
    assert re.search(r"rows by the rules: 600 of 1,000, [\d,]+/s, \d+ s left", text), text
