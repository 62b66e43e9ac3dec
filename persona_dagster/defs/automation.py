"""The automation rule.

Dagster's `eager()` always retrains, and its documented data-version recipe retrains when cleaning yields identical
output, because `will_be_requested` stands in for a change that has not happened. The rule below looks at data
versions that exist, so an unchanged digest stops the flow where it stands.
"""

from collections.abc import Callable

import dagster as dg

from persona_dagster.defs.jobs import Jobs, job_of
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.staleness import evaluate_conditions, is_switched_on

# Dagster adds it, switched off, wherever a plain sensor evaluates the conditions. Its runs have no name.
DAGSTERS_OWN = "default_automation_condition_sensor"
Condition = dg.AutomationCondition


def only_if_data_changed(*, join: bool = False, follow: tuple[str, ...] = ()) -> dg.AutomationCondition:
    """Run when the content upstream or the code changed; once more after a failure, then wait for a change.

    A `join` takes what is there: a board or recipe that was never materialised is absent, not a reason to wait.
    With `follow`, only changes of those upstream assets count: an evaluation follows its adapter, not each night's mix.
    """
    news = Condition.any_deps_match(Condition.data_version_changed())
    changed = (
        (news.allow(dg.AssetSelection.assets(*follow)) if follow else news)
        | Condition.newly_missing()
        | Condition.code_version_changed()
    )
    asked = Condition.newly_requested()
    # A tick sees the request of the tick before it. A change that came in between is not what was asked for.
    answered = asked & ~changed
    # Between two ticks a run can be over, so a failure cannot be an event that its own request would reset: count.
    asked_once = asked.since(changed)
    asked_twice = (asked & ~asked_once.newly_true()).since(changed)
    once_more = Condition.execution_failed() & ~asked_twice
    something_changed = changed.since(answered | Condition.initial_evaluation()) | once_more
    # What is upstream comes first, also what is about to be requested for the same news: a mix would be made of the new
    # dialogues and the old split, and again of both. (`will_be_requested()` sees only what can run in the same run.)
    settled = ~Condition.any_deps_in_progress() & ~Condition.any_deps_match(news)
    # A red check holds what is behind it, and what would be made without that: a mix of new prompts beside the
    # dialogues that had to wait.
    green = Condition.all_deps_blocking_checks_passed()
    ready = settled & ~Condition.in_progress() & green & ~Condition.any_deps_match(~green)
    # `any_deps_missing()` forgives what is requested in the same tick, but that may be another run: a mix would start
    # beside the first split. So what is missing is waited for.
    whole = ~Condition.any_deps_match(Condition.missing())
    rule = something_changed & ready if join else something_changed & ready & whole
    return rule.with_label("only_if_data_changed")


def automation_sensor(project: ProjectResource, jobs: Jobs) -> dg.SensorDefinition:
    """Evaluates every condition. On in the sample; off in live until the operator switches it on."""
    live = project.settings.profile == "live"

    @dg.sensor(
        name="automation",
        jobs=jobs,
        default_status=dg.DefaultSensorStatus.STOPPED if live else dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Carries changes from the archive to the mix. Training has a policy of its own: see the sensor "
        "`retrain_policy`.",
    )
    def automation(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if is_switched_on(context.instance, DAGSTERS_OWN):
            return dg.SkipReason(f"{DAGSTERS_OWN} is switched on: it starts the same runs. Switch one of the two off.")
        tick = evaluate_conditions(context)
        return dg.SensorResult(
            run_requests=[one for request in tick.requests for one in by_job(request, tick.fresh)],
            cursor=tick.cursor,
            automation_condition_evaluations=tick.evaluations,
        )

    return automation


def by_job(request: dg.RunRequest, fresh: Callable[[str, str | None], bool]) -> list[dg.RunRequest]:
    """What the conditions ask for as runs of the named jobs, without what somebody has just run by hand.

    A condition sees that something upstream changed, not that the asset was made of it since: Dagster's own staleness
    knows.
    """
    wanted: dict[str, list[dg.AssetKey]] = {}
    for key in request.asset_selection or []:
        asset = key.to_user_string()
        if not fresh(asset, request.partition_key):
            wanted.setdefault(job_of(asset), []).append(key)
    return [
        dg.RunRequest(job_name=job, asset_selection=keys, partition_key=request.partition_key, tags=request.tags)
        for job, keys in wanted.items()
    ]
