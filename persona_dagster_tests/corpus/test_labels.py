"""Labels in whatever spelling come out in one, and a label that nobody knows is not guessed."""

from __future__ import annotations

import pytest

from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.labels import standardise_board, standardise_label, standardise_source


@pytest.mark.parametrize(
    "spelt", ["[人格:NLP助教]", "【NLP 技術助教】", "NLP助教", "［ＮＬＰ　技術助教］", "nlp_技術助教"]
)
def test_a_persona_has_one_tag(spelt, tmp_path):
    personas = load_personas(tmp_path).personas
    assert standardise_label(spelt, personas) == "[NLP 技術助教]"
    assert standardise_label("[寫詩機]", personas) is None


def test_sources_and_boards():
    assert [standardise_source(name) for name in ("PTT", "www.dcard.tw ", "Ｔhreads", "plurk")] == [
        *("ptt", "dcard", "threads"),
        None,
    ]
    assert standardise_board("ｂoy-girl ", ("Boy-Girl",)) == "Boy-Girl"
    assert standardise_board("C_Chat", ("Boy-Girl",)) == "C_Chat"
