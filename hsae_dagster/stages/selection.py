"""What selection needs to know: covariates and other seeds of neurons; features of the ladder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.fidelity import column
from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.inference.partial_effects import Flag
from hsae_dagster.core.inference.subgroups import SubgroupEffect, correct, subgroup_effects, turns_round
from hsae_dagster.core.observations import HoldoutDesign, observation_matrix, pool_codes
from hsae_dagster.core.selection import variants
from hsae_dagster.core.selection.methods import Selection, select_neurons
from hsae_dagster.core.selection.stability import FOUND, found_again
from hsae_dagster.dataset.rows import levels_of
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import MethodError
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.storage.outputs import StoredActivations, StoredCheckpoints, StoredCorpus


def covariate_selection(
    spec: DatasetSpec, observed: sp.csr_matrix, label: np.ndarray, train: pl.DataFrame
) -> Selection:
    """Neurons selected within strata and by interactions, as `select_neurons` would report them."""
    strata = _joined(train, spec.selection.within)
    covariates = [
        np.array([f"{name} = {level}" for level in levels_of(train, name)]) for name in spec.selection.interactions
    ]
    terms = variants.select_within(observed, label, strata, covariates, spec.selection.n)
    notes = [f"neuron {term.column} by its product with {term.level}" for term in terms if term.level]
    return Selection(
        method="lasso:covariates",
        task="regression" if spec.task == "regression" else "classification",
        columns=[term.column for term in terms],
        scores=[term.score for term in terms],
        alpha=None,
        path=(),
        notes=tuple(notes),
        dead=(),
        duplicates=(),
    )


def effects_by_subgroup(
    spec: DatasetSpec, holdout: pl.DataFrame, design: HoldoutDesign, share: float = 1.0
) -> list[tuple[SubgroupEffect, ...]]:
    """Effects of every concept at each level of the declared `within` and `interactions`, corrected over all."""
    levels = {name: levels_of(holdout, name) for name in (*spec.selection.within, *spec.selection.interactions)}
    least = spec.inference.min_positives
    return correct(
        [
            [effect for name, of in levels.items() for effect in subgroup_effects(design, column, name, of, least)]
            for column in range(design.concepts.shape[1])
        ],
        share,
    )


def with_subgroups(hypothesis: Hypothesis, effects: tuple[SubgroupEffect, ...], alpha: float) -> Hypothesis:
    """The hypothesis with its effects by subgroup, flagged where they point in opposite directions."""
    turned = turns_round(effects, alpha)
    if turned is None:
        return replace(hypothesis, subgroups=effects)
    up, down = (f"{one.covariate} = {one.level}" for one in turned)
    doubt = Flag("reversed between subgroups", f"its effect is positive where {up} and negative where {down}")
    test = replace(hypothesis.test, flags=(*hypothesis.test.flags, doubt))
    return replace(hypothesis, subgroups=effects, test=test)


def _joined(observations: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """One key per combination of levels; one key throughout without names."""
    parts = [[f"{name} = {level}" for level in levels_of(observations, name)] for name in names]
    return np.array([" and ".join(row) for row in zip(*parts, strict=True)]) if parts else np.zeros(observations.height)


def neuron_features(
    stage: Stage,
    corpus: StoredCorpus,
    activations: StoredActivations,
    columns: np.ndarray,
    text_ids: pl.Series,
    half: str = "",
) -> dict[str, joint_fit.Matrix]:
    """Rungs from the ceiling to fired-or-not for these texts; sparse where they are, dense for selected neurons only.

    Where units are parts of texts, the ceiling is what the mean of a text's unit vectors allows. Without selected
    `columns` there are no rungs of theirs, or, of a half (`StoredActivations.of_half`), they are constants.
    """
    codes = activations.on(text_ids, half)
    by_neuron = codes.tocsc()
    known = {
        joint_fit.EMBEDDINGS: stage.embeddings.of_texts(corpus.places, text_ids),
        joint_fit.ALL_NEURONS: codes,
    }
    if not len(columns) and not half:
        return known
    # A half that found nothing says nothing; without its rungs there would be no mean of both.
    dense = np.column_stack([column(by_neuron, j) for j in columns] or [np.zeros(len(text_ids))])
    return known | {joint_fit.SELECTED: dense, joint_fit.FIRED: (dense > 0).astype(float)}


def word_features(texts: pl.DataFrame) -> dict[str, joint_fit.Matrix]:
    """TF-IDF of words and pairs of words, weighted and chosen on texts outside the holdout; nothing where none recurs.

    Pictures and signs are no words: a dataset of them has no such rung.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    learn = (texts["split"] != "holdout").to_numpy()
    words = np.array(texts["text"].to_list(), dtype=object)
    try:
        fitted = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(words[learn])
    except ValueError:  # its vocabulary is empty
        return {}
    return {joint_fit.WORDS: fitted.transform(words)}


