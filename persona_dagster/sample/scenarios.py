"""What the sites are known to do today, each thing as a scenario of the replica, with how it is known.

`observed`: in pages and source code that lie before us; `reported`: by people who crawl the sites, not seen by us. A
scenario that hurts the crawl is how the tests learn of it; docs/sample.md says how they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from persona_dagster.sample.faults import Rule, Scenario

CRAWLERS = "two Dcard crawlers of 2026 and a measurement of 2026-10"


@dataclass(frozen=True)
class Known:
    """A way in which a site behaves; `rules` make the replica behave so."""

    name: str
    says: str
    known: Literal["observed", "reported"]
    source: str
    rules: tuple[Rule, ...]


KNOWN = (
    Known(
        "server_rendered",
        "Dcard's first page of a forum arrives as HTML; globalPaging answers only for later ones",
        "reported",
        CRAWLERS,
        (Rule("rendered", r"dcard/f/[^/]+$", times=None),),
    ),
    Known(
        "plain_http_challenged",
        "Dcard challenges every request that is no browser's, robots.txt included",
        "reported",
        "four projects, the last in 2026-10",
        (Rule("challenge", r"dcard/", times=None, spares_browsers=True),),
    ),
    Known(
        "details_in_the_dom",
        "Dcard refuses the JSON of a post; its text stands in the page's own <article>",
        "reported",
        CRAWLERS,
        (Rule("rendered", r"dcard/f/", times=None), Rule("403", r"dcard/service/api/v\d/posts/", times=None)),
    ),
    Known(
        "dcard_pinned",
        "Dcard puts pinned posts above the newest ones (pinnedPosts=widget)",
        "reported",
        "the query of globalPaging in crawlers of 2025",
        (Rule("pinned", r"dcard/(f/|service/api/v2/globalPaging)", times=None),),
    ),
    Known(
        "cross_host_assets",
        "pages load scripts and pictures of other hosts, Turnstile's among them",
        "observed",
        "saved pages of Dcard and Threads",
        (Rule("assets", r"dcard/f/", times=None),),
    ),
    Known(
        "ptt_deleted_rows",
        "deleted articles keep their rows: more than two listing pages of them may follow one another",
        "observed",
        "real listing pages; ptt/pttweb, whose pages are counted by rows",
        (Rule("deleted", r"ptt/bbs/[^/]+/index", times=None),),
    ),
    Known(
        "ptt_moved_rows",
        "when a board's oldest rows expire, every row moves to a lower page, also between two requests",
        "reported",
        "ptt/pttweb; a project that met posts of other months on index2.html in 2026-10",
        (Rule("shift", r"ptt/bbs/[^/]+/index\d", nth=2, times=2),),
    ),
    Known(
        "ptt_pinned",
        "old articles are pinned below the newest page's rows",
        "observed",
        "real listing pages (r-list-sep)",
        (Rule("pinned", r"ptt/bbs/[^/]+/index\.html", times=None),),
    ),
    Known(
        "ptt_challenged",
        "PTT behind a challenge for plain HTTP, robots.txt included",
        "reported",
        "addresses of clouds, 2022 and 2026-10",
        (Rule("challenge", r"ptt/", times=None, spares_browsers=True),),
    ),
)


def scenario(*names: str) -> Scenario:
    """The named behaviours at once; all of them where none is named."""
    unknown = set(names) - {one.name for one in KNOWN}
    if unknown:
        raise ValueError(f"no scenario {', '.join(sorted(unknown))}; known: {', '.join(one.name for one in KNOWN)}")
    return Scenario(rule for one in KNOWN if not names or one.name in names for rule in one.rules)
