"""The adapters to talk to: those trained here, one from the Hub by its id, or the base model alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from persona_dagster.artifacts import RunCard, families
from persona_dagster.config.base_models import base_of_adapter, load_bases
from persona_dagster.config.recipes import Base, Quantisation
from persona_dagster.models.hardware import find_hardware, resolved_recipe
from persona_dagster.models.hub import ADAPTER, HubError, pull
from persona_dagster.settings import Settings


class AdapterError(ValueError):
    """An adapter that cannot be had; the message names it and the cure."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the engine loads: a PEFT folder on its base; no folder: the base alone."""

    name: str  # as chosen and as in the API: persona-v2, persona-v2@1a2b3c4d, base
    title: str
    base: Base
    folder: Path | None = None
    quantisation: Quantisation | None = None
    own_tokenizer: bool = False  # one of others: its tokenizer and template may differ from its base's


def find_adapters(settings: Settings) -> list[Adapter]:
    """All adapters under `adapters_dir`, the newest of each recipe first under the recipe's own name, then `base`."""
    found: list[Adapter] = []
    trained = families(settings.adapters_dir, RunCard.FILE)
    for recipe, versions in sorted(trained.items(), key=lambda pair: pair[0] != settings.recipe):
        newest = versions.latest()
        found += [_read(folder, recipe, folder == newest) for folder in versions.all()]
    return [*found, _bare_base(found, settings)]


def choose(adapters: list[Adapter], recipe: str | None) -> Adapter:
    """The adapter of `recipe`, or the first there is."""
    if recipe is None:
        return adapters[0]
    wanted = recipe.replace("_", "-")
    for adapter in adapters:
        if adapter.name == wanted:
            return adapter
    known = ", ".join(adapter.name for adapter in adapters)
    raise AdapterError(f"no adapter of {recipe!r} here (there are: {known}); train it: make demo, or `lora_adapter`")


def from_hub(repo_id: str, settings: Settings) -> Adapter:
    """The adapter `repo_id` of the Hub, on the base of the entry that lists it, or on the one that it names. Its title
    says so where it is no release of this project, whose manifest its files could be verified against.

    Raises:
        AdapterError: no such adapter, no access, no network, or a file that is not what was released.
    """
    try:
        pulled = pull(repo_id, settings.models_dir / "hub" / repo_id.replace("/", "--"), only=ADAPTER)
    except HubError as error:
        raise AdapterError(f"adapter of the Hub: {error}") from error
    config = json.loads((pulled.folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = base_of_adapter(repo_id, config["base_model_name_or_path"], load_bases(settings.config_dir))
    nf4 = Quantisation(scheme="nf4") if _cuda() and base.full_precision() == base else None
    title = f"{repo_id} ({pulled.commit[:8]}, {'verified' if pulled.verified else 'unverified'})"
    return Adapter(f"hub/{repo_id}", title, base, pulled.folder, nf4, own_tokenizer=True)


def _read(folder: Path, recipe: str, newest: bool) -> Adapter:
    card = RunCard.read(folder)
    base = Base(**card.recipe["base"])
    quantisation = Quantisation(**card.recipe["quantisation"]) if _cuda() else None
    name = recipe.replace("_", "-")
    title = f"{card.recipe['title']} ({card.finished_at[:10]}, {folder.name[:8]})"
    return Adapter(name if newest else f"{name}@{folder.name[:8]}", title, base, folder, quantisation)


def _bare_base(found: list[Adapter], settings: Settings) -> Adapter:
    """The base model of the first adapter; with none trained yet, the one that this machine would train."""
    if found:
        return replace(found[0], name="base", title=f"base only: {found[0].base.model}", folder=None)
    recipe = resolved_recipe(settings.recipe, settings)
    return Adapter(
        "base", f"base only: {recipe.base.model}", recipe.base, None, recipe.quantisation if _cuda() else None
    )


def _cuda() -> bool:
    return find_hardware() != "cpu"
