"""The tagger of hidden identifiers: what it finds in lines of hands that it did not learn from, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persona_dagster.corpus import privacy
from persona_dagster.corpus.personal_data import tagger
from persona_dagster_tests.corpus.test_personal_data import letters

FOLDER = Path(__file__).parent / "disguised"
UNSEEN = ("t", "x", "y", "za")  # left out of learning (benchmarks/tagger.py --held t,x,y,za)


def lines() -> list[tuple[str, list[str]]]:
    texts = [(FOLDER / f"{name}.jsonl").read_text(encoding="utf-8") for name in UNSEEN]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    return [(row["text"], row["spans"]) for row in rows]


def test_it_finds_what_was_hidden_by_hands_that_it_did_not_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def share() -> float:
        """Of the lines that hold an identifier, those that lose all of it."""
        masked = [(privacy.mask(text)[0], spans) for text, spans in lines() if spans]
        return sum(not any(letters(span) in letters(text) for span in spans) for text, spans in masked) / len(masked)

    found = share()
    monkeypatch.setattr(tagger, "tag", lambda texts: [[] for _ in texts])
    assert found >= 0.8 and found - share() >= 0.25, (found, share())


def test_it_leaves_what_only_looks_like_one() -> None:
    texts = [text for text, spans in lines() if not spans]
    wrong = [text for text, tagged in zip(texts, tagger.tag(texts), strict=True) if tagged]
    assert len(wrong) <= 0.1 * len(texts), wrong


def test_a_text_is_read_the_same_alone_and_among_others() -> None:
    texts = ["", "x", *(text for text, _ in lines()), "賴 那個 abc 底線 1 2 3 " * 60]
    assert tagger.tag(texts) == [tagger.tag([text])[0] for text in texts]
    assert tagger.tag([]) == []


def test_pieces_stand_in_order_within_their_text_and_apart() -> None:
    for text, _ in lines():
        end = 0
        for start, stop, kind in tagger.tag([text])[0]:
            assert end <= start < stop <= len(text) and kind in privacy.KINDS
            end = stop


def test_what_is_masked_stays_as_it_is() -> None:
    once = [privacy.mask(text)[0] for text, _ in lines()]
    changed = [text for text in once if privacy.mask(text)[0] != text]
    assert not changed


def test_a_bigram_that_was_never_met_and_a_lone_surrogate_are_read() -> None:
    assert tagger.tag(["\ud800龘靐齉" * 50]) == [[]]
