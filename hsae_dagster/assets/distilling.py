"""Having a sample of the held-out texts judged and a probe label the rest (`annotation.distil`).

Belongs here: which texts are asked about, the labels of the others, and the effects that both give. Does not belong
here: the draw, the probe or the correction (`core.distilled`), or asking (`assets.judging`).

A table `distilled.parquet` beside the annotations says which texts the model judged, with which chance each was drawn,
and what the probe says of every text.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.concepts_to_test import is_own
from hsae_dagster.assets.embeddings import vector_table
from hsae_dagster.assets.gold import Judged
from hsae_dagster.assets.text_units import read_text_units, text_vectors
from hsae_dagster.core import flags
from hsae_dagster.core.annotation_error import AnnotationError, Corrected, kappa
from hsae_dagster.core.cluster_robust import NO_EFFECT_ESTIMATED
from hsae_dagster.core.distilled import Sample, distilled_separation, draw_sample, probe_labels
from hsae_dagster.core.fidelity import MISSING, column
from hsae_dagster.core.flags import Flag
from hsae_dagster.core.inference import HypothesisTest
from hsae_dagster.core.observations import text_rows
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_codes, read_frame
from hsae_dagster.storage.objects import StoredObject

FILE = "distilled.parquet"
# Stages that the draw and the probe read.
READ = ("embeddings", "activations")


def texts_to_ask(dataset: Dataset, texts: pl.DataFrame, firing: np.ndarray | None = None) -> Sample:
    """The texts that the model judges: all, or the declared sample.

    Args:
        dataset: with its declaration.
        texts: of the holdout.
        firing: (texts, concepts) activations (`firing_of`); None before there are any, where the size counts only.
    """
    settings = dataset.spec.annotation
    scores = np.zeros((texts.height, 0)) if firing is None else firing
    size = settings.distil.sample if settings.distil else texts.height
    return draw_sample(scores, size, np.random.default_rng([settings.seed, 2]))


def in_words(asked: int, texts: int) -> str:
    """What the sample spares, for logs and estimates."""
    return f"the model judges {asked:,} of {texts:,} texts, a probe the rest: {asked / texts:.1%} of the calls"


def firing_of(activations: StoredObject, records: Sequence[dict[str, Any]], texts: pl.DataFrame) -> np.ndarray:
    """(texts, found concepts) float32 activations of the concepts' neurons; one's own hypotheses have none."""
    ids = read_frame(activations.file("texts.parquet"))["text_id"]
    codes = read_codes(activations.file("codes.safetensors"))[text_rows(ids, texts["text_id"])].tocsc()
    found = [column(codes, record["column"]) for record in records if not is_own(record)]
    return np.column_stack(found).astype(np.float32) if found else np.zeros((texts.height, 0), np.float32)


def label_the_rest(
    project: Project,
    dataset: Dataset,
    upstream: dict[str, StoredObject],
    records: Sequence[dict[str, Any]],
    texts: pl.DataFrame,
    sample: Sample,
    firing: np.ndarray,
    answers: np.ndarray,
) -> tuple[np.ndarray, pl.DataFrame]:
    """What is said of every text: the judge's answers where it was asked, the probe's labels elsewhere.

    Args:
        project: where vectors are.
        dataset: whose texts they are.
        upstream: corpus and embeddings.
        records: of the c concepts.
        texts: the n of the holdout.
        sample: of them, those that were judged.
        firing: (n, found concepts) activations (`firing_of`).
        answers: (rows of the sample, c) int8: 1 yes, 0 no, -1 missing.

    Returns:
        (n, c) int8 of both together, missing answers still missing; and the table: text_id; probability, null where
        the judge was not asked; by concept id whether the probe says yes, for all texts.
    """
    vectors = text_vectors(
        vector_table(project, dataset, upstream["embeddings"]), read_text_units(upstream["corpus"]), texts["text_id"]
    )
    # A neuron knows more of its claim than a mean of vectors; it weighs as much as one of their coordinates.
    scale = np.sqrt((firing.astype(np.float64) ** 2).mean(axis=0) * vectors.shape[1])
    features = np.column_stack([vectors, firing / np.where(scale > 0, scale, 1.0).astype(np.float32)])
    clusters = texts["cluster_id"].to_numpy()
    chance = np.full(texts.height, np.nan)
    chance[sample.rows] = sample.probability
    columns: dict[str, Any] = {"text_id": texts["text_id"], "probability": pl.Series(chance).fill_nan(None)}
    both = np.empty((texts.height, len(records)), np.int8)
    for j, record in enumerate(records):
        usable = answers[:, j] != MISSING
        judged = Sample(sample.rows[usable], sample.probability[usable])
        rng = np.random.default_rng([dataset.spec.annotation.seed, 3])
        labels = probe_labels(features, clusters, judged, answers[usable, j].astype(np.float64), rng)
        columns[record["concept"]["concept_id"]] = pl.Series(labels == 1)
        both[:, j] = labels
        both[sample.rows, j] = answers[:, j]
    return both, pl.DataFrame(columns)


def agreement_of_probe(
    table: pl.DataFrame, answers: np.ndarray, keys: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Per concept, how far the probe agrees with the judge on texts whose clusters it did not learn from.

    Args:
        table: as of `label_the_rest`.
        answers: (texts, concepts) int8 of both together.
        keys: ids of the concepts.

    Returns:
        `agreement`, the share of the holdout on which they say the same, and Cohen's `kappa`, both weighted to natural
        prevalence; None where they cannot be measured.
    """
    chance = table["probability"].fill_null(np.nan).to_numpy()
    found: dict[str, dict[str, float | None]] = {}
    for j, key in enumerate(keys):
        known = np.isfinite(chance) & (answers[:, j] != MISSING)
        said, probe = answers[known, j] == 1, table[key].to_numpy()[known]
        weight = 1 / chance[known]
        beyond_chance = kappa(probe, said, weight)
        found[key] = {
            "agreement": float(weight @ (said == probe) / weight.sum()) if known.any() else None,
            "kappa": beyond_chance if np.isfinite(beyond_chance) else None,
        }
    return found


