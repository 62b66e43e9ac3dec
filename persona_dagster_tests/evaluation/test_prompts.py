"""The probes as data, and which prompts are asked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Recipe
from persona_dagster.evaluation.catastrophic_forgetting import written_right
from persona_dagster.evaluation.prompts import (
    SHOTS,
    PromptError,
    contradictions,
    knowledge,
    load_probes,
    make_prompts,
    read_rows,
    routing,
    stratified,
)
from persona_dagster.sample.content_loader import NOTES, load


def test_untagged_prompts_with_the_two_that_were_asked_for(personas: Personas) -> None:
    probes = routing(personas, None)
    texts = [text for _, _, text in probes]
    assert len(texts) == len(set(texts)) > 150
    assert {"Transformer", "我好像失戀了"} <= set(texts)
    assert min(Counter(persona for _, persona, _ in probes).values()) >= 50


def test_contradictions_contradict_and_are_balanced(personas: Personas) -> None:
    probes = load_probes("contradiction")
    assert all(probe["asked"] != probe["topic"] for probe in probes)
    assert set(Counter(probe["asked"] for probe in probes).values()) == {10}
    assert len(contradictions(personas, None)) == 30


def test_no_probe_is_asked_in_the_sample(personas: Personas) -> None:
    """A probe that the sample trains on would measure memory. By pairs of characters; the nearest share .38."""
    asked = {text for _, _, text in (*routing(personas, None), *contradictions(personas, None))}
    asked |= {text for persona in personas.personas.values() for text in persona.probes}
    said = {getattr(item, "title", None) or getattr(item, "text", "") or "" for _, _, item in load().items()}
    for path in NOTES.iterdir():
        text = path.read_text(encoding="utf-8")
        said |= set(re.findall(r"^## (.+)$" if path.suffix == ".md" else r'"question": "([^"]+)"', text, re.MULTILINE))
    assert len(said) > 500
    nearest = max((_alike(probe, text), probe, text) for probe in asked for text in said)
    assert nearest[0] < 0.5, nearest


def _alike(left: str, right: str) -> float:
    pairs = [{text[place : place + 2] for place in range(len(text) - 1)} for text in (left, right)]
    return len(pairs[0] & pairs[1]) / max(len(pairs[0] | pairs[1]), 1)


def test_knowledge_probes_accept_their_answers_and_no_wrong_one() -> None:
    probes = knowledge(None)
    assert len(probes) == len({probe.id for probe in probes}) >= 150
    # The first few hold every level and both languages, as the whole does.
    for part in (probes, probes[:30]):
        assert min(Counter((probe.lang, probe.level) for probe in part).values()) >= len(part) / 15
    for probe in probes:
        assert written_right(probe, probe.answer), probe.id
        assert not any(written_right(probe, wrong) for wrong in probe.wrong), probe.id


def test_probes_are_traditional_chinese() -> None:
    simplified = re.compile("[这们为说对时吗训练么该谁过还没让给与从来动]")
    traditional_too = set("來過該動從沒還與給讓誰麼練訓嗎時對說為們這")
    for name in ("routing", "contradiction", "knowledge"):
        found = set(simplified.findall(str(load_probes(name)))) - traditional_too
        assert not found, name


def test_base_and_adapter_are_asked_the_same(mix: Path, personas: Personas, recipe: Recipe) -> None:
    train, test = read_rows(mix / "train.jsonl"), read_rows(mix / "test.jsonl")
    prompts = make_prompts(personas, train, test, recipe.evaluation)
    asked = {
        model: [
            (p.suite, p.prompt_id, p.messages) for p in prompts if p.model == model and p.suite != "reference_train"
        ]
        for model in ("base", "adapter")
    }
    assert asked["base"] == asked["adapter"]
    assert len({prompt.key for prompt in prompts}) == len(prompts)
    untold = [prompt for prompt in prompts if prompt.suite == "routing"]
    assert untold and all(turn["role"] == "user" for prompt in untold for turn in prompt.messages)
    shots = [prompt for prompt in prompts if prompt.model == "fewshot"]
    held_out = {row.answer for row in test}
    assert shots
    for prompt in shots:
        assert [turn["role"] for turn in prompt.messages] == ["system", *["user", "assistant"] * SHOTS, "user"]
        assert not held_out & {turn["content"] for turn in prompt.messages}


def test_selection_is_even_and_nested(mix: Path) -> None:
    rows = read_rows(mix / "test.jsonl")
    few, more = stratified(rows, 6, 7), stratified(rows[::-1], 9, 7)
    assert set(Counter(row.persona for row in few).values()) == {2}
    assert more[:6] == few


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"row_id": "a", "persona": "mentor", "messages": [{"role": "user", "content": "x"}]}\n', "utf-8")
    with pytest.raises(PromptError, match=r"test\.jsonl:1: row a does not end"):
        read_rows(path)
    path.write_text('{"row_id": "a"', encoding="utf-8")
    with pytest.raises(PromptError, match=r"test\.jsonl:1: no row"):
        read_rows(path)
