"""Guidance by the label does not spoil the tests: from guided training to verdicts, on labels that mean nothing.

Everything between labels and verdicts is run as the stages run it: guided autoencoder, selection, holdout tests, Holm.
A neuron stands for its own concept (fired or not), which is the strictest case: words could only lose a leak.
"""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.hypothesis import verdict
from hsae_dagster.core.inference.effects import benjamini_hochberg, holm, test_hypotheses
from hsae_dagster.core.observations import HoldoutDesign, firing_separation, observation_matrix
from hsae_dagster.core.sae.guidance import guidance, labelled_rows
from hsae_dagster.core.sae.model import SAEConfig, encode
from hsae_dagster.core.sae.training import train_sae
from hsae_dagster.core.selection.methods import select_neurons
from hsae_dagster_tests.core.simulated_designs import at_most

SPLITS = ("train", "validation", "holdout")
CLUSTERS, SIZE, D = 120, 6, 128
IDS = pl.Series([f"t{i:04d}" for i in range(CLUSTERS * SIZE)])


def texts(rng):
    """Embeddings with topics, alike within clusters, and each text's cluster and split."""
    cluster = np.repeat(np.arange(CLUSTERS), SIZE)
    topics = rng.normal(size=(8, D))
    habits = rng.dirichlet(np.full(8, 0.5), size=CLUSTERS)
    topic = np.array([rng.choice(8, p=habits[c]) for c in cluster])
    vectors = (topics[topic] + 0.7 * rng.normal(size=(len(cluster), D))).astype(np.float32)
    return vectors, cluster, np.array(SPLITS)[np.array([0, 0, 0, 1, 2, 2])[cluster % 6]]


def observations(rng, task, cluster, split):
    """Labels without any relation to the texts; clusters have labels of their own, for pairs both texts are theirs."""
    if task == "pairwise":
        first = np.flatnonzero(np.arange(len(cluster)) % 2 == 0)
        columns = {"text_id_a": IDS[first], "text_id_b": IDS[first + 1]}
        label, cluster, split = rng.integers(0, 2, len(first)).astype(float), cluster[first], split[first]
    else:
        columns = {"text_id": IDS}
        label = 0.5 * rng.normal(size=CLUSTERS)[cluster] + rng.normal(size=len(cluster))
        if task == "classification":
            label = (label > 0).astype(float)
    return pl.DataFrame({**columns, "label": label, "cluster_id": cluster, "split": split})


def confirmed(seed, task, leaks=False):
    """How many hypotheses of one null world are confirmed; with `leaks`, guidance sees the labels of the holdout."""
    rng = np.random.default_rng([seed, 9])
    vectors, cluster, split = texts(rng)
    rows = observations(rng, task, cluster, split)
    parts = {name: rows.filter(pl.col("split") == name) for name in SPLITS}
    inside = {name: split == name for name in SPLITS}
    learn, seen = inside["train"], parts["train"]
    if leaks:
        learn, seen = learn | inside["holdout"], pl.concat([parts["train"], parts["holdout"]])
    # Strong guidance, and no validation texts that would stop it before it knows the training labels by heart.
    config = SAEConfig(m=16, k=4, label_weight=3.0, max_epochs=40, batch_size=128, learning_rate=5e-3, seed=seed)
    validation = (IDS.filter(inside["validation"]), parts["validation"])
    learned, _ = labelled_rows(task, (IDS.filter(learn), seen), validation)
    extra, _ = guidance(config, task, learned, None)
    sae = train_sae(vectors[learn], None, config, extra_loss=extra).sae
    codes = encode(sae, vectors)
    selection = select_neurons(
        observation_matrix(codes, IDS, parts["train"]),
        parts["train"]["label"].to_numpy(),
        6,
        task="regression" if task == "regression" else "classification",
    )
    fires = codes[:, selection.columns].toarray() > 0
    tests = test_hypotheses(
        HoldoutDesign(
            concepts=observation_matrix(fires.astype(float), IDS, parts["holdout"]),
            outcome=parts["holdout"]["label"].to_numpy(),
            clusters=parts["holdout"]["cluster_id"].to_numpy(),
            controls=np.zeros((parts["holdout"].height, 0)),
            task=task,
        ),
        min_positives=5,
    )
    p = np.array([test.separation.p_value for test in tests])
    directions = [firing_separation(fires[:, j], IDS, parts["train"]) for j in range(len(tests))]
    badges = [
        verdict(
            p_holm=p_holm,
            q_value=q,
            alpha=0.05,
            estimate=test.separation.estimate,
            expected_sign=direction,
            untestable=None,
        ).badge
        for test, p_holm, q, direction in zip(tests, holm(p), benjamini_hochberg(p), directions, strict=True)
    ]
    return badges.count("confirmed")


def any_confirmed(repetitions, task, **kwargs):
    return float(np.mean([confirmed(seed, task, **kwargs) > 0 for seed in range(repetitions)]))


@pytest.mark.parametrize("task", ["regression", "pairwise"])
def test_a_leak_of_holdout_labels_into_guidance_would_be_seen(task):
    assert any_confirmed(12, task, leaks=True) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
def test_guided_runs_confirm_true_nulls_no_more_often_than_alpha(task):
    assert any_confirmed(120, task) <= at_most(0.05, 120)
