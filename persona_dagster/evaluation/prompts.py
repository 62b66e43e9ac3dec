"""Which prompts a model is asked: test rows, and the probes written for this project (probes/*.yaml).

Selection is by keyed hash and stratified by persona, so that every recipe of one test set meets the same prompts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Evaluation
from persona_dagster.digest import keyed_hash
from persona_dagster.models.chat_format import Message, with_persona

PROBES = Path(__file__).parent / "probes"
SHOTS = 3  # examples in the few-shot baseline
FEWEST_SHOWN = 21  # test prompts of the few-shot baseline, which the adapter has to beat: under 8 nothing is judged
SHOT_CHARS = 120  # of an example; whole ones first
TRAIN_PROMPTS = 3  # a persona: train questions asked again, to see whether the model recites their answers


class PromptError(ValueError):
    """A mix that cannot be evaluated; the message names the file and the row."""


@dataclass(frozen=True)
class MixRow:
    """A row of train.jsonl or test.jsonl."""

    row_id: str
    persona: str
    messages: list[Message]

    @property
    def prompt(self) -> list[Message]:
        return self.messages[:-1]

    @property
    def question(self) -> str:
        return question_of(self.prompt)

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    @property
    def tagged(self) -> bool:
        return self.messages[0]["role"] == "system"


@dataclass(frozen=True)
class Prompt:
    """One thing to ask one model. Fields are those of `records.GENERATION_SCHEMA`."""

    prompt_id: str
    suite: str
    model: str
    asked: str
    tagged: bool
    messages: list[Message]
    reference: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.model, self.suite, self.prompt_id)


@dataclass(frozen=True)
class Choice:
    """A knowledge probe: a question, its answer, wrong answers, the sentence that holds one of them (`{}`), and
    what a written answer must hold (regex)."""

    id: str
    lang: str
    prompt: str
    answer: str
    wrong: tuple[str, ...]
    say: str
    accept: str
    level: int = 1  # 1 what any model knows, 2 what a small one may, 3 where small ones guess


def read_rows(path: Path) -> list[MixRow]:
    """The rows of a mix file. Raises PromptError naming the line that is no dialogue ending in an answer."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
                row = MixRow(value["row_id"], value["persona"], value["messages"])
                whole = len(row.messages) >= 2 and row.messages[-1]["role"] == "assistant"
            except (ValueError, KeyError, TypeError) as error:
                raise PromptError(f"{path}:{number}: no row of a mix ({error}); write the mix again") from error
            if not whole:
                raise PromptError(f"{path}:{number}: row {row.row_id} does not end with an answer; write the mix again")
            rows.append(row)
    return rows


def question_of(messages: Sequence[Mapping[str, str]]) -> str:
    """The last thing the user said."""
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "")


