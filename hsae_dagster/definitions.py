"""The Definitions of a project: assets under their keys, in their groups, with everything that runs them.

Wiring only: every part is defined in its own module, with plain names. Here they are given those of the project
(`resources.Project`: key prefix, name of the partitions), owners and tags, the rule of refreshing and links to code.
"""

import gc
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dagster as dg


@contextmanager
def _keeping() -> Iterator[None]:
    """Collect no garbage meanwhile: what is loaded stays, and to walk all of Dagster again and again takes a fourth."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


with _keeping():
    from hsae_dagster.assets.activations import activations
    from hsae_dagster.assets.annotation_matrix import annotation_matrix
    from hsae_dagster.assets.automation import (
        batch_answers,
        dataset_arrivals,
        nightly,
        refresh_condition,
        refresh_sensor,
        watch,
    )
    from hsae_dagster.assets.catalog import dataset_catalog, labelled_texts, overview
    from hsae_dagster.assets.corpus import corpus
    from hsae_dagster.assets.embeddings import embeddings
    from hsae_dagster.assets.evaluation_report import evaluation_report
    from hsae_dagster.assets.hypothesis_card import hypothesis_card
    from hsae_dagster.assets.interpretations import interpretations
    from hsae_dagster.assets.sae_checkpoints import sae_checkpoints
    from hsae_dagster.assets.selected_neurons import selected_neurons
    from hsae_dagster.orchestration.executors import choose_executor, lost_runs
    from hsae_dagster.orchestration.project import SENSORS, WEBHOOK, ModelServer, Project, RunSettings

# As pyproject.toml and workspace.yaml name this code location: runs are known by it.
LOCATION = "hsae_dagster"
JOB = "analyse_dataset"

# The flow from left to right, as the graph draws it.
_STAGES: dict[str, Sequence[dg.AssetsDefinition]] = {
    "texts": [corpus, embeddings],
    "model": [sae_checkpoints, activations, selected_neurons],
    "hypotheses": [interpretations, annotation_matrix, evaluation_report],
}
# Written by others: a sensor, and the step of `evaluation_report`.
_WRITTEN = {"texts": labelled_texts, "hypotheses": hypothesis_card}
_CATALOG = [dataset_catalog, overview]
Asset = TypeVar("Asset", dg.AssetsDefinition, dg.AssetSpec)


@dataclass(frozen=True)
class Manner:
    """How a project shows and runs its assets, beside their names."""

    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    sensors: Sequence[str] = SENSORS

    @staticmethod
    def here() -> "Manner":
        """As HSAE_OWNERS (comma-separated) and HSAE_TAGS (`key=value`, comma-separated) say."""
        owners, tags = (_listed(os.environ.get(name, "")) for name in ("HSAE_OWNERS", "HSAE_TAGS"))
        pairs = (tag.partition("=") for tag in tags)
        return Manner(owners, {key.strip(): value.strip() for key, _, value in pairs})


def stages_of(project: Project, manner: Manner) -> list[dg.AssetsDefinition]:
    """The eight stages of a dataset in their order, with the rule by which they are refreshed."""
    condition = refresh_condition(
        [project.key(stage.key.path[-1]) for stages in _STAGES.values() for stage in stages],
        new_too=project.refresh_new,
    )
    placed = [_placed(stage, group, project, manner) for group, stages in _STAGES.items() for stage in stages]
    if "refresh" not in manner.sensors:  # or Dagster would add a sensor of its own for the rule
        return placed
    return list(dg.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition), placed))


def project_definitions(
    project: Project, manner: Manner, executor: dg.ExecutorDefinition | None = None
) -> dg.Definitions:
    """Assets, checks, job, sensors and schedule of a project, shown in a manner.

    Without an executor, the job has Dagster's default, or the one of whatever it is merged into.
    """
    stages = stages_of(project, manner)
    written = [_placed(spec, group, project, manner) for group, spec in _WRITTEN.items()]
    catalog = [_placed(asset, "catalog", project, manner) for asset in _CATALOG]
    keys = [stage.key for stage in stages]
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*keys),
        description="Every stage for one dataset, from its files to its report.",
        executor_def=executor,
    )
    with warnings.catch_warnings():
        # Links to code and rules of our own are marked beta; the constraints file pins the version they were tried on.
        warnings.simplefilter("ignore", dg.BetaWarning)
        automatic = {
            each.name: each
            for each in (batch_answers, dataset_arrivals, lost_runs, refresh_sensor(keys), watch, nightly)
        }
        assets = dg.with_source_code_references([*written, *catalog, *stages])
    chosen = [each for name, each in automatic.items() if name in manner.sensors]
    return dg.Definitions(
        assets=assets,
        jobs=[job],
        schedules=[each for each in chosen if isinstance(each, dg.ScheduleDefinition)],
        sensors=[each for each in chosen if isinstance(each, dg.SensorDefinition)],
        resources=_resources(project),
        executor=executor,
    )


def _resources(project: Project) -> dict[str, Project | ModelServer | Any]:
    """What assets (`project`) and sensors (`folders`) are given; only a run is told anything, in its run config."""
    server, told = ModelServer.here(), RunSettings.configure_at_launch()
    late = ("webhook", "model_server", "run_settings")
    plain = {name: getattr(project, name) for name in Project.model_fields if name not in late}
    webhook = dg.EnvVar(WEBHOOK) if os.environ.get(WEBHOOK) else project.webhook
    return {
        "project": Project(**plain, model_server=server, run_settings=told),
        # An address that may hold a secret, so that the UI shows the variable alone.
        "folders": Project(**plain, webhook=webhook, model_server=server),
        "model_server": server,
        "run_settings": told,
    }


def _placed(asset: Asset, group: str, project: Project, manner: Manner) -> Asset:
    """An asset under its key in this project, with its group, partitions, owners and tags."""

    def place(spec: dg.AssetSpec) -> dg.AssetSpec:
        spec = spec.replace_attributes(group_name=group)
        if isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition):
            name = project.cards_name if spec.key.path[-1] == "hypothesis_card" else project.partitions_name
            spec = spec.replace_attributes(partitions_def=dg.DynamicPartitionsDefinition(name=name))
        return spec.merge_attributes(owners=list(manner.owners), tags=dict(manner.tags))

    names = [spec.key.path[-1] for spec in _WRITTEN.values()]
    for several in (*_STAGES.values(), _CATALOG):
        names += [each.key.path[-1] for each in several]
    renamed = {dg.AssetKey(name): project.key(name) for name in names}
    if isinstance(asset, dg.AssetSpec):
        deps = [dg.AssetDep(renamed[dep.asset_key], partition_mapping=dep.partition_mapping) for dep in asset.deps]
        return place(asset.replace_attributes(key=renamed[asset.key], deps=deps))
    return asset.with_attributes(asset_key_replacements=renamed).map_asset_specs(place)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


STAGES = stages_of(Project.here(), Manner.here())
defs = project_definitions(Project.here(), Manner.here(), choose_executor())
