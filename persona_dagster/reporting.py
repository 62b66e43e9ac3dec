"""Where a program of ours says what it does: to Dagster through Pipes when it runs under it, else to the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes


class Reporter:
    """Lines while it runs, one materialization at the end."""

    def __init__(self, pipes: PipesContext | None, quiet: bool = False) -> None:
        self.pipes, self.quiet = pipes, quiet

    def line(self, text: str) -> None:
        """One line: under Dagster each is a row of the event log, so not one a step."""
        if self.pipes is not None:
            self.pipes.log.info(text)
        if not self.quiet:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        if self.pipes is not None:
            self.pipes.log.warning(text)
        if not self.quiet:
            print(f"warning: {text}", flush=True)

    def finish(self, metadata: Mapping[str, Any], data_version: str) -> None:
        """The result: `metadata` in the forms of Pipes, versioned by content."""
        if self.pipes is not None:
            self.pipes.report_asset_materialization(metadata=metadata, data_version=data_version)


@contextmanager
def open_reporter() -> Iterator[Reporter]:
    # Under torchrun every rank inherits the pipe: rank 0 speaks.
    if os.environ.get("RANK", "0") != "0":
        yield Reporter(None, quiet=True)
        return
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        yield Reporter(None)
        return
    with open_dagster_pipes() as pipes:
        yield Reporter(pipes)
