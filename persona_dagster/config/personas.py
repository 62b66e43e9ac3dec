"""The personas: who they are, what feeds them, how they are recognised (personas/*.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from persona_dagster.config.loading import Config, ConfigError, Found, at, read_items, read_yaml, validate
from persona_dagster.records import Source

Builder = Literal["re_article", "top_comments", "thread_replies", "qa_notes"]


class Feed(Config):
    """One stream of dialogues into a persona: a builder over some boards."""

    builder: Builder
    sources: tuple[Source, ...] = Field(min_length=1)
    boards: tuple[str, ...] = ()  # empty: all boards of the sources
    hint: float = Field(0.0, ge=0, le=8)  # what coming from here is worth, in nats on top of the voice
    min_score: int | None = None  # likes, or pushes minus boos, of the answer
    answer_chars: tuple[int, int] = (8, 1200)
    question_chars: tuple[int, int] = (4, 2000)
    per_question: int = Field(3, ge=1)  # answers taken for one question, best first


Line = tuple[str, str]  # question, answer


class Persona(Config):
    """`examples` are lines that it would say, `near_misses` lines that come close and are not its own: its voice is
    learned from both. `questions` are what it is asked: the router learns from them."""

    tag: str = Field(pattern=r"^\[[^\[\]]{2,20}\]$")
    aliases: tuple[str, ...] = ()  # other spellings of the tag seen in the wild
    title: str  # for people, English
    system_prompt: str = Field(min_length=1)
    feeds: tuple[Feed, ...] = Field(min_length=1)
    examples: tuple[Line, ...] = Field(min_length=5)
    near_misses: tuple[Line, ...] = ()
    questions: tuple[str, ...] = Field(min_length=1)
    probes: tuple[str, ...] = Field(min_length=1)  # prompts for sample generations and the chat's examples
    color: str = Field(pattern=r"^#[0-9a-f]{6}$")


class Personas(Config):
    personas: dict[str, Persona] = Field(min_length=1)


def find_personas(config_dir: Path, accepted: Path | None = None) -> Found[Persona]:
    """Every persona, and what is wrong with the files of others. Of two with one tag the first has it."""
    taken: dict[str, str] = {}

    def parse(path: Path) -> Persona:
        persona = validate(Persona, read_yaml(path), path)
        if (other := taken.setdefault(persona.tag, path.stem)) != path.stem:
            raise ConfigError(f"{at(path, 'tag')}: {persona.tag} is the tag of {other} too; choose another")
        return persona

    return read_items("personas", parse, config_dir, accepted)


def load_personas(config_dir: Path, accepted: Path | None = None) -> Personas:
    """All personas. With `accepted`, one whose file is bad goes on as it last was; without, raises `ConfigError`."""
    found = find_personas(config_dir, accepted)
    if found.problems and accepted is None:
        raise next(iter(found.problems.values()))
    return Personas(personas=found.items)
