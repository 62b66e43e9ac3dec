"""The automation rule, and when each site is asked.

Dagster's `eager()` always retrains, and its documented data-version recipe retrains when cleaning yields identical
output, because `will_be_requested` stands in for a change that has not happened. The rule below looks at data
versions that exist, so an unchanged digest stops the flow where it stands.
"""

import zlib

import dagster as dg

from persona_dagster.defs.resources import House
from persona_dagster.records import Source

Condition = dg.AutomationCondition


def only_if_data_changed(*, join: bool = False) -> dg.AutomationCondition:
    """Run when the content upstream or the code changed; once more after a failure, then wait for a change.

    A `join` takes what is there: a board or recipe that was never materialised is absent, not a reason to wait.
    """
    something_changed = (
        Condition.any_deps_match(Condition.data_version_changed())
        | Condition.newly_missing()
        | Condition.code_version_changed()
        | Condition.execution_failed().newly_true()
    ).since(Condition.newly_requested() | Condition.initial_evaluation())
    ready = ~Condition.any_deps_in_progress() & ~Condition.in_progress() & Condition.all_deps_blocking_checks_passed()
    rule = something_changed & ready if join else something_changed & ready & ~Condition.any_deps_missing()
    return rule.with_label("only_if_data_changed")


def on_polite_hours(house: House, source: Source) -> dg.AutomationCondition:
    """Once a night, at an hour when the site is quiet in Taipei and at a minute of the site's own."""
    hour, _ = house.sources.site(source).pace.polite_hours
    minute = zlib.crc32(source.encode()) % 60
    return Condition.on_cron(f"{minute} {hour} * * *", cron_timezone="Asia/Taipei").with_label("polite_hours")


def automation_sensor(house: House) -> dg.AutomationConditionSensorDefinition:
    """Evaluates every condition. On in the sample; off in live until the operator switches it on."""
    live = house.settings.profile == "live"
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.STOPPED if live else dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Carries changes from the archive to the mix, and re-scrapes at night. Training has a policy of "
        "its own: see the sensor `retrain_policy`.",
    )
