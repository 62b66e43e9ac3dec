"""The graph, put together: settings and configuration read once, and everything built from them.

Loading writes nothing, calls no network, resolves no secret, and imports neither torch nor a browser.
"""

from __future__ import annotations

import warnings

import dagster as dg
from dagster_duckdb import DuckDBResource

from persona_dagster.corpus.tables import MEMORY
from persona_dagster.defs.automation import automation_sensor
from persona_dagster.defs.checks import build_checks
from persona_dagster.defs.configuration import build_config_assets
from persona_dagster.defs.corpus import build_corpus_assets
from persona_dagster.defs.dialogue import build_dialogue_assets
from persona_dagster.defs.engines import ProgramRunner, build_engine, build_executor
from persona_dagster.defs.jobs import build_jobs
from persona_dagster.defs.model import build_model_assets
from persona_dagster.defs.raw import build_raw_assets
from persona_dagster.defs.release import build_release_assets
from persona_dagster.defs.resources import ProjectResource, TableIOManager
from persona_dagster.defs.schedules import build_schedules
from persona_dagster.defs.sensors import build_sensors
from persona_dagster.defs.trace_and_forget import build_lineage_jobs
from persona_dagster.settings import Settings

# Backfill policies, data versions and checks by partition are marked beta or preview in Dagster 1.13; tests pin them.
warnings.simplefilter("ignore", dg.BetaWarning)
warnings.simplefilter("ignore", dg.PreviewWarning)


def build_defs(
    settings: Settings | None = None, *, engine: ProgramRunner | None = None, project: ProjectResource | None = None
) -> dg.Definitions:
    """The whole graph for one set of settings. Tests hand in settings, engine or project of their own; nothing is
    patched."""
    settings = project.settings if project else settings or Settings()
    project = project or ProjectResource.open(settings)
    jobs = build_jobs()
    return dg.Definitions(
        assets=[
            *build_config_assets(project),
            *build_raw_assets(project),
            *build_corpus_assets(project),
            *build_dialogue_assets(project),
            *build_model_assets(project, engine or build_engine(settings)),
            *build_release_assets(project),
        ],
        asset_checks=build_checks(project),
        jobs=[*jobs, *build_lineage_jobs(project)],
        schedules=build_schedules(project, jobs),
        sensors=[automation_sensor(project, jobs), *build_sensors(project, jobs)],
        resources={
            "project": project,
            "tables": TableIOManager(project.tables()),
            "duckdb": DuckDBResource(database=":memory:", connection_config={"memory_limit": MEMORY}),
        },
        executor=build_executor(settings),
    )
