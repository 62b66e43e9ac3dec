"""A damaged listing is seen, or shows every row; what it cannot prove stays owed. What no table can hold is typed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.crawl.fetcher import open_frontier
from persona_dagster.crawl.frontier import NAME, Frontier, Listed
from persona_dagster.sites.json_validation import load_json
from persona_dagster.sites.parser_results import MalformedError
from persona_dagster.sites.ptt.listing import PAGE_ROWS, disproof, parse_listing
from persona_dagster_tests.archive.test_archive import capture
from persona_dagster_tests.crawl.mutations import MUTATIONS
from persona_dagster_tests.crawl.test_schedules import listing

NOW = 1_800_000_000.0
ROUNDS, SOAK_ROUNDS = 1_500, 20_000
KEYS = [f"M.{1_700_000_000 + n * 60}.A.{n:03X}" if n % 7 else None for n in range(PAGE_ROWS)]


def test_no_listing_loses_a_row_unseen(soak: bool) -> None:
    rng, page, seen = random.Random(5), listing(KEYS, 7).encode(), 0
    whole = parse_listing(page, board="Big")
    assert disproof(whole, 7, NOW) == ""
    for _ in range(SOAK_ROUNDS if soak else ROUNDS):
        mutate = rng.choice(MUTATIONS)
        try:
            found = parse_listing(mutate(page, rng), board="Big")
        except MalformedError:
            seen += 1
            continue
        if disproof(found, 7, NOW):
            seen += 1
            continue
        # A flipped digit makes another id, which answers 404 and is looked at twice; no row may be less.
        assert len(found.positions) == PAGE_ROWS, mutate.__name__
        assert len(found.ids) == len(whole.ids), mutate.__name__
    assert seen > 500


@pytest.mark.parametrize(
    ("rows", "number", "why"),
    [(KEYS[:13], 7, "13 rows"), (KEYS, 8, "asked for as 8"), (KEYS[::-1], 7, "order"), ([], 7, "0 rows")],
)
def test_a_page_that_proves_nothing_is_told(rows: list[str | None], number: int, why: str) -> None:
    assert why in disproof(parse_listing(listing(rows, 7).encode()), number, NOW)


def test_a_row_of_another_board_is_no_row() -> None:
    with pytest.raises(MalformedError, match="board"):
        parse_listing(listing(KEYS, 7).encode(), board="Another")


@pytest.mark.parametrize("text", [r'{"title": "\ud83d"}', r'{"\udc00": 1}', '{"n": ' + "9" * 5000 + "}", '{"n": NaN}'])
def test_json_that_no_table_can_hold_is_typed(text: str) -> None:
    with pytest.raises(MalformedError):
        load_json(text)
    assert load_json(r'{"title": "\ud83d\ude00"}') == {"title": "😀"}


def test_a_state_whose_making_was_cut_off_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path)
    archive.append([capture("M.1700000000.A.001", "text")])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Frontier, "listed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        open_frontier(archive, "ptt", "Hate")
    Frontier(archive.place("ptt", "Hate", NAME)).close()  # as `persona frontier` looks at it
    assert open_frontier(archive, "ptt", "Hate").count("stored") == 1


def test_a_page_that_fails_is_given_up_for_a_week_with_its_reason() -> None:
    frontier = Frontier()
    frontier.listed("article", [Listed("M.1.A", 1)], 0)
    for tries in (1, 2, 3):
        item = frontier.fail("article", "M.1.A", "blocked: status 403", 1000.0, 900.0)
        assert item.state == ("quarantined" if tries == 3 else "failing")
    assert item.due == 1000.0 + 7 * 86_400
    assert "403" in item.why
    again = Frontier()
    again.restore(frontier.summary())
    assert again.item("article", "M.1.A") == item, "the state is made again from its summary in the archive"
