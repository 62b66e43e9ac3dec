"""What is scraped: sites, boards, pace and budgets (sources.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from persona_dagster.config.loading import Config, find, overlay, read_yaml, validate
from persona_dagster.records import FORUMS, Source

IMPORT_BOARD = "import"  # the partition that takes in dumps found under $PERSONA_HOME/imports


class Pace(Config):
    """How often one host is asked, and how much one pass may cost."""

    requests_per_second: float = Field(1.0, gt=0)
    jitter: float = Field(0.3, ge=0, le=1)  # share of the interval added at random
    max_requests: int = Field(500, ge=1)
    max_minutes: float = Field(30, gt=0)
    cache_minutes: float = Field(15, ge=0)  # a page is not fetched again within this time
    max_bytes: int = Field(8 << 20, ge=1)  # decoded
    polite_hours: tuple[int, int] = (1, 7)  # when schedules start, Asia/Taipei


class Site(Config):
    """One site. `boards` are the partition keys: PTT boards, Dcard forums, Threads keywords, tags or accounts."""

    origin: str  # canonical, stands in every stored URL
    hosts: tuple[str, ...]  # exact hosts that any hop may go to
    boards: tuple[str, ...] = Field(min_length=1)
    route: Literal["http", "browser", "api"] = "http"
    first_days: int = Field(14, ge=1)  # how far the first walk goes back
    allow_robots_disallowed: bool = False
    pace: Pace = Pace()


class Sources(Config):
    ptt: Site
    dcard: Site
    threads: Site
    denied_boards: tuple[str, ...] = ()  # never scraped, imported or trained on

    def site(self, source: Source) -> Site:
        return getattr(self, source)

    def partitions(self, source: Source) -> tuple[str, ...]:
        """Partition keys of a source's raw asset: its boards, and the imports."""
        return (*self.site(source).boards, IMPORT_BOARD)


def load_sources(config_dir: Path, profile: str) -> Sources:
    """sources.yaml with the profile's overlay (only pace, route and automation differ by profile)."""
    path = find("sources.yaml", config_dir)
    value = read_yaml(path)
    profiles = value.pop("profiles", {})
    return validate(Sources, overlay(value, profiles.get(profile, {})), path)


__all__ = ["FORUMS", "IMPORT_BOARD", "Pace", "Site", "Sources", "load_sources"]
