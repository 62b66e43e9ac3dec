"""The partitions: boards of a source, and recipes. Both are static keys from configuration."""

import dagster as dg

from persona_dagster.config.recipes import RECIPES
from persona_dagster.config.sources import Sources
from persona_dagster.records import Source

RECIPE_PARTITIONS = dg.StaticPartitionsDefinition(list(RECIPES))

# Boards fail, block and change one by one, so each gets a run, an outcome and a data version of its own.
ONE_RUN_A_PARTITION = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)


def board_partitions(sources: Sources, source: Source) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition(list(sources.partitions(source)))
