"""The features behind each rung of the ladder, for the stages that measure it.

Belongs here: reading embeddings, codes and texts as features of observations. Does not belong here: fitting and scoring
them (`core.ladder`) or showing the result (report).

`selected_neurons` measures the rungs known then on validation clusters, `evaluation_report` all of them on the holdout.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_text_codes, read_text_units, text_vectors
from hsae_dagster.core import ladder
from hsae_dagster.core.cross_fitting import Side
from hsae_dagster.core.fidelity import column
from hsae_dagster.core.joint_fit import Fit, Matrix, Score, averaged, averaged_floor
from hsae_dagster.core.observations import observation_matrix, text_rows
from hsae_dagster.storage.objects import StoredObject


def neuron_features(
    stage: Stage, activations: StoredObject, columns: np.ndarray, text_ids: pl.Series, half: str = ""
) -> dict[str, Matrix]:
    """Rungs from the ceiling to fired-or-not for these texts; sparse where they are, dense for selected neurons only.

    Where units are parts of texts, the ceiling is what the mean of a text's unit vectors allows.

    Args:
        stage: whose embeddings are read.
        activations: the result of that stage.
        columns: of the selected neurons; without any there are no rungs of theirs, or, of a half, they are constants.
        text_ids: (n,) keys, ascending.
        half: whose neurons count (`text_units.read_text_codes`).
    """
    codes, ids = read_text_codes(activations, half)
    codes = codes[text_rows(ids, text_ids)]
    by_neuron = codes.tocsc()
    known = {
        ladder.EMBEDDINGS: text_vectors(open_vectors(stage)[1], read_text_units(stage.upstream("corpus")), text_ids),
        ladder.ALL_NEURONS: codes,
    }
    if not len(columns) and not half:
        return known
    # A half that found nothing says nothing; without its rungs there would be no mean of both.
    dense = np.column_stack([column(by_neuron, j) for j in columns] or [np.zeros(len(text_ids))])
    return known | {ladder.SELECTED: dense, ladder.FIRED: (dense > 0).astype(float)}


def word_features(texts: pl.DataFrame) -> dict[str, Matrix]:
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
    return {ladder.WORDS: fitted.transform(words)}


def observed(features: dict[str, Matrix], text_ids: pl.Series, observations: pl.DataFrame) -> ladder.Rows:
    """Features of texts as rows of observations (pairs by difference)."""
    return ladder.Rows(
        {name: observation_matrix(matrix, text_ids, observations) for name, matrix in features.items()},
        observations["label"].to_numpy(),
        observations["cluster_id"].to_numpy(),
    )


def validation_ladder(stage: Stage, side: Side, activations: StoredObject, columns: np.ndarray) -> dict[str, Any]:
    """Rungs known before the holdout is opened: fitted on training clusters, scored on validation clusters.

    Validation texts chose when training stopped, and with `saes: auto` the size too, so these values flatter a little;
    the holdout's do not.

    Returns:
        JSON-like: `fits`, `floor` (mean and 95th percentile), and `why` when nothing could be measured.
    """
    settings, task = stage.dataset.spec.inference, stage.dataset.spec.task
    learn, checked = (side.observations.filter(pl.col("split") == split) for split in ("train", "validation"))
    if checked["cluster_id"].n_unique() < 2 or learn["cluster_id"].n_unique() < 2:
        return {"fits": [], "floor": [np.nan, np.nan], "why": "it needs two clusters of training and of validation"}
    texts = side.texts.filter(pl.col("split").is_in(["train", "validation"]))
    features = neuron_features(stage, activations, columns, texts["text_id"], side.half)
    rows = observed(features, texts["text_id"], learn)
    held_out = observed(features, texts["text_id"], checked)
    scorer = Score(task, held_out.clusters, settings.bootstrap, settings.seed)
    stage.report("ladder: what each step keeps, on validation texts")
    fits = ladder.measure_rungs(rows, held_out, scorer, lambda _: None)
    fired = np.asarray(held_out.features[ladder.FIRED])
    chance = ladder.chance_level(fired, held_out, task, folds=settings.folds, seed=settings.seed)
    return {"fits": [asdict(fit) for fit in fits], "floor": list(chance), "why": ""}


def averaged_record(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The stored ladders of both sides as one; the side that was measured where the other was not."""
    measured = [record for record in records if record["fits"]]
    if len(measured) < 2:
        return measured[0] if measured else records[0]
    fits, floors = zip(*(read_fits(record) for record in measured), strict=True)
    return {"fits": [asdict(fit) for fit in averaged(fits)], "floor": list(averaged_floor(floors)), "why": ""}


def read_fits(record: dict[str, Any]) -> tuple[tuple[Fit, ...], tuple[float, float]]:
    """Fits and floor of a stored ladder; what JSON holds as null is not a number."""

    def known(value: Any) -> Any:
        return np.nan if value is None else value

    fits = tuple(Fit(**{key: known(value) for key, value in fit.items()}) for fit in record["fits"])
    low, high = (known(value) for value in record["floor"])
    return fits, (low, high)
