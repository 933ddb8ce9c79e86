"""Run some stages of one dataset with the chosen executor: python -m hsae_dagster_tests.live.launch DATASET STAGE...

What `dg launch` does, without the minute it takes to say so.
"""

import sys

import dagster as dg

from hsae_dagster.definitions import defs
from hsae_dagster.orchestration.project import DATASETS
from hsae_dagster_tests.assets.workspace import asset_key


def analyse() -> dg.JobDefinition:
    return defs.resolve_job_def("analyse_dataset")


if __name__ == "__main__":
    dataset, *stages = sys.argv[1:]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(DATASETS, [dataset])
        done = dg.execute_job(
            dg.reconstructable(analyse),
            instance=instance,
            tags={"dagster/partition": dataset},
            asset_selection=[asset_key(stage) for stage in stages],
            raise_on_error=False,
        )
        sys.exit(0 if done.success else 1)
