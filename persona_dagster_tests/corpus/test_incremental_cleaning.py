"""A board cleaned in stretches is the board cleaned whole, and only what is new is cleaned."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.corpus import incremental_cleaning
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.incremental_cleaning import BoardCleaner, Tally
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, posts_frame
from persona_dagster.sample.content_loader import PttItem, Push, ptt_file
from persona_dagster.sample.ptt_article_text import plain_sheet
from persona_dagster.sample.ptt_pages import article_page

BOARD, NOW = "Boy-Girl", datetime(2026, 11, 1, tzinfo=UTC)
# Of one author, three lines of the push box: one sentence. Others push in the same minutes on other articles.
CUT = (
    "這句話實在太長了所以推文框一行根本就放不下只好",
    "換到下一行繼續講而且講到這裡居然還是沒有辦法講",
    "完你們說氣不氣人",
)
PASTED = "大家都貼的複製文，一個字也不改，貼了又貼，貼了再貼，看到的人請繼續貼下去。"


def items(days: range) -> list[PttItem]:
    """Six articles a day: answers to an article of the day before, floods, one that everybody pastes, cut pushes."""
    made = []
    for day in days:
        for number in range(6):
            pushes = [Push(user="longwinded", text=text) for text in CUT]
            pushes += [Push(user=f"reader{at}", text=f"{day}-{number} 第{at}樓，電話 0912-345-67{at}") for at in "123"]
            pushes += [Push(user="flooder", text="大家快來看這裡有好東西")]
            body = f"這是第{day}天的第{number}篇，我有一個煩惱想請教大家。" if number < 5 else PASTED
            made.append(
                PttItem(
                    id=f"d{day}n{number}",
                    day=day,
                    time=f"{10 + number:02d}:00",
                    author=f"writer{number if number < 5 else 5 + day}",
                    title=f"第{number}種煩惱",
                    body=body,
                    re=f"d{day - 1}n{number}" if day and number == 2 else None,
                    pushes=tuple(pushes),
                )
            )
    return made


def captures(wanted: list[PttItem], at: datetime = NOW, suffix: str = "") -> Iterator[Capture]:
    known = {item.id: item for item in items(range(40))}
    for item in wanted:
        sheet = plain_sheet(BOARD, item, known, 99, at)
        page = article_page(BOARD, ptt_file(BOARD, item), sheet.title, "", main=sheet.html() + suffix, adult=False)
        body, key = page.encode(), ptt_file(BOARD, item)
        url = f"https://www.ptt.cc/bbs/{BOARD}/{key}.html"
        yield Capture("ptt", BOARD, "article", key, url, at, 200, Outcome.OK, {}, body, sha256(body))


@pytest.fixture
def cleaner(tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch) -> BoardCleaner:
    monkeypatch.setattr(incremental_cleaning, "PAGES", 8)
    return BoardCleaner("ptt", Archive(tmp_path / "raw"), sources, {}, str, tmp_path / "cleaned")


def whole(cleaner: BoardCleaner) -> pl.DataFrame:
    posts = parse_board(cleaner.archive.latest("ptt", BOARD), str).posts
    return clean_posts(posts_frame(posts), "ptt", cleaner.sources, personas=cleaner.personas).frame


def cleaned(cleaner: BoardCleaner) -> Tally:
    """Cleans the board, and holds it against the board cleaned whole."""
    frame, tally = cleaner.clean([BOARD])
    assert frame.frame.equals(whole(cleaner))
    return tally


def test_each_new_day_gives_what_cleaning_the_whole_board_gives(cleaner: BoardCleaner) -> None:
    total = 0
    for day in range(5):
        fresh = cleaner.archive.append(captures(items(range(day, day + 1))))
        tally = cleaned(cleaner)
        total += fresh
        assert tally.fresh + tally.kept == total
    assert tally.fresh < total / 2, "most of the board is read as it was cleaned"
    flags = cleaner.clean([BOARD])[0].frame.explode("flags")["flags"].value_counts()
    assert {"joined", "flood", "copypasta"} <= set(flags["flags"]), "the board shows what only all rows tell"
    assert cleaned(cleaner).fresh == 0


def test_what_comes_back_changed_or_is_forgotten_is_cleaned_again(cleaner: BoardCleaner) -> None:
    everything = items(range(8))
    cleaner.archive.append(captures(everything))
    cleaned(cleaner)
    for at, changed in enumerate((everything[-4:], everything[3:4], everything[20:40:9]), start=1):
        cleaner.archive.append(captures(changed, NOW + timedelta(days=at), f"<!-- {at} -->"))
        assert 0 < cleaned(cleaner).fresh < len(everything)
    gone = ptt_file(BOARD, everything[20])
    cleaner.archive.forget("ptt", BOARD, [gone], "a test")
    frame, tally = cleaner.clean([BOARD])
    assert 0 < tally.fresh < len(everything)
    assert gone not in set(frame.frame["post_id"]) and frame.frame.equals(whole(cleaner))
    kept = pl.concat([pl.read_parquet(path) for path in cleaner.folder.rglob("*.parquet")])
    assert gone not in set(kept["post_id"]), "nor does it stay in what is kept"


def test_other_rules_a_new_secret_and_damage_clean_again(
    cleaner: BoardCleaner, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = len(items(range(4)))
    cleaner.archive.append(captures(items(range(4))))
    assert cleaned(cleaner).fresh == everything
    (one, *_) = cleaner.folder.rglob("*.parquet")
    one.write_bytes(one.read_bytes()[:-20])
    assert 0 < cleaned(cleaner).fresh < everything
    monkeypatch.setattr(incremental_cleaning, "rules_version", lambda: "other rules")
    assert cleaned(cleaner).fresh == everything
    other = BoardCleaner("ptt", cleaner.archive, cleaner.sources, {}, lambda name: f"other {name}", cleaner.folder)
    assert other.clean([BOARD])[1].fresh == everything
    assert len(list(cleaner.folder.rglob("*.parquet"))) < everything, "what no stretch needs any more is deleted"


def test_the_counts_of_the_rules_are_those_of_the_whole_board(cleaner: BoardCleaner) -> None:
    cleaner.archive.append(captures(items(range(3))))
    first = cleaner.clean([BOARD])[1].funnel
    again = cleaner.clean([BOARD])[1].funnel
    assert again.to_dict() == first.to_dict()
    posts = parse_board(cleaner.archive.latest("ptt", BOARD), str).posts
    at_once = clean_posts(posts_frame(posts), "ptt", cleaner.sources).funnel
    assert first.to_dict()["rules"] == at_once.to_dict()["rules"] and first.rows_out == at_once.rows_out


def test_a_long_board_is_cleaned_side_by_side_and_outlives_the_death_of_a_process(
    cleaner: BoardCleaner, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaner.archive.append(captures(items(range(4))))
    monkeypatch.setattr(incremental_cleaning, "SIDE_BY_SIDE", 10**6)
    alone, tally = cleaner.clean([BOARD])
    monkeypatch.setattr(incremental_cleaning, "SIDE_BY_SIDE", 1)
    killed: list[int] = []

    def kill_one() -> None:
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.01)
        workers[0].kill()
        killed.append(1)

    for meanwhile in (threading.Thread(), threading.Thread(target=kill_one)):
        shutil.rmtree(cleaner.folder)
        meanwhile.start()
        frame, again = cleaner.clean([BOARD])
        assert frame.frame.equals(alone.frame)
        assert again.fresh == tally.fresh and again.funnel.to_dict() == tally.funnel.to_dict()
    assert killed and not multiprocessing.active_children()
