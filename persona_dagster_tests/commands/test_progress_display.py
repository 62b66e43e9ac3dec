"""The display of long commands: what is expected, what is left, and nothing but lines where no terminal is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from persona_dagster.commands.progress_display import Display, Estimate, Step, Times, spoken
from persona_dagster.pipes_reporting import COUNTED_IN, listening, progress

STEPS = [Step("posts", "Cleaning", 20), Step("lora_adapter · v2", "Training", 300), Step("eval_report", "Judging", 80)]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_the_plan_then_the_pace_of_this_machine_then_what_is_counted() -> None:
    clock = Clock()
    left = Estimate(STEPS, clock)
    assert left.left() == 400
    left.begin("posts")
    clock.now = 10
    assert left.left() == 390
    clock.now = 40  # twice as long as expected: of 80 s that count, 60 + 40 for 60 + 20
    left.end()
    assert left.pace == pytest.approx(100 / 80)
    assert left.left() == pytest.approx(380 * 100 / 80)
    left.begin("lora_adapter · v2")
    left.counted("steps", 0, 100)
    clock.now += 50
    left.counted("steps", 5, 100)  # 10 s a step, where the plan says 3.75, which weighs as ten steps
    told = 95 * (10 * 3.75 + 5 * 10) / 15 + 80 * left.pace
    assert left.left() == pytest.approx(told)
    clock.now += 20  # the next five come together: nothing is slower for that
    assert left.left() == pytest.approx(told - 20)
    clock.now += 930
    left.counted("steps", 100, 100)
    left.end()
    assert left.left() == pytest.approx(80 * left.pace) and left.pace > 2


def test_what_this_home_took_counts_more_than_the_package_s_figures(tmp_path: Path) -> None:
    times = Times(tmp_path / "times.json")
    sample = times.expected("dialogues", stands=False)
    assert sample == times.packaged["seconds"]["dialogues"] > times.expected("dialogues", stands=True)
    assert times.expected("ptt_raw · Hate", stands=False) == times.packaged["seconds"]["ptt_raw"]
    ten_epochs, three = (
        times.expected(f"lora_adapter · {name}", stands=False) for name in ("persona_v1", "persona_v2")
    )
    assert ten_epochs > 2 * three == 2 * times.packaged["seconds"]["lora_adapter"]
    times.rows, times.made["dialogues"] = 1000, 50.7
    times.save()
    again = Times(tmp_path / "times.json", rows=4000)
    assert again.expected("dialogues", stands=False) == pytest.approx(200.7)  # four times the rows
    assert again.expected("lora_adapter · v2", stands=False) == again.packaged["seconds"]["lora_adapter"]
    (tmp_path / "times.json").write_text("{", encoding="utf-8")
    assert Times(tmp_path / "times.json").expected("dialogues", stands=False) == sample


def show(terminal: bool) -> str:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=terminal, width=110))
    with display.running(STEPS, "persona_v2"):
        display.begin("posts")
        progress("rows by the rules", 900, 1000)
        display.end("rows 1,000", changed=True)
        display.stands("lora_adapter · v2")
        display.begin("eval_report")
        display.end("verdict amber", changed=False)
    return out.getvalue()


def test_plain_lines_without_a_terminal_and_one_table_on_one() -> None:
    lines = show(terminal=False).splitlines()
    assert lines[0] == "persona_v2: 3 steps, about 7 min"
    assert "Training 5 min" in lines[1] and "\x1b" not in "".join(lines)
    assert [line.split(":")[0].split()[0] for line in lines[2:]] == ["✓", "=", "…", "="]
    table = show(terminal=True)
    assert "Cleaning" in table and "so far, about" in table and "rows 1,000" not in table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (100, "1 min 40 s"), (298, "5 min"), (700, "12 min"), (7500, "2 h 5 min")],
)
def test_times_are_said_as_exactly_as_they_are_known(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_a_program_that_was_started_counts_for_the_display_of_its_run() -> None:
    program = (
        "from persona_dagster.pipes_reporting import progress; progress('answers', 3, 9); import time; time.sleep(1.2)"
    )
    found: list[tuple[str, int, int | None]] = []
    with listening(lambda *counted: found.append(counted)):
        subprocess.run([sys.executable, "-c", program], check=True)
    assert found == [("answers", 3, 9)]
    assert COUNTED_IN not in os.environ


def test_what_libraries_print_goes_to_the_log_also_at_the_very_end(tmp_path: Path) -> None:
    program = """
import atexit, os, sys
from pathlib import Path
from persona_dagster.commands.progress_display import chatter_in
atexit.register(lambda: os.write(2, b"leaked at exit\\n"))
with chatter_in(Path(sys.argv[1])) as out:
    print("a library speaks"); os.write(1, b"a program speaks\\n"); out.write("for people\\n")
raise SystemExit("the reason")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.log")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "for people\n", "the reason\n")
    log = (tmp_path / "x.log").read_text(encoding="utf-8")
    assert "a library speaks" in log and "a program speaks" in log and "leaked at exit" in log
