"""What is scraped: sites, boards, pace and budgets (sources/*.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from persona_dagster.config.loading import Config, ConfigError, Found, overlay, read_items, read_yaml, validate
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
    denied_boards: tuple[str, ...] = ()  # of any site: never scraped, imported or trained on

    @field_validator("boards")
    @classmethod
    def boards_are_partition_keys(cls, boards: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(boards)) < len(boards):
            raise ValueError("a board stands twice")
        for board in boards:
            if board == IMPORT_BOARD or not board.strip() or "..." in board or not board.isprintable():
                raise ValueError(f"{board!r} can be no board: it would be a partition key")
        return boards


class Sources(Config):
    ptt: Site
    dcard: Site
    threads: Site

    @property
    def denied_boards(self) -> tuple[str, ...]:
        return tuple(board for source in FORUMS for board in self.site(source).denied_boards)

    def site(self, source: Source) -> Site:
        return getattr(self, source)

    def partitions(self, source: Source) -> tuple[str, ...]:
        """Partition keys of a source's raw asset: its boards, and the imports."""
        return (*self.site(source).boards, IMPORT_BOARD)


def find_sources(config_dir: Path, profile: str, accepted: Path | None = None) -> Found[Site]:
    """Every site, with the profile's overlay laid on it, and what is wrong with the files of others."""

    def parse(path: Path) -> Site:
        if path.stem not in FORUMS:
            raise ConfigError(f"{path}: no site that is known here; there are {', '.join(FORUMS)}")
        value = read_yaml(path)
        profiles = value.pop("profiles", None) or {}
        for name, over in profiles.items():
            validate(Site, overlay(value, over), path, ("profiles", str(name)))
        return validate(Site, overlay(value, profiles.get(profile, {})), path, ("profiles", profile))

    return read_items("sources", parse, config_dir, accepted)


def load_sources(config_dir: Path, profile: str, accepted: Path | None = None) -> Sources:
    """All sites. With `accepted`, one whose file is bad goes on as it last was; without, raises `ConfigError`."""
    found = find_sources(config_dir, profile, accepted)
    if found.problems and accepted is None:
        raise next(iter(found.problems.values()))
    return Sources(**found.items)


__all__ = ["FORUMS", "IMPORT_BOARD", "Pace", "Site", "Sources", "load_sources"]
