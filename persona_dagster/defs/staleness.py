"""Whether an asset partition stands for its present inputs: Dagster's own answer, the one that the UI shows.

Private names of Dagster (1.13) are imported here and in launcher.py, nowhere else; tests pin what they rely on.
"""

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest


def is_fresh(defs: dg.Definitions, instance: dg.DagsterInstance, asset: str, partition: str | None) -> bool:
    """True when the stored materialisation has the code and the data versions that stand upstream now."""
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return resolver.get_status(dg.AssetKey(asset), partition) == StaleStatus.FRESH
