"""The partitions: one per dataset, and one per dataset and rank for hypothesis cards."""

import dagster as dg

DATASETS = "datasets"
MOST_RANKS = 100

datasets = dg.DynamicPartitionsDefinition(name=DATASETS)

# Ranks are counted from 0, as in the tables; two digits sort well in the UI.
ranks = dg.StaticPartitionsDefinition([f"h{rank:02d}" for rank in range(MOST_RANKS)])

cards = dg.MultiPartitionsDefinition({"dataset": datasets, "hypothesis": ranks})


def card_partition(dataset: str, rank: int) -> dg.MultiPartitionKey:
    """Partition key of the card of one hypothesis."""
    return dg.MultiPartitionKey({"dataset": dataset, "hypothesis": f"h{rank:02d}"})
