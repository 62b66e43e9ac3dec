import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_dagster.config.loading import PACKAGED as CONFIG
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.dedup import mark_duplicates
from persona_dagster.records import Post, posts_frame
from persona_dagster.sample.clock import FIRST_DAY
from persona_dagster.sample.content_loader import (
    Content,
    ContentError,
    answer_times,
    answers,
    dcard_id,
    load,
    ptt_file,
    threads_code,
    threads_pk,
    tiny,
)
from persona_dagster.sample.ptt_article_text import plain_sheet
from persona_dagster.sample.ptt_article_variants import DRAWN, SHAPES, shape_of
from persona_dagster.sample.sample_statistics import dialogue_texts, item_texts, near_duplicates, note_texts, report
from persona_dagster.sites.ptt.article import ARTICLE_ID
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

GOOD = "- {id: a, day: 1, time: 09:05, author: someone, title: 題, body: 文}\n"


def write(folder: Path, site: str, name: str, text: str) -> Path:
    path = folder / site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sample_is_as_large_and_as_varied_as_promised() -> None:
    found = report()
    assert found.posts >= 300 and found.notes >= 120 and found.dialogues >= 60
    assert found.comments >= 2 * found.posts, "dialogues come from answers"
    assert found.survival >= 0.95, found.near_duplicates


def test_the_corpus_own_step_keeps_what_was_written(packaged: Content) -> None:
    """The exact join that thins the corpus, over every post, answer, note and dialogue of the sample."""
    texts = {
        "post": list(post_texts(packaged)),
        "any": [*item_texts(packaged), *note_texts(), *dialogue_texts()],
    }
    for name, written in texts.items():
        rows = [
            Post("ptt", name, "post", str(number), "", text, text=text) for number, text in enumerate(written)
        ]  # fmt: skip
        kept = mark_duplicates(posts_frame(rows)).frame["dup_of"].is_null().mean()
        assert isinstance(kept, float) and kept >= 0.95, (name, kept)
    assert len(texts["post"]) >= 300


def post_texts(content: Content) -> Iterator[str]:
    for _, _, item in content.items():
        yield getattr(item, "body", None) or getattr(item, "content", None) or getattr(item, "text", None) or item.id


def test_the_report_counts_what_repeats() -> None:
    text = "他說忙結果在打遊戲，我真的會被氣死"
    found = list(near_duplicates([text, "今天天氣很好適合散步", text + "！", "推", "推", "噓"]))
    assert [(a[:2], b[:2]) for a, b, _ in found] == [("他說", "他說"), ("推", "推")]


def test_boards_of_the_sample_are_the_boards_that_are_scraped(packaged: Content, tmp_path: Path) -> None:
    assert CONFIG.is_dir()
    sources = load_sources(tmp_path, "sample")
    for source in ("ptt", "dcard", "threads"):
        assert set(getattr(packaged, source)) == set(sources.site(source).boards)  # type: ignore[arg-type]


def test_something_is_still_to_come_in_every_site(packaged: Content) -> None:
    for site in ("ptt", "dcard", "threads"):
        items = [item for name, _, item in packaged.items() if name == site]
        assert any(item.day > FIRST_DAY for item in items)
        assert any(item.deleted_day is not None and item.deleted_day > FIRST_DAY for item in items)
    assert any(item.edited_day is not None and item.edited_day > FIRST_DAY for _, _, item in packaged.items())


def test_every_odd_shape_stands_in_the_sample(packaged: Content) -> None:
    drawn = set()
    for board, items in packaged.ptt.items():
        originals = {item.id: item for item in items}
        drawn |= {shape_of(plain_sheet(board, item, originals, 20, item.at)) for item in items}
    assert drawn == {"plain", *SHAPES}
    assert set(DRAWN) < set(SHAPES)


def test_tiny_is_small_and_has_every_board_an_answer_and_a_future(packaged: Content) -> None:
    small = tiny(packaged)
    items = [item for _, _, item in small.items()]
    assert 25 <= len(items) <= 40
    assert any(item.day > FIRST_DAY for item in items)
    assert any(getattr(item, "re", None) for item in items)
    for site in ("ptt", "dcard", "threads"):
        assert set(getattr(small, site)) == set(getattr(packaged, site))
        assert all(any(answers(item) >= 2 for item in board) for board in getattr(small, site).values())
    ids = {item.id for item in items}
    assert {item.re for item in items if getattr(item, "re", None)} <= ids, "what is answered is there too"


def test_ids_are_the_sites_own_kind_and_follow_from_content() -> None:
    item = ptt_item(3)
    match = ARTICLE_ID.fullmatch(ptt_file("Hate", item))
    assert match and 0 <= int(match[1]) - item.at.timestamp() < 60
    assert ptt_file("Hate", item) == ptt_file("Hate", item.model_copy(update={"body": "改過"}))
    assert ptt_file("Hate", item) != ptt_file("Boy-Girl", item)
    assert dcard_id("mood", dcard_item(1)) < dcard_id("mood", dcard_item(2)), "ids grow with time"
    pk = threads_pk(threads_item(1).at, "t1")
    assert threads_code(pk).startswith("D") and len(threads_code(pk)) == 11, "as the codes of 2025 and 2026"


def test_answers_come_in_order_after_their_post() -> None:
    item = ptt_item(5)
    times = answer_times(item, 40)
    assert times == sorted(times) and times[0] > item.at
    assert answer_times(item, 10) == times[:10], "a later answer does not move the earlier ones"


def test_a_board_may_have_several_files_and_an_unquoted_time(tmp_path: Path) -> None:
    write(tmp_path, "ptt", "Hate-1.yaml", GOOD)
    write(tmp_path, "ptt", "Hate-2.yaml", GOOD.replace("id: a", "id: b").replace("09:05", "21:35"))
    items = load(tmp_path).ptt["Hate"]
    assert [(item.id, item.time) for item in items] == [("a", "09:05"), ("b", "21:35")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{a: [", "cannot be read as YAML"),
        ("a: 1", "must hold a list"),
        ("- 3\n", "item number 1"),
        (GOOD.replace("body: 文", "bodi: 文"), r"item a: .*bodi"),
        (GOOD.replace("09:05", "'25:00'"), "item a: time"),
        (GOOD.replace("someone", "x!"), "item a: author"),
        (GOOD + GOOD, "the id stands already"),
        (GOOD.replace("文}", "文, re: zzz}"), "is no earlier item"),
    ],
)
def test_an_unusable_file_is_named_with_the_item(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "ptt", "Hate.yaml", text)
    with pytest.raises(ContentError, match=says) as error:
        load(tmp_path)
    assert re.search(r"Hate", str(error.value))