def read_distilled(matrix: StoredObject) -> pl.DataFrame | None:
    """The table of an annotation matrix; None where the model judged every text."""
    return read_frame(matrix.file(FILE)) if matrix.file(FILE).is_file() else None


def corrected_tests(
    tests: Sequence[HypothesisTest], errors: Sequence[AnnotationError], judged: Judged, table: pl.DataFrame
) -> tuple[list[HypothesisTest], list[AnnotationError]]:
    """The tests with the effect that the judge would find on all texts, and beside them how far the probe is right."""
    found = [_corrected(judged, table, j) for j in range(len(tests))]
    return (
        [_with(test, each) for test, each in zip(tests, found, strict=True)],
        [replace(error, distilled=each) for error, each in zip(errors, found, strict=True)],
    )


def _corrected(judged: Judged, table: pl.DataFrame, j: int) -> Corrected:
    rows = text_rows(judged.text_ids, judged.observations["text_id"])
    said = judged.answers[rows, j]
    chance = table["probability"].fill_null(np.nan).to_numpy()[rows]
    answers = np.where(np.isfinite(chance), said, np.nan)
    seen = said != MISSING
    labels = table[judged.names[j][0]].to_numpy().astype(np.float64)[rows]
    design = judged.design
    return distilled_separation(labels[seen], design.outcome[seen], design.clusters[seen], answers[seen], chance[seen])


def _with(test: HypothesisTest, found: Corrected) -> HypothesisTest:
    if not np.isfinite(test.separation.p_value):
        return test
    if found.note:
        why = f"the sample that the model judged is too small for it: {found.note}".replace("labelled", "judged")
        return replace(
            test,
            separation=NO_EFFECT_ESTIMATED,
            flags=(Flag(flags.TOO_FEW_JUDGED, f"{why}. Raise annotation.distil.sample"), *test.flags),
        )
    return replace(test, separation=found.corrected, basis="distilled")
