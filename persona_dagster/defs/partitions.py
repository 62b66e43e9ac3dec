"""The partitions: boards of a source, and recipes. Both are static keys from configuration.

No asset has a backfill policy: Dagster's default is a run a partition, so boards fail, block and change one by one.
`multi_run(1)` sounds the same and is not: its runs carry a range instead of a key, their checks are stored without a
partition, and what waits for the blocking check of a partition waits for good.
"""

from collections.abc import Sequence

import dagster as dg

from persona_dagster.config.sources import Sources
from persona_dagster.records import Source


def recipe_partitions(names: Sequence[str]) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(names))


def board_partitions(sources: Sources, source: Source) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(sources.partitions(source)))
