"""`planted` as it is declared in data/: every planted concept is found and confirmed, and nothing else is."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.sample_data.planted import EFFECTS
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace

pytestmark = pytest.mark.slow

PERMUTATIONS = 5


def confirmed(workspace: Workspace, dataset: str) -> pl.DataFrame:
    found = read_frame(workspace.current(dataset, "evaluation_report").file("hypotheses.parquet"))
    return found.filter(pl.col("badge") == "confirmed")


def topics_of(workspace: Workspace, claims: pl.DataFrame) -> dict[str, tuple[str, float]]:
    """concept_id -> the topic whose presence its annotation correlates with most, and that correlation (phi)."""
    texts = read_frame(workspace.current("planted", "corpus").file("texts.parquet")).select("text_id", "text")
    truth = pl.read_parquet(workspace.root / "data" / "planted" / "truth.parquet")
    matrix = read_frame(workspace.current("planted", "annotation_matrix").file("annotations.parquet"))
    joined = matrix.join(texts, on="text_id").join(truth, on="text")
    assert joined.height == matrix.height
    presence = {topic: joined[topic].to_numpy().astype(float) for topic in EFFECTS}
    matched = {}
    for key in claims["concept_id"]:
        answer = joined[key].to_numpy().astype(float)
        phi = {topic: float(np.corrcoef(answer, here)[0, 1]) for topic, here in presence.items()}
        best = max(phi, key=lambda topic: abs(phi[topic]))
        matched[key] = (best, phi[best])
    return matched


def test_every_planted_concept_is_confirmed_with_its_sign_and_nothing_unplanted_is(planted: Workspace) -> None:
    claims = confirmed(planted, "planted")
    matched = topics_of(planted, claims)
    effects = dict(claims.select("concept_id", "effect_estimate").rows())
    for key, (topic, phi) in matched.items():
        assert EFFECTS[topic] != 0, (topic, phi)
        # A concept may be the absence of a topic, whose effect is the opposite one.
        assert np.sign(effects[key]) == np.sign(EFFECTS[topic] * phi), (topic, phi)
    assert {topic for topic, _ in matched.values()} == {topic for topic, effect in EFFECTS.items() if effect}


def test_the_confirmed_concepts_are_the_topics_and_no_proxies_of_them(planted: Workspace) -> None:
    best = {}
    for topic, phi in topics_of(planted, confirmed(planted, "planted")).values():
        best[topic] = max(best.get(topic, 0.0), abs(phi))
    assert min(best.values()) > 0.6, best


def test_shuffled_outcomes_confirm_nothing_beyond_the_declared_error_rate(planted: Workspace, tmp_path: Path) -> None:
    workspace = planted.copy_to(tmp_path)
    declared = workspace.root / "data" / "planted" / "dataset.yaml"
    assert load_dataset(workspace.project.data, "planted").spec.inference.alpha == 0.05
    rows = pl.read_parquet(declared.with_name("planted.parquet"))
    finds = []
    for seed in range(PERMUTATIONS):
        dataset = f"shuffled_{seed}"
        folder = workspace.root / "data" / dataset
        folder.mkdir()
        shutil.copy(declared, folder)
        rng = np.random.default_rng((20_261_123, seed))
        outcome = pl.Series("outcome", rng.permutation(rows["outcome"].to_numpy()))
        rows.with_columns(outcome).write_parquet(folder / "planted.parquet")
        run = workspace.run(dataset)
        assert run.success, {step: run.sentence(step) for step in run.failures}
        told = run.metadata("embeddings")
        assert (told["new"], told["borrowed"]) == (0, told["dagster/row_count"])
        finds.append(confirmed(workspace, dataset).height)
    # By design a run without any effect confirms something with a chance of at most 0.05 (family-wise). Two or more
    # such runs among five have a chance of at most 0.023, one of at most 0.23: one is no defect, two would be.
    assert sum(found > 0 for found in finds) <= 1, finds
