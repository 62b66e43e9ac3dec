"""A damaged page gives the same posts or a typed outcome: no other exception, never a shorter list called complete."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from persona_dagster.archive.archive import LISTS, Archive
from persona_dagster.corpus.parsing import parse_capture
from persona_dagster.records import Capture
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.parser_results import Parsed
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.threads import payloads as threads
from persona_dagster_tests.crawl.mutations import MUTATIONS

ROUNDS, SOAK_ROUNDS = 300, 5000


@dataclass
class Page:
    name: str
    body: bytes
    parse: Callable[[bytes], Parsed]


def pseudonym(author: str) -> str:
    return f"key of {author}"


def of_capture(capture: Capture) -> Page:
    return Page(
        f"{capture.source} {capture.key}",
        capture.body,
        lambda body: parse_capture(replace(capture, body=body), pseudonym),
    )


def real_pages(source: str, folder: Path) -> list[Page]:
    pages = []
    if source == "ptt":
        for path in sorted([*folder.glob("ptt_html/article/*"), *folder.glob("ptt_html/article_fragment/*")]):
            board, _, article_id = path.stem.partition("__")

            def parse(body: bytes, board: str = board, article_id: str = article_id) -> Parsed:
                return ptt.parse_article(body, board=board, article_id=article_id, author_key=pseudonym)

            pages.append(Page(path.name, path.read_bytes(), parse))
    if source == "dcard":

        def parse_payload(body: bytes) -> Parsed:
            return dcard.parse_dcard(body, board="x", author_key=pseudonym)

        pages += [Page(path.name, path.read_bytes(), parse_payload) for path in sorted(folder.glob("dcard/*/*"))]
    if source == "threads":
        for path in sorted(folder.glob("threads/*/*")):
            code = path.stem.rsplit("_", 1)[-1]
            pages.append(
                Page(
                    path.name,
                    path.read_bytes(),
                    lambda body, code=code: threads.parse_threads(body, board="x", author_key=pseudonym, code=code),
                )
            )
    return pages


@pytest.mark.parametrize("source", ["ptt", "dcard", "threads"])
def test_damage_is_seen(source: str, scraped: Archive, request: pytest.FixtureRequest, soak: bool) -> None:
    board = {"ptt": "Boy-Girl", "dcard": "mood", "threads": "失戀"}[source]
    captures = list(scraped.latest(source, board))  # type: ignore[arg-type]
    pages = [of_capture(capture) for capture in captures if capture.kind not in LISTS]
    with suppress(pytest.skip.Exception):  # without the real data: the replica's pages alone
        pages += real_pages(source, request.getfixturevalue("shared_data") / "pages")
    whole = [page.parse(page.body) for page in pages]
    assert all(parsed.usable for parsed in whole), [parsed.why for parsed in whole if not parsed.usable]
    assert sum(parsed.complete for parsed in whole) >= 2

    rng, called_complete, seen = random.Random(20261121), 0, 0
    rounds = SOAK_ROUNDS if soak else ROUNDS
    for _ in range(rounds):
        number = rng.randrange(len(pages))
        mutate = rng.choice(MUTATIONS)
        damaged = mutate(pages[number].body, rng)
        parsed = pages[number].parse(damaged)  # an exception here fails the test
        if damaged == pages[number].body:
            continue
        seen += not parsed.usable
        if parsed.complete:
            called_complete += 1
            before = [(post.kind, post.floor) for post in whole[number].posts]
            after = [(post.kind, post.floor) for post in parsed.posts]
            assert len(after) >= len(before), f"{mutate.__name__} of {pages[number].name}: {len(before)} → {len(after)}"
    print(f"{source}: {rounds} mutations of {len(pages)} pages, {seen} typed, {called_complete} whole all the same")
    assert seen > 100, "most damage is typed"


def test_the_mutations_do_damage() -> None:
    rng = random.Random(1)
    body = b'<div class="push">abc</div><div class="push">def</div><div class="push">ghi</div>' * 20
    for mutate in MUTATIONS:
        assert any(mutate(body, rng) != body for _ in range(20)), mutate.__name__
