"""What Dagster's daemon knows, asked from our own code: what conditions want, and what stands for its present inputs.

Private names of Dagster (1.13) are imported here and in launcher.py, nowhere else; tests pin what they rely on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.data_version import (
    SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD,
    CachingStaleStatusResolver,
    StaleStatus,
)
from dagster._core.definitions.declarative_automation.serialized_objects import AutomationConditionEvaluation
from dagster._core.loader import LoadingContextForTest
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickStatus
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)


def freshness(graph: BaseAssetGraph, instance: dg.DagsterInstance) -> Callable[[str, str | None], bool]:
    """Whether what is stored of an asset partition has the code and data versions that stand upstream now."""
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))

    def fresh(asset: str, partition: str | None) -> bool:
        key = dg.AssetKey(asset)
        for parent in graph.get(key).parent_keys:  # Dagster does not look at more partitions than this
            partitions = graph.get(parent).partitions_def
            if partitions and partitions.get_num_partitions() >= SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD:
                return False
        return resolver.get_status(key, partition) == StaleStatus.FRESH

    return fresh


@dataclass(frozen=True)
class Tick:
    """What the conditions of all assets ask for now, and why; `cursor` goes into the next tick."""

    requests: Sequence[dg.RunRequest]
    evaluations: Sequence[AutomationConditionEvaluation]
    cursor: str
    fresh: Callable[[str, str | None], bool]


def evaluate_conditions(context: dg.SensorEvaluationContext) -> Tick:
    """As Dagster's own automation sensor does, which can launch no named job: it leaves every run without one."""
    repository = context.repository_def
    assert repository is not None
    graph = repository.asset_graph
    cursor = asset_daemon_cursor_from_instigator_serialized_cursor(context.cursor, graph)
    evaluation = AutomationTickEvaluationContext(
        evaluation_id=cursor.evaluation_id,
        instance=context.instance,
        asset_graph=graph,
        cursor=cursor,
        materialize_run_tags={},
        observe_run_tags={},
        auto_observe_asset_keys=set(),
        asset_selection=dg.AssetSelection.all(),
        emit_backfills=False,  # a run a partition: one board's failure is its own
        logger=context.log,
    )
    requests, after, evaluations = evaluation.evaluate()
    return Tick(
        requests,
        evaluations,
        asset_daemon_cursor_to_instigator_serialized_cursor(after),
        freshness(graph, context.instance),
    )


def switched(instance: dg.DagsterInstance) -> Sequence[InstigatorState]:
    """What is stored of schedules and sensors: those that somebody switched, or that ran."""
    return instance.all_instigator_state() if instance.schedule_storage else []


def is_switched_on(instance: dg.DagsterInstance, name: str) -> bool:
    return any(state.name == name and state.status is InstigatorStatus.RUNNING for state in switched(instance))


def failing_ticks(instance: dg.DagsterInstance) -> dict[str, str]:
    """The schedules and sensors whose last tick failed, by name, and why."""
    over = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
    found = {}
    for state in switched(instance):
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1, statuses=over):
            if tick.status is TickStatus.FAILURE:
                found[state.name] = (
                    (tick.error.cause or tick.error).message.strip() if tick.error else "no reason given"
                )
    return found
