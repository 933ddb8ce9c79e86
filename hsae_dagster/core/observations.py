"""Labelled observations, the rows that selection and tests read: their splits, their texts, their units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.errors import MethodError
from hsae_dagster.keys import unit_interval

# In order of protection: a component wanted by two splits belongs to the later one.
SPLITS = ("train", "validation", "fidelity", "holdout")
# Shares of rows may miss the declared ones by so much before the cuts follow the rows, and another salt is tried.
_CLOSE, _GOOD = 0.03, 0.05
_SALTS, _MOST_KEYS = 32, 20_000


@dataclass(frozen=True)
class SplitShares:
    """Shares of rows for each split but train, and the salt of the hash.

    With `two_halves` each half tests what the other found, and the holdout has no share; `forward`, time decides
    instead of the hash.
    """

    validation: float
    fidelity: float
    holdout: float
    salt: str
    two_halves: bool = False
    forward: bool = False

    @property
    def placing(self) -> "SplitShares":
        """What components are placed by first: two halves, as a holdout of one half, else the shares themselves."""
        return replace(self, validation=0.0, fidelity=0.0, holdout=0.5) if self.two_halves else self

    @property
    def cumulated(self) -> np.ndarray:
        """(3,) ends of holdout, fidelity and validation on [0, 1)."""
        return np.cumsum([self.holdout, self.fidelity, self.validation])


@dataclass(frozen=True)
class Cuts:
    """Where the splits end on [0, 1): places below `holdout` are the holdout's, from `validation` on for training.

    Attributes:
        attempt: 0 for the declared salt, else the number that is added to it.
        two_halves: whether what is below the cut of the holdout is a half.
    """

    holdout: float
    fidelity: float
    validation: float
    attempt: int = 0
    declared: bool = True
    two_halves: bool = False

    @classmethod
    def by_share(cls, shares: SplitShares) -> "Cuts":
        """The declared shares as cuts."""
        holdout, fidelity, validation = (float(end) for end in shares.cumulated)
        return cls(holdout, fidelity, validation)

    def split(self, places: np.ndarray) -> np.ndarray:
        """(n,) protection of each place: 3 holdout … 0 train (positions in `SPLITS`)."""
        return 3 - np.searchsorted([self.holdout, self.fidelity, self.validation], places, side="right")


def places(keys: pl.Series, component: np.ndarray, salt: str, attempt: int = 0) -> np.ndarray:
    """Smallest hash of each component's keys, (components,) float64 in [0, 1).

    Keys and components, numbered from 0, are of each row (n,); an `attempt` above 0 is added to the salt.
    """
    salted = f"{salt}#{attempt}" if attempt else salt
    distinct = pl.DataFrame({"key": keys, "component": component}).unique()
    hashed = distinct["key"].map_elements(lambda key: unit_interval(key, salted), return_dtype=pl.Float64)
    found = np.ones(int(component.max()) + 1)
    np.minimum.at(found, distinct["component"].to_numpy(), hashed.to_numpy())
    return found


def places_in_time(time: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Places (components,) in [0, 1] that fall with each component's latest time, whatever other rows there are.

    Times, any number that orders rows, and components, numbered from 0, are of each row (n,).
    """
    found = np.ones(int(component.max()) + 1)
    np.minimum.at(found, component, np.arctan2(1e9, time) / np.pi)
    return found


