"""From texts to labelled observations: the rows that selection and tests read.

Belongs here: lining up codes, annotations and controls of texts with observations or pairs of them. Does not belong
here: estimating anything.
"""

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.inference import HoldoutDesign
from hsae_dagster.errors import MethodError

# More are refused when rows are read; a corpus from before that may have them.
_MOST_CATEGORIES = 61
# Blocks of time in a holdout.
BLOCKS = 8


def text_rows(text_ids: pl.Series, wanted: pl.Series) -> np.ndarray:
    """Positions (int64) of `wanted` keys in ascending, distinct `text_ids`.

    Raises:
        MethodError: a key is not there.
    """
    rows = text_ids.search_sorted(wanted).to_numpy().astype(np.int64)
    # A key that is not there would silently get its neighbour's row.
    found = np.zeros(len(rows), dtype=bool)
    inside = rows < len(text_ids)
    found[inside] = text_ids[rows[inside]].eq_missing(wanted.filter(inside)).to_numpy()
    if not found.all():
        raise MethodError(
            f"{int((~found).sum()):,} observations point to texts that are not among the {len(text_ids):,} at hand "
            f"(first: {wanted.filter(~found)[0]}). Materialize corpus and everything after it again."
        )
    return rows


def is_pairwise(observations: pl.DataFrame) -> bool:
    """Whether observations are pairs of texts."""
    return "text_id_a" in observations.columns


def text_sides(observations: pl.DataFrame) -> list[str]:
    """Columns that name an observation's text, or its two texts."""
    return [column for column in observations.columns if column.startswith("text_id")]


def text_keys(observations: pl.DataFrame) -> pl.Series:
    """Keys of the texts of some observations, each once, in no order."""
    return pl.concat([observations[side] for side in text_sides(observations)]).unique()


def observation_matrix(
    per_text: sp.csr_matrix | np.ndarray, text_ids: pl.Series, observations: pl.DataFrame
) -> sp.csr_matrix | np.ndarray:
    """Rows of a texts × features matrix for each observation; for pairs, text A's row minus text B's."""
    if not is_pairwise(observations):
        return per_text[text_rows(text_ids, observations["text_id"])]
    a, b = (per_text[text_rows(text_ids, observations[side])] for side in ("text_id_a", "text_id_b"))
    return (a - b).tocsr() if sp.issparse(a) else a - b


def firing_separation(fires: np.ndarray, text_ids: pl.Series, observations: pl.DataFrame) -> float:
    """Difference in mean outcome between observations whose text fires and the rest; pairs: win share minus 1/2.

    Args:
        fires: (texts,) bool.
        text_ids: (texts,) keys, ascending.
        observations: with their labels.
    """
    label = observations["label"].to_numpy()
    fired = observation_matrix(fires.astype(float)[:, None], text_ids, observations)[:, 0]
    if is_pairwise(observations):
        decided = fired != 0
        return float((fired[decided] * (label[decided] - 0.5)).mean()) if decided.any() else 0.0
    on = fired > 0
    return float(label[on].mean() - label[~on].mean()) if on.any() and not on.all() else 0.0


def firing_z(fires: np.ndarray, text_ids: pl.Series, observations: pl.DataFrame) -> float:
    """Z of `firing_separation` as if observations were independent; NaN where it has none.

    It orders hypotheses by what training rows say of them (`multiple_tests.training_weights`) and tests nothing.
    """
    label = observations["label"].to_numpy()
    fired = observation_matrix(fires.astype(float)[:, None], text_ids, observations)[:, 0]
    if is_pairwise(observations):
        scores = fired * (label - 0.5)
        spread = float(np.sqrt((scores**2).sum()))
        return float(scores.sum()) / spread if spread > 0 else float("nan")
    on = fired > 0
    if min(on.sum(), (~on).sum()) < 2:
        return float("nan")
    variance = label[on].var() / on.sum() + label[~on].var() / (~on).sum()
    return float((label[on].mean() - label[~on].mean()) / np.sqrt(variance)) if variance > 0 else float("nan")


