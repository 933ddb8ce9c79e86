"""The partitions, one per dataset, and the prefix of all keys.

Names of dynamic partitions belong to the whole instance, so that another project's `datasets` would be ours too: hence
the prefix. A project that embeds ours may choose other names (`resources.Project`); these are what modules are written
with, and `definitions` puts the chosen ones in their place.
"""

import dagster as dg

KEY_PREFIX = "hsae"
DATASETS = "hsae_datasets"

datasets = dg.DynamicPartitionsDefinition(name=DATASETS)
