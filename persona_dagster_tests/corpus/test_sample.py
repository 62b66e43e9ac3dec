"""The sample as scraped: posts of the replica through the real crawl, parsers and cleaning, without residue left."""

from __future__ import annotations

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.corpus.quality import usable
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import posts_frame
from persona_dagster.sample.content_loader import load
from persona_dagster.sample.replica import serve

RESIDUE = (
    r"(?m)^(?:作者|發信人|看板|站內|標題|時間)[:： ]|發信站|※|月[0-9]{1,2}日 [0-9:]{5}$|[0-9]{2}/[0-9]{2} [0-9:]{5}$"
    r"|https?://|(?i:<user>|<nick>|<ip>)|^: |^--$|Sent from|轉錄至|^(?:推|噓|→) ?\S{2,12} ?:|^[Bb][0-9]+ "
)


@pytest.mark.browser
@pytest.mark.parametrize(("source", "board"), [("ptt", "Boy-Girl"), ("dcard", "mood"), ("threads", "閨蜜")])
def test_nothing_of_the_page_is_left_in_clean_text(source, board, tmp_path):
    sources, archive = load_sources(tmp_path, "sample"), Archive(tmp_path / "raw")
    with serve(load()) as replica:
        transport = Transport(rewrites=replica.rewrites)
        crawl_board(source, board, sources, archive, transport=transport, log=lambda line: None)
    posts = parse_board(archive.latest(source, board), str).posts
    assert len(posts) > 50
    cleaned = clean_posts(posts_frame(posts), source, sources).frame
    left = cleaned.filter(cleaned["text"].str.contains(RESIDUE))
    assert not len(left), left["post_id"].to_list()
    assert cleaned.filter(usable()).height > 0.9 * len(cleaned)
