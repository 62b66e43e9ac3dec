"""Trace and forget in the UI: two jobs of one op each. What they say is ids and counts, since Dagster keeps it."""

import dagster as dg
from pydantic import Field

from persona_dagster.defs.resources import ProjectResource


class TraceConfig(dg.Config):
    """What is followed, both ways."""

    query: str = Field(
        description="A row_id, pair_id, doc_id, URL, a sentence, or the digest of an adapter, report, mix or release."
    )


class ForgetConfig(dg.Config):
    """What is removed from every store."""

    target: str = Field(
        description="URL, doc_id or author key. A name would stay in this run's configuration: for one use "
        "`persona forget source:name`."
    )
    sure: bool = Field(default=False, description="Forgetting cannot be undone: set it true.")
    yes: bool = Field(default=False, description="Also where more changes than PERSONA_FORGET_LIMIT.")


def build_lineage_jobs(project: ProjectResource) -> list[dg.JobDefinition]:
    return [_trace(project), _forget(project)]


def _trace(project: ProjectResource) -> dg.JobDefinition:
    @dg.op(out=dg.Out(dg.Nothing))
    def follow(context: dg.OpExecutionContext, config: TraceConfig) -> None:
        from persona_dagster.lineage.trace import trace

        found = trace(config.query, project.settings)
        told = dg.MetadataValue.md(found.markdown(texts=False))
        context.add_output_metadata({"kind": found.kind, "trace": told})

    @dg.job(description="Where a row, post, URL, sentence or model came from, and what was made of it.")
    def trace() -> None:
        follow()

    return trace


def _forget(project: ProjectResource) -> dg.JobDefinition:
    @dg.op(out=dg.Out(dg.Nothing), pool="forget")
    def remove(context: dg.OpExecutionContext, config: ForgetConfig) -> None:
        from persona_dagster.lineage.forget import LimitError, forget
        from persona_dagster.lineage.forget_plan import UnknownTargetError

        if config.target.count(":") == 1 and not config.target.startswith("http"):
            raise dg.Failure("a name would stay in this run's log: use `persona forget source:name`, or the author key")
        if not config.sure:
            raise dg.Failure("nothing was touched: set `sure: true`; forgetting cannot be undone", allow_retries=False)
        try:
            most = None if config.yes else project.settings.forget_limit
            report = forget(config.target, project.settings, most=most)
        except (UnknownTargetError, LimitError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.add_output_metadata({"forgotten": dg.MetadataValue.md(report.markdown()), "left": report.left})
        if report.left:
            raise dg.Failure(f"the text still stands in {', '.join(report.left)}", allow_retries=False)

    @dg.job(description="Removes a post or an author from every store, backups and Dagster's own included, for good.")
    def forget() -> None:
        remove()

    return forget
