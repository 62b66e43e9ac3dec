"""What the page works with: one engine and one router for all sessions, adapters by name, running answers to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from persona_dagster.artifacts import MixManifest, Versions, families
from persona_dagster.chat.adapters import Adapter, choose, find_adapters, from_hub
from persona_dagster.chat.engine import Answer, Engine
from persona_dagster.chat.http_request_guard import Uploads
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.models.persona_classifier import (
    Classifier,
    Router,
    questions_of_mix,
    questions_of_pool,
    train_classifier,
)
from persona_dagster.settings import Settings


class Chat:
    """The chat over one home. `first` is the adapter that it opens with."""

    def __init__(self, settings: Settings, engine: Engine, router: Router, first: Adapter) -> None:
        self.settings, self.engine, self.router, self.first = settings, engine, router, first
        self.uploads = Uploads()
        self._hub: dict[str, Adapter] = {}
        self._running: dict[str, list[Answer]] = {}

    @classmethod
    def open(cls, settings: Settings, recipe: str | None = None) -> Chat:
        """Loads no model: `engine.load(first)` does.

        Raises:
            AdapterError: no adapter of `recipe` here.
        """
        personas = load_personas(settings.config_dir, settings.accepted_dir)
        first = choose(find_adapters(settings), recipe)
        router = Router(personas, learn_routing(settings, personas, first))
        return cls(settings, Engine(settings.models_dir, personas), router, first)

    @property
    def personas(self) -> Personas:
        return self.router.personas

    def adapter(self, name: str) -> Adapter:
        """By its name here, or by a Hub id, which has a slash in it.

        Raises:
            AdapterError: there is none such, here or on the Hub.
        """
        if "/" not in name:
            return choose(find_adapters(self.settings), name)
        wanted = name.removeprefix("hub/").strip()
        if wanted not in self._hub:
            self._hub[wanted] = from_hub(wanted, self.settings)
        return self._hub[wanted]

    def base_of(self, adapter: Adapter) -> Adapter:
        return Adapter("base", f"base only: {adapter.base.model}", adapter.base, None, adapter.quantisation)

    @contextmanager
    def running(self, session: str, answers: list[Answer]) -> Iterator[None]:
        """While it lasts, `stop(session)` stops these answers; they stop at its end in any case."""
        self._running[session] = answers
        try:
            yield
        finally:
            self.stop(session, answers)

    def stop(self, session: str, only: list[Answer] | None = None) -> None:
        answers = only if only is not None else self._running.get(session, [])
        for answer in answers:
            answer.stop()
        if self._running.get(session) is answers:
            del self._running[session]


def learn_routing(settings: Settings, personas: Personas, adapter: Adapter) -> Classifier | None:
    """The classifier, from all dialogues that may be trained on, else from the newest mix; None before there is any.

    A mix of the sample holds 45 questions, the dialogues behind it 320: the voices are the same in both.
    """
    pool, split = (settings.tables_dir / name / "all.parquet" for name in ("dialogues", "split"))
    if pool.is_file() and split.is_file():
        asked = questions_of_pool(pl.read_parquet(pool), pl.read_parquet(split), personas)
        if (learnt := train_classifier(asked)) is not None:
            return learnt
    mixed = families(settings.mix_dir, MixManifest.FILE)
    for recipe in dict.fromkeys([adapter.name.split("@")[0].replace("-", "_"), settings.recipe, *mixed]):
        mix = Versions(settings.mix_dir / recipe, MixManifest.FILE).latest()
        if mix and (learnt := train_classifier(questions_of_mix(mix, personas))) is not None:
            return learnt
    return None