def observed(features: dict[str, joint_fit.Matrix], text_ids: pl.Series, observations: pl.DataFrame) -> joint_fit.Rows:
    """Features of texts as rows of observations (pairs by difference)."""
    return joint_fit.Rows(
        {name: observation_matrix(matrix, text_ids, observations) for name, matrix in features.items()},
        observations["label"].to_numpy(),
        observations["cluster_id"].to_numpy(),
    )


@dataclass(frozen=True)
class Training:
    """What neurons are selected on: (n, m) activations, labels (n,) and clusters (n,) of training observations.

    And of their texts, in ascending order of keys: (t, m) activations.
    """

    observed: sp.csr_matrix
    label: np.ndarray
    clusters: np.ndarray
    on_texts: sp.csr_matrix
    text_ids: pl.Series


@dataclass(frozen=True)
class Chosen:
    """A selection, columns left out for it, and how well other seeds find each column."""

    selection: Selection
    notes: tuple[str, ...]
    seeds: pl.DataFrame
    left_out: tuple[int, ...]


def seed_table(best: list[np.ndarray], columns: int) -> pl.DataFrame:
    """How other seeds find each column, from its best φ (columns,) in each of them; there may be none.

    Returns:
        `seed_phi`, the least of them (NaN without further seeds); `found_in`, the number of seeds in which it is found
        (`core.selection.stability.FOUND`); `other_seeds`, how many there are.
    """
    phi = np.stack(best) if best else np.full((1, columns), np.nan)
    found = (phi >= FOUND).sum(axis=0)
    return pl.DataFrame({"seed_phi": phi.min(axis=0), "found_in": found, "other_seeds": np.full(columns, len(best))})


def choose_neurons(stage: Stage, corpus: StoredCorpus, checkpoints: StoredCheckpoints, training: Training) -> Chosen:
    """Select as the dataset asks: plainly, or only neurons that other seeds or clusters bear out.

    Raises:
        MethodError: too few neurons are left to select from.
    """
    spec = stage.dataset.spec
    seeds = _seeds(stage, corpus, checkpoints, training)
    left_out, notes = _unmatched(stage, seeds), []
    if left_out:
        notes.append(f"{len(left_out)} neurons have no match of φ {spec.selection.min_match:g} in every other seed.")
    across = _across(stage, training)
    if across is not None:
        notes += filter(None, [across.note()])
        left_out = sorted({*left_out, *np.flatnonzero(~across.holds).tolist()})
    selection = select_neurons(
        training.observed,
        training.label,
        spec.selection.n,
        method=spec.selection.method,
        task="regression" if spec.task == "regression" else "classification",
        without=left_out,
        fewer=across is not None,
    )
    return Chosen(selection, tuple(notes), seeds, tuple(left_out))


def _unmatched(stage: Stage, seeds: pl.DataFrame) -> list[int]:
    """Columns that some other seed has not found as `min_match` asks."""
    spec = stage.dataset.spec.selection
    if spec.min_match is None or not seeds["other_seeds"].sum():
        return []
    without: list[int] = np.flatnonzero(seeds["seed_phi"].to_numpy() < spec.min_match).tolist()
    left = seeds.height - len(without)
    if left < spec.n:
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: only {left} neurons have a match of φ {spec.min_match:g} in every other "
            f"seed, fewer than selection.n = {spec.n}. Lower selection.min_match."
        )
    return without


def _across(stage: Stage, training: Training) -> variants.Across | None:
    """Which neurons hold across clusters, where that is asked for; None where it is not."""
    wanted = stage.dataset.spec.selection.across_clusters
    if wanted is None:
        declared = stage.dataset.spec.columns.cluster_by is not None
        # Who asks for effects that change with a covariate must not lose those that turn between clusters.
        by_covariate = bool(stage.dataset.spec.selection.within or stage.dataset.spec.selection.interactions)
        wanted = declared and not by_covariate and len(np.unique(training.clusters)) >= variants.LEAST_CLUSTERS
    if not wanted:
        return None
    return variants.across_clusters(training.observed, training.label, training.clusters, np.random.default_rng(0))


def _seeds(stage: Stage, corpus: StoredCorpus, checkpoints: StoredCheckpoints, training: Training) -> pl.DataFrame:
    twins, pool = checkpoints.seeds, stage.dataset.spec.pool
    if twins is None:
        return seed_table([], training.observed.shape[1])
    from hsae_dagster.core.sae.model import encode

    units = corpus.places.of_texts(training.text_ids)
    vectors = stage.embeddings.read(units.unit_ids)
    parts, start = [], 0
    for record in checkpoints.records:
        own = training.on_texts[:, start : start + record["config"]["m"]]
        start += own.shape[1]
        further = [checkpoints.load(twin) for twin in twins[record["sae_id"]]]
        others = [pool_codes(encode(sae, vectors), units, pool).codes for sae in further]
        parts.append(seed_table([found_again(own, other) for other in others], own.shape[1]))
    return pl.concat(parts)