def holdout_design(
    answers: np.ndarray, text_ids: pl.Series, n_words: np.ndarray, observations: pl.DataFrame, task: str
) -> HoldoutDesign:
    """The design of the tests.

    Args:
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        text_ids: (texts,) keys of the judged texts, ascending.
        n_words: (texts,) their lengths; the logarithm is always a control.
        observations: of the holdout, all of whose texts were judged.
        task: regression, classification or pairwise.
    """
    per_text = answers.astype(np.float64)
    per_text[answers < 0] = np.nan
    length = np.log1p(n_words.astype(np.float64))[:, None]
    clusters, units = observations["cluster_id"].to_numpy(), _shared_units(observations)
    if "time" in observations.columns:
        clusters, units = with_blocks(observations["time"].to_numpy(), clusters, units)
    return HoldoutDesign(
        concepts=np.asarray(observation_matrix(per_text, text_ids, observations)),
        outcome=observations["label"].to_numpy(),
        clusters=clusters,
        controls=np.column_stack([observation_matrix(length, text_ids, observations), *control_columns(observations)]),
        task=task,
        units=units,
        controls_decide=any(name.startswith("control:") for name in observations.columns),
    )


def _shared_units(observations: pl.DataFrame) -> np.ndarray | None:
    """(n, sides) numbers of the texts' families where one occurs in several clusters; None elsewhere."""
    names = [name for name in observations.columns if name.startswith("unit:")]
    return observations.select(pl.col(names).cast(pl.Int64)).to_numpy() if names else None


def with_blocks(
    time: np.ndarray, clusters: np.ndarray, units: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Clusters and further units of rows that blocks of time join too.

    Topics and outcomes drift, and two that drift go together for no reason: with slow trends of a tenth of the
    variance, true nulls were confirmed in half of the reports. Blocks are few and long, as Bester, Conley and Hansen
    (2011) advise: what drifts within them counts as one, and the t of few clusters allows for their number. They hold
    about as many rows each; rows of one time are never parted.

    Args:
        time: (n,) that orders rows.
        clusters: (n,) keys.
        units: (n, u) as in `HoldoutDesign`.

    Returns:
        Blocks as the clusters where each cluster lies in one block; else the clusters, and the blocks as one more unit.
    """
    _, of, counts = np.unique(time, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    block = np.minimum(middle * BLOCKS / len(time), BLOCKS - 1).astype(np.int64)[of]
    groups = np.unique(clusters, return_inverse=True)[1]
    if len(np.unique(np.column_stack([groups, block]), axis=0)) == groups.max() + 1:
        return block, units
    others = np.empty((len(time), 0), dtype=np.int64) if units is None else units
    return clusters, np.column_stack([others, block + others.max(initial=-1) + 1])


def outcome_per_text(text_ids: pl.Series, observations: pl.DataFrame) -> np.ndarray:
    """Mean label of each text's observations; for pairs, the share of its pairs that the text won. (texts,) float64."""
    if is_pairwise(observations):
        sides = [
            observations.select(pl.col("text_id_a").alias("text_id"), "label"),
            observations.select(pl.col("text_id_b").alias("text_id"), (1 - pl.col("label")).alias("label")),
        ]
        long = pl.concat(sides)
    else:
        long = observations.select("text_id", "label")
    means = long.group_by("text_id").agg(pl.col("label").mean())
    return text_ids.to_frame("text_id").join(means, on="text_id", how="left", maintain_order="left")["label"].to_numpy()


def control_columns(observations: pl.DataFrame) -> list[np.ndarray]:
    """Declared controls as columns: numbers with gaps at their mean, categories as indicators of all but the first.

    A gap is a category of its own.

    Raises:
        MethodError: a control has more than 61 categories.
    """
    columns = []
    for name in [name for name in observations.columns if name.startswith("control:")]:
        series = observations[name]
        if series.dtype == pl.String:
            filled = series.fill_null("(none)")
            categories = filled.unique().sort().to_list()
            if len(categories) > _MOST_CATEGORIES:
                raise MethodError(
                    f"The control `{name.removeprefix('control:')}` has {len(categories):,} categories; at most "
                    f"{_MOST_CATEGORIES} can be held constant. Materialize `corpus` again, which says what to do."
                )
            columns += [(filled == value).to_numpy().astype(np.float64) for value in categories[1:]]
        else:
            numbers = series.cast(pl.Float64).to_numpy()
            known = np.isfinite(numbers)
            columns.append(np.where(known, numbers, numbers[known].mean() if known.any() else 0.0))
    return columns