def cut_in_time(time: np.ndarray, component: np.ndarray, shares: SplitShares, fewest: int) -> Cuts:
    """Cuts of a forward split; components of one time are never parted. Arguments as in `cut` and `places_in_time`."""
    moments, of = np.unique(places_in_time(time, component), return_inverse=True)
    sizes = np.bincount(of, np.bincount(component))
    return _by_rows(moments, sizes, shares, min(fewest, max(len(moments) // 2, 1)), 0)


def cut(keys: pl.Series, component: np.ndarray, shares: SplitShares, fewest: int) -> Cuts:
    """Cuts that give about the declared shares of rows; keys and components as in `places`.

    Holdout and train should have `fewest` components at least, the other splits one.
    """
    sizes = np.bincount(component).astype(np.float64)
    few = keys.n_unique() <= _MOST_KEYS
    best, least = Cuts.by_share(shares), np.inf
    for attempt in range(_SALTS if few else 1):
        at = places(keys, component, shares.salt, attempt)
        if attempt == 0 and _miss(best, at, sizes, shares, fewest) <= _CLOSE:
            return best
        made = _by_rows(at, sizes, shares, fewest, attempt)
        miss = _miss(made, at, sizes, shares, fewest)
        if miss < least:
            best, least = made, miss
        if least <= _GOOD:
            break
    return best


def _by_rows(at: np.ndarray, sizes: np.ndarray, shares: SplitShares, fewest: int, attempt: int) -> Cuts:
    """Components in the order of their places; each split ends where its share of rows is nearest.

    Few components go first to what cannot do without them: `fewest` to holdout and train, one to each other split.
    """
    order = np.argsort(at, kind="stable")
    sorted_at = at[order]
    ends = np.concatenate([[0.0], np.cumsum(sizes[order]) / sizes.sum()])
    between = np.concatenate([[0.0], (sorted_at[1:] + sorted_at[:-1]) / 2, [1.0]])
    chosen: list[int] = []
    needed = [fewest * (shares.holdout > 0), int(shares.fidelity > 0), int(shares.validation > 0), fewest]
    for i, wanted in enumerate(shares.cumulated):
        start = chosen[-1] if chosen else 0
        nearest = int(np.abs(ends - wanted).argmin()) if needed[i] else start
        most = max(len(at) - sum(needed[i + 1 :]), start)
        chosen.append(min(max(nearest, start + needed[i]), most))
    holdout, fidelity, validation = (float(between[i]) for i in chosen)
    return Cuts(holdout, fidelity, validation, attempt, declared=False)


def _miss(cuts: Cuts, at: np.ndarray, sizes: np.ndarray, shares: SplitShares, fewest: int) -> float:
    """Largest difference of a split's share of rows from the declared one; a split of too few components counts 1."""
    split = cuts.split(at)
    wanted = np.array([1 - float(shares.cumulated[-1]), shares.validation, shares.fidelity, shares.holdout])
    rows = np.bincount(split, sizes, minlength=4) / sizes.sum()
    enough = np.array([fewest, 1, 1, fewest])
    short = (np.bincount(split, minlength=4) < enough) & (wanted > 0)
    return float(np.abs(rows - wanted).max() + short.sum())


def most_protected(splits: Sequence[pl.Expr]) -> pl.Expr:
    """The most protected of several splits by name, as positions in `SPLITS`."""
    ranks = {split: i for i, split in enumerate(SPLITS)}
    return pl.max_horizontal(*[split.replace_strict(ranks, return_dtype=pl.Int8) for split in splits])


@dataclass(frozen=True)
class HoldoutDesign:
    """Everything a test reads.

    Attributes:
        concepts: (n, h) float64; 1 or 0 per text, -1, 0 or 1 per pair, NaN where the annotation is missing.
        outcome: (n,) float64; 0 or 1 for classification and pairs.
        clusters: (n,) keys of the unit that observations share.
        controls: (n, c) float64, to hold constant in partial effects; for pairs, A minus B.
        units: (n, u) int64 further units that rows of several clusters share (texts; the items of pairs), or None.
        controls_decide: whether controls were declared, so that the effect with them held constant is the one that is
            shown, corrected and judged.
    """

    concepts: np.ndarray
    outcome: np.ndarray
    clusters: np.ndarray
    controls: np.ndarray
    task: str
    units: np.ndarray | None = None
    controls_decide: bool = False

    def __post_init__(self) -> None:
        """Refuse designs whose parts do not fit together."""
        n = len(self.outcome)
        if not len(self.concepts) == len(self.clusters) == len(self.controls) == n:
            raise MethodError("The holdout's annotations, outcomes, clusters and controls differ in length.")
        if not np.isfinite(self.outcome).all():
            raise MethodError("An outcome of the holdout is missing or not finite; the corpus should not hold it.")


# Blocks of time in a holdout. Of eight, neighbours still share a trend that remembers 100 days of 365: an interval of
# a true null missed 0 in 8 %; of six in 5.7 % (`time trends` in benchmarks/error_rates.py).
BLOCKS = 6


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


def sample_clusters(observations: pl.DataFrame, most: int | None, seed: int) -> pl.DataFrame:
    """Whole clusters in random order until `most` observations are reached; all of them where there are no more."""
    if most is None or observations.height <= most:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    taken = order[: int(np.searchsorted(np.cumsum(sizes["len"].to_numpy()[order]), most) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].gather(taken).implode()))


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

    `fires` (texts,) bool is in the order of `text_ids`, ascending.
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

    It orders hypotheses by what training rows say of them (`core.inference.plan.training_weights`) and tests nothing.
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

    Answers (texts, concepts) int8, 1 yes, 0 no, -1 missing, and lengths, whose logarithm is always a control, are of
    the judged texts, ascending keys; all texts of the observations were judged.
    """
    per_text = answers.astype(np.float64)
    per_text[answers < 0] = np.nan
    length = np.log1p(n_words.astype(np.float64))[:, None]
    clusters = observations["cluster_id"].to_numpy()
    # Numbers of the texts' families, where one occurs in several clusters.
    names = [name for name in observations.columns if name.startswith("unit:")]
    units = observations.select(pl.col(names).cast(pl.Int64)).to_numpy() if names else None
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


def with_blocks(
    time: np.ndarray, clusters: np.ndarray, units: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Clusters and further units (as in `HoldoutDesign`) of rows that blocks of time join too.

    Topics and outcomes drift, and two that drift go together for no reason: with slow trends of a tenth of the
    variance, true nulls were confirmed in half of the reports. Blocks are few and long, as Bester, Conley and Hansen
    (2011) advise: what drifts within them counts as one, and the t of few clusters allows for their number. They hold
    about as many rows each; rows of one time are never parted.

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

    A gap is a category of its own; too many categories are refused when rows are read (`dataset.rows`).
    """
    columns = []
    for name in [name for name in observations.columns if name.startswith("control:")]:
        series = observations[name]
        if series.dtype == pl.String:
            filled = series.fill_null("(none)")
            categories = filled.unique().sort().to_list()
            columns += [(filled == value).to_numpy().astype(np.float64) for value in categories[1:]]
        else:
            numbers = series.cast(pl.Float64).to_numpy()
            known = np.isfinite(numbers)
            columns.append(np.where(known, numbers, numbers[known].mean() if known.any() else 0.0))
    return columns


Pool = Literal["max", "mean", "sum"]

# Activations of units that are sorted at once; some 100 MB.
_BLOCK_ENTRIES = 2**21


@dataclass(frozen=True)
class TextUnits:
    """Which units each text has.

    Attributes:
        text_ids: (texts,) keys, ascending.
        unit_ids: (units,) keys, ascending, distinct.
        starts: (texts + 1,) int64; the units of text i are `rows[starts[i] : starts[i + 1]]`, in order.
        rows: int64 positions in `unit_ids`.
    """

    text_ids: pl.Series
    unit_ids: pl.Series
    starts: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(units: pl.DataFrame, text_units: pl.DataFrame) -> "TextUnits":
        """From the tables of a corpus (`dataset.units`): ascending unit_id, and by text_id and position."""
        text_ids = text_units["text_id"].unique().sort()
        starts = text_units["text_id"].search_sorted(text_ids).to_numpy().astype(np.int64)
        rows = text_rows(units["unit_id"], text_units["unit_id"])
        return TextUnits(text_ids, units["unit_id"], np.append(starts, text_units.height), rows)

    @property
    def are_texts(self) -> bool:
        """Whether each text is its own one unit."""
        return len(self.text_ids) == len(self.unit_ids) == len(self.rows) and bool(
            (self.text_ids == self.unit_ids).all()
        )

    def of_texts(self, text_ids: pl.Series) -> "TextUnits":
        """Some of the texts, ascending, and only the units that they have.

        Raises:
            MethodError: a text is not there.
        """
        texts = text_rows(self.text_ids, text_ids)
        counts = np.diff(self.starts)[texts]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.repeat(self.starts[texts] - starts[:-1], counts) + np.arange(starts[-1])
        wanted, rows = np.unique(self.rows[places], return_inverse=True)
        return TextUnits(text_ids, self.unit_ids.gather(wanted), starts, rows.astype(np.int64))

    def mean(self, per_unit: np.ndarray) -> np.ndarray:
        """Mean of each text's rows of a (units, d) matrix, (texts, d) in its precision; repetitions count."""
        counts = np.diff(self.starts)
        weights = np.repeat(1.0 / counts, counts).astype(per_unit.dtype)
        member = sp.csr_matrix((weights, self.rows, self.starts), shape=(len(self.text_ids), len(self.unit_ids)))
        return np.asarray(member @ per_unit)


@dataclass(frozen=True)
class Pooled:
    """Codes of texts.

    Attributes:
        codes: (texts, neurons) float32 CSR, columns ascending; a neuron that is silent on all units has no entry.
        strongest: (entries,) int32, parallel to `codes.data`: the unit with the largest activation (position in
            `unit_ids`; of equal ones the first in the text), whatever the pooling.
    """

    codes: sp.csr_matrix
    strongest: np.ndarray


def pool_codes(unit_codes: sp.csr_matrix, units: TextUnits, how: Pool = "max") -> Pooled:
    """Pool the activations of units, (units, neurons) CSR, none negative, over the texts that have them.

    A block of texts at a time. A `mean` is over all units of a text, silent ones and repetitions included.
    """
    if units.are_texts:
        codes = sp.csr_matrix(unit_codes, dtype=np.float32)
        codes.sort_indices()
        return Pooled(codes, np.repeat(np.arange(codes.shape[0], dtype=np.int32), np.diff(codes.indptr)))
    parts = [_pooled(unit_codes, units, first, last, how) for first, last in _blocks(unit_codes, units)]
    data, columns, strongest, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    index_type = np.int32 if len(data) < 2**31 else np.int64
    shape = (len(units.text_ids), unit_codes.shape[1])
    codes = sp.csr_matrix((data, columns.astype(index_type), starts.astype(index_type)), shape=shape)
    codes.has_sorted_indices = True
    return Pooled(codes, strongest)


def _blocks(unit_codes: sp.csr_matrix, units: TextUnits) -> Iterator[tuple[int, int]]:
    """First and last text (exclusive) of each block; a text is never divided."""
    entries = np.concatenate([[0], np.cumsum(np.diff(unit_codes.indptr)[units.rows], dtype=np.int64)])[units.starts]
    first, n = 0, len(units.text_ids)
    while True:
        last = min(n, max(first + 1, int(np.searchsorted(entries, entries[first] + _BLOCK_ENTRIES, side="right")) - 1))
        yield first, last
        if last >= n:
            return
        first = last


def _pooled(
    unit_codes: sp.csr_matrix, units: TextUnits, first: int, last: int, how: Pool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, columns, strongest units and number of entries by text."""
    starts = units.starts[first : last + 1]
    rows = units.rows[starts[0] : starts[-1]]
    per_text, n_texts = np.diff(starts), last - first
    gathered = unit_codes[rows]
    per_row = np.diff(gathered.indptr)
    text = np.repeat(np.repeat(np.arange(n_texts), per_text), per_row)
    unit = np.repeat(rows, per_row)
    values = gathered.data.astype(np.float64)
    key = text * unit_codes.shape[1] + gathered.indices
    # Stable, so that of equal activations the first in the text comes first.
    order = np.lexsort((-values, key))
    key, values, unit = key[order], values[order], unit[order]
    heads = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.empty(0, dtype=np.int64)
    text, columns = np.divmod(key[heads], unit_codes.shape[1])
    if how == "max":
        pooled = values[heads]
    else:
        pooled = np.add.reduceat(values, heads) if len(heads) else values
        if how == "mean":
            pooled = pooled / per_text[text]
    counts = np.bincount(text, minlength=n_texts)
    return pooled.astype(np.float32), columns.astype(np.int32), unit[heads].astype(np.int32), counts


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows of (n, d) scaled to length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return found


# Numbers, links and handles stay where they are most of a text.
_FEWEST_LEFT = 5
_LINK = r"(?:https?://|www\.)\S+|\S+@\S+\.\S+"
_HANDLE = r"(?:\brt\s+)?@\w+"
_NUMBER = r"\b\d+(?:[.,:]\d+)*\b"
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}])"


def folded(texts: pl.Series, *, copies: bool = True) -> pl.Series:
    """Texts (n,) without what copies differ in: case, punctuation, links, handles and numbers; equal ones are one text.

    Links, handles and numbers stay where fewer than five words would be left, and punctuation where nothing would. Two
    headlines of an experiment that differ in a number are one text here: they are two observations all the same
    (`text_id`), but on one side of every split, as one could be guessed from the other.

    Without `copies` links, handles and numbers stay, where they are what texts say. Scripts without spaces get one
    between all characters.
    """
    plain = texts.str.normalize("NFKC").str.to_lowercase()
    light = _without(_without(plain, r"\p{P}+"), r"\s+")
    light = pl.select(pl.when(light == "").then(plain.str.strip_chars()).otherwise(light)).to_series()
    if not copies:
        return light.alias("folded")
    bare = _without(_without(_without(plain, _LINK), _HANDLE), _NUMBER)
    bare = _without(_without(bare, r"\p{P}+"), r"\s+")
    bare = bare.str.replace_all(_UNSPACED, " $1 ").str.replace_all(r"\s+", " ").str.strip_chars()
    enough = bare.str.count_matches(" ") >= _FEWEST_LEFT - 1
    return pl.select(pl.when(enough).then(bare).otherwise(light)).to_series().alias("folded")


def _without(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.str.replace_all(pattern, " ").str.strip_chars()


def folded_keys(keys: pl.Series) -> pl.Series:
    """Cluster keys (n,) without what spreadsheets add: spaces around and within, case, Unicode composition; null stays.

    Lower case is not enough: `Weiß` in capitals is `WEISS`, and a Greek word ends in two kinds of small sigma.
    """
    plain = keys.str.normalize("NFKC").map_elements(str.casefold, return_dtype=pl.String)
    return plain.str.normalize("NFKC").str.replace_all(r"\s+", " ").str.strip_chars()
