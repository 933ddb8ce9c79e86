"""What runs by itself.

Belongs here: sensors, schedules, jobs. Does not belong here: what a dataset is (`dataset.discovery`). Finding datasets
costs nothing and runs by default; nothing here starts a run unasked.
"""

import json

import dagster as dg

from hsae_dagster.assets.dataset_catalog import scan
from hsae_dagster.assets.stage import GROUP
from hsae_dagster.partitions import DATASETS, datasets
from hsae_dagster.resources import Project

analyse_dataset = dg.define_asset_job(
    "analyse_dataset",
    selection=dg.AssetSelection.groups(GROUP) - dg.AssetSelection.assets("labelled_texts", "hypothesis_card"),
    description="Every stage for one dataset, from its files to its report.",
)


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def dataset_arrivals(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult | dg.SkipReason:
    """A new folder under data/ becomes a partition; changed files become a new data version of `labelled_texts`."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    found, problems = scan(project)
    versions = {dataset.name: version for dataset, version in found}
    for problem in problems:
        context.log.warning(problem)
    changed = [name for name, version in versions.items() if seen.get(name) != version]
    known = set(context.instance.get_dynamic_partitions(DATASETS))
    new = [name for name in versions if name not in known]
    if not changed and not new:
        trouble = f"; not usable: {' '.join(problems)}" if problems else ""
        return dg.SkipReason(f"none of {len(versions)} datasets changed{trouble}")
    return dg.SensorResult(
        dynamic_partitions_requests=[datasets.build_add_request(new)] if new else [],
        asset_events=[
            dg.AssetMaterialization("labelled_texts", partition=name, tags={"dagster/data_version": versions[name]})
            for name in changed
        ],
        cursor=json.dumps({**seen, **versions}, sort_keys=True),
    )
