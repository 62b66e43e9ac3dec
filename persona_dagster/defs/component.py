"""The whole graph as one Dagster component: a `dg` project of one's own is a folder whose `defs.yaml` names it."""

import os

import dagster as dg

from persona_dagster.commands.setup import config_problems
from persona_dagster.config.loading import ConfigError
from persona_dagster.defs.assembly import build_defs
from persona_dagster.settings import Settings

CHECKING = "DAGSTER_IS_DEFS_VALIDATION_CLI"  # set by `dg check defs`


class PersonaProject(dg.Component, dg.Model, dg.Resolvable):
    """Posts in, persona models out: assets, checks, jobs, schedules and sensors of a folder of configuration.

    `config_dir` holds recipes/, personas/ and sources/ (relative: to the folder of `defs.yaml`). A file of a packaged
    name takes its place, another adds a recipe, persona or board. Without it: `$PERSONA_HOME/config`.
    """

    config_dir: str | None = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description="Forum posts in, a persona model out: the graph of a folder of configuration.",
            produces=["asset", "asset_check", "job", "schedule", "sensor", "resource"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        settings = Settings()
        if self.config_dir is not None:
            settings = Settings(config_dir=(context.path / self.config_dir).resolve())
        # A running server goes on with what a bad file held before; whoever asks for a check wants to know of it.
        if os.environ.get(CHECKING) and (problems := config_problems(settings)):
            raise ConfigError("\n".join(problems))
        return build_defs(settings)
