"""The partitions, one per dataset, the prefix of all keys, and the names of what runs by itself.

Names of dynamic partitions belong to the whole instance, so that another project's `datasets` would be ours too: hence
the prefix. A project that embeds ours may choose other names (`resources.Project`); these are what modules are written
with, and `definitions` puts the chosen ones in their place.
"""

from typing import Literal, get_args

import dagster as dg

KEY_PREFIX = "hsae"
DATASETS = "hsae_datasets"

Sensor = Literal["dataset_arrivals", "lost_runs", "watch", "refresh", "batch_answers", "nightly"]
# What a project may have run by itself.
SENSORS: tuple[Sensor, ...] = get_args(Sensor)

datasets = dg.DynamicPartitionsDefinition(name=DATASETS)
