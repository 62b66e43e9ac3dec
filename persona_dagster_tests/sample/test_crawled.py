"""What the replica shows is what the scrapers bring home, and what a day later changes there changes here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.corpus.parsing import BoardPosts, parse_board
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import Source
from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content, answer_times, answers, deleted, edited, tiny
from persona_dagster.sample.replica import serve

pytestmark = pytest.mark.browser


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return load_sources(tmp_path, "sample")


@pytest.fixture
def content(packaged: Content) -> Content:
    """Two dozen posts whose text the archive must hold afterwards."""
    return tiny(packaged)


def posts_in(archive: Archive, source: Source, board: str) -> BoardPosts:
    return parse_board(archive.latest(source, board), str)


@pytest.mark.parametrize(("source", "board"), [("ptt", "Hate"), ("dcard", "mood"), ("threads", "閨蜜")])
def test_everything_arrives_and_changes_follow(
    source: Source, board: str, content: Content, sources: Sources, tmp_path: Path
) -> None:
    archive, clock = Archive(tmp_path / "raw"), Clock()
    items = getattr(content, source)[board]
    with serve(content, clock) as replica:
        transport = Transport(rewrites=replica.rewrites)
        crawl_board(source, board, sources, archive, transport=transport, log=lambda line: None)
        for days in (0, 4):
            if days:
                clock.advance(days)
                crawl_board(source, board, sources, archive, transport=transport, log=lambda line: None)
            found = posts_in(archive, source, board)
            assert found.problems == []
            here = [item for item in items if item.day <= clock.day and not deleted(item, clock.day)]
            kinds = Counter(post.kind for post in found.posts)
            gone = sum(deleted(item, clock.day) and item.day <= 20 for item in items)
            assert len(here) <= kinds["post"] <= len(here) + gone, "a deletion needs a second look"
            expected = sum(sum(at <= clock.now() for at in answer_times(item, answers(item))) for item in here)
            more = sum(len(getattr(item, "more", ())) for item in here)
            assert kinds["comment"] + kinds["reply"] >= expected + more
            text = "\n".join(post.text_raw for post in found.posts).replace("\n", "")
            for item in here:
                body = item.edited_body if edited(item, clock.day) else getattr(item, "body", None)
                words = body or getattr(item, "content", None) or getattr(item, "text", None) or ""
                assert words.strip().split("\n")[0][:30] in text


@pytest.mark.parametrize(("source", "board"), [("ptt", "Boy-Girl")])
def test_the_whole_board_arrives(
    source: Source, board: str, packaged: Content, sources: Sources, tmp_path: Path
) -> None:
    archive = Archive(tmp_path / "raw")
    with serve(packaged) as replica:
        crawl_board(
            source, board, sources, archive, transport=Transport(rewrites=replica.rewrites), log=lambda line: None
        )
    now = Clock().now()
    here = [item for item in packaged.ptt[board] if item.day <= 20 and not deleted(item, 20)]
    kinds = Counter(post.kind for post in posts_in(archive, source, board).posts)
    assert kinds["post"] == len(here)
    assert kinds["comment"] == sum(sum(at <= now for at in answer_times(item, len(item.pushes))) for item in here)