def stratified(rows: Iterable[MixRow], count: int, seed: int) -> list[MixRow]:
    """At most `count` rows, as equal over personas as they allow, in a stable order."""
    by_persona: dict[str, list[MixRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: keyed_hash(str(seed), row.row_id)):
        by_persona[row.persona].append(row)
    queues = [by_persona[persona] for persona in sorted(by_persona)]
    taken: list[MixRow] = []
    depth = 0
    while len(taken) < count and any(len(queue) > depth for queue in queues):
        taken += [queue[depth] for queue in queues if len(queue) > depth]
        depth += 1
    return taken[:count]


def part(limit: int | None, of: int) -> int | None:
    """`limit` / `of`, rounded up; no limit stays none."""
    return None if limit is None else -(-limit // of)


@cache
def load_probes(name: str) -> Any:
    """probes/<name>.yaml as written; nobody changes it."""
    return yaml.safe_load((PROBES / f"{name}.yaml").read_text(encoding="utf-8"))


def knowledge(limit: int | None) -> list[Choice]:
    """The knowledge probes in an order that mixes levels and languages, so that the first few are a fair part."""
    probes = [Choice(**{**value, "wrong": tuple(value["wrong"])}) for value in load_probes("knowledge")]
    return sorted(probes, key=lambda probe: keyed_hash("knowledge", probe.id))[:limit]


def routing(personas: Personas, limit: int | None) -> list[tuple[str, str, str]]:
    """(id, persona, text) of the untagged prompts, at most `limit` in all, personas in turn."""
    probes = {key: texts for key, texts in load_probes("routing").items() if key in personas.personas}
    deepest = max((len(texts) for texts in probes.values()), default=0)
    ordered = [
        (f"routing-{persona}-{place:02d}", persona, texts[place])
        for place in range(deepest)
        for persona, texts in probes.items()
        if place < len(texts)
    ]
    return ordered[:limit]


def contradictions(personas: Personas, limit: int | None) -> list[tuple[str, str, str]]:
    """(id, asked persona, text) of the prompts whose tag contradicts their topic."""
    probes = [probe for probe in load_probes("contradiction") if probe["asked"] in personas.personas]
    return [(f"contradiction-{n:02d}", probe["asked"], probe["prompt"]) for n, probe in enumerate(probes)][:limit]


def few_shot(row: MixRow, train: Sequence[MixRow], personas: Personas) -> list[Message]:
    """The row's question behind its persona's system message and `SHOTS` short train examples of that voice."""
    persona = personas.personas[row.persona]
    pool = [other for other in train if other.persona == row.persona and other.question and len(other.answer) > 8]
    pool.sort(key=lambda other: (max(len(other.question), len(other.answer)) > SHOT_CHARS, other.row_id))
    turns: list[Message] = []
    for shot in pool[:SHOTS]:
        turns += [
            {"role": "user", "content": shot.question[:SHOT_CHARS]},
            {"role": "assistant", "content": shot.answer[:SHOT_CHARS]},
        ]
    return with_persona([*turns, {"role": "user", "content": row.question}], persona, tagged=True)


def make_prompts(personas: Personas, train: list[MixRow], test: list[MixRow], spec: Evaluation) -> list[Prompt]:
    """Everything to ask: base and adapter side by side, and the few-shot baseline on a third of the test prompts,
    or on `FEWEST_SHOWN`.

    With `max_probes` n: n routing prompts, n/2 contradictions, n/6 knowledge questions.
    """
    limit = spec.max_probes
    voiced = any(row.persona in personas.personas for row in test)
    tested = stratified(test, spec.max_rows, spec.seed)
    asked: list[tuple[str, str, str, bool, list[Message], str | None]] = [
        (row.row_id, "test", row.persona, row.tagged, row.prompt, row.answer) for row in tested
    ]
    if voiced:
        for key, persona in personas.personas.items():
            for n, text in enumerate(persona.probes[:limit]):
                turns = with_persona([{"role": "user", "content": text}], persona, tagged=True)
                asked.append((f"probe-{key}-{n}", "probe", key, True, turns, None))
        for probe_id, key, text in routing(personas, limit):
            asked.append((probe_id, "routing", key, False, [{"role": "user", "content": text}], None))
        for probe_id, key, text in contradictions(personas, part(limit, 2)):
            turns = with_persona([{"role": "user", "content": text}], personas.personas[key], tagged=True)
            asked.append((probe_id, "contradiction", key, True, turns, None))
    asked += [
        (probe.id, "knowledge", "general", False, [{"role": "user", "content": probe.prompt}], None)
        for probe in knowledge(part(limit, 6))
    ]
    prompts = [
        Prompt(prompt_id, suite, model, key, tagged, turns, reference)
        for model in ("base", "adapter")
        for prompt_id, suite, key, tagged, turns, reference in asked
    ]
    kinds = len({row.persona for row in train})
    prompts += [
        Prompt(row.row_id, "reference_train", "adapter", row.persona, row.tagged, row.prompt, row.answer)
        for row in stratified(train, TRAIN_PROMPTS * kinds, spec.seed)
    ]
    speaking = [row for row in tested if row.persona in personas.personas]
    prompts += [
        Prompt(row.row_id, "test", "fewshot", row.persona, True, few_shot(row, train, personas), row.answer)
        for row in stratified(speaking, max(FEWEST_SHOWN, -(-len(tested) // 3)), spec.seed)
    ]
    return prompts
