"""Progress is told to who shows it, and to nobody else."""

from __future__ import annotations

import io
import time

from rich.console import Console

from persona_dagster.reporting import progress, progress_bars


def shown(console: Console) -> str:
    with progress_bars(console):
        for done in (0, 300, 600, 900):
            progress("rows by the rules", done, 1000)
            time.sleep(0.15 * console.is_terminal)  # bars are drawn ten times a second
        progress("captures parsed", 7)
    progress("afterwards", 1, 2)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_bars_show_count_rate_and_time_left_on_a_terminal_and_nothing_elsewhere() -> None:
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "captures parsed" in text and "/s" in text and "left" in text and "afterwards" not in text
    assert shown(Console(file=io.StringIO(), force_terminal=False)) == ""
