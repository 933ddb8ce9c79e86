"""`HsaeComponent`: the whole pipeline inside somebody else's Dagster project, from a few lines of YAML."""

from pathlib import Path

import dagster as dg
from pydantic import ConfigDict, Field

from hsae_dagster.orchestration.project import DATASETS, KEY_PREFIX, SENSORS, Sensor


class HsaeComponent(dg.Component, dg.Model, dg.Resolvable):
    """What in labelled texts predicts an outcome: texts to tested hypotheses, one partition per dataset.

    Put one into a project: `dg scaffold defs hsae_dagster.HsaeComponent texts`. Datasets are folders, each with its
    dataset.yaml, and become partitions by themselves; docs/dataset-yaml.md lists what may stand in that file.
    """

    model_config = ConfigDict(extra="forbid")

    data_dir: str = Field("data", description="One folder per dataset; relative to the project's folder, or absolute.")
    results_dir: str = Field("results", description="Everything that is made; relative to the project's, or absolute.")
    store_url: str = Field("", description="Object store that several machines share: `s3://bucket/prefix`.")
    records_url: str = Field("", description="Database that several machines share: `postgresql://host/name`.")
    key_prefix: str = Field(KEY_PREFIX, description="First part of every asset's key.", pattern="^[A-Za-z0-9_]+$")
    partitions_name: str = Field(
        DATASETS, description="Name of the partitions, one per dataset; no other location of the instance may use it."
    )
    sensors: list[Sensor] = Field(
        default=list(SENSORS),
        description="What may run by itself. `dataset_arrivals`, `lost_runs` and `watch` are on from the start "
        "and cost nothing; the others start runs and are off until someone switches them on.",
    )
    owners: list[str] = Field([], description="Of every asset: `team:name` or an e-mail address.")
    tags: dict[str, str] = Field({}, description="Of every asset.")
    refresh_new: bool = Field(
        False, description="Whether `refresh` and `nightly` also run datasets that nobody has run yet."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Assets, checks, job, sensors and schedule under the chosen names."""
        from hsae_dagster.definitions import Manner, project_definitions
        from hsae_dagster.orchestration.project import Project

        root = Path(context.project_root)
        project = Project(
            data_dir=str(root / self.data_dir),
            results_dir=str(root / self.results_dir),
            store_url=self.store_url,
            records_url=self.records_url,
            key_prefix=self.key_prefix,
            partitions_name=self.partitions_name,
            refresh_new=self.refresh_new,
        )
        return project_definitions(project, Manner(self.owners, self.tags, self.sensors))
