"""A program as ours are, for the tests of Slurm: speaks over Pipes, saves on SIGTERM, takes as long as it is asked."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from persona_dagster.pipes_reporting import open_reporter


def main(path: Path) -> int:
    job = json.loads(path.read_text(encoding="utf-8"))

    def save(*_: Any) -> None:
        path.with_suffix(".saved").touch()
        raise SystemExit(130)

    signal.signal(signal.SIGTERM, save)
    with open_reporter() as reporter:
        reporter.line("it began")
        path.with_suffix(".began").touch()
        ends = time.monotonic() + job["seconds"]
        while time.monotonic() < ends:
            time.sleep(0.1)
        if job.get("fails"):
            print("the disk is full", flush=True)
            return 1
        reporter.finish({"steps": {"raw_value": 3, "type": "int"}}, "a digest")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
