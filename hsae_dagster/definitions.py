"""The one Definitions object. Wiring only: every part is defined in its own module."""

import dagster as dg

from hsae_dagster.assets.activations import activations
from hsae_dagster.assets.annotation_matrix import annotation_matrix
from hsae_dagster.assets.corpus import corpus
from hsae_dagster.assets.dataset_catalog import dataset_catalog, labelled_texts
from hsae_dagster.assets.embeddings import embeddings
from hsae_dagster.assets.evaluation_report import evaluation_report
from hsae_dagster.assets.hypothesis_card import hypothesis_card
from hsae_dagster.assets.interpretations import interpretations
from hsae_dagster.assets.overview import overview
from hsae_dagster.assets.sae_checkpoints import sae_checkpoints
from hsae_dagster.assets.selected_neurons import selected_neurons
from hsae_dagster.automation import analyse_dataset, dataset_arrivals, nightly, refresh, refreshed
from hsae_dagster.batch_answers import batch_answers
from hsae_dagster.executors import choose_executor
from hsae_dagster.lost_runs import lost_runs
from hsae_dagster.resources import Project

# As pyproject.toml and workspace.yaml name this code location: runs are known by it.
LOCATION = "hsae_dagster"

STAGES = refreshed(
    [
        corpus,
        embeddings,
        sae_checkpoints,
        activations,
        selected_neurons,
        interpretations,
        annotation_matrix,
        evaluation_report,
    ]
)

defs = dg.Definitions(
    assets=[labelled_texts, *STAGES, hypothesis_card, dataset_catalog, overview],
    jobs=[analyse_dataset],
    schedules=[nightly],
    sensors=[batch_answers, dataset_arrivals, lost_runs, refresh],
    resources={"project": Project.here()},
    executor=choose_executor(),
)
