"""Two-fold cross-fitted discovery: each half confirms what the other found.

Belongs here: what each half learns from and is tested on, its share of alpha, and claims of both halves that say the
same. Does not belong here: which half a component lands in (`core.placing`), discovery or tests.

Where data are few, a third for tests and a tenth for choices leave little to learn from and little to test on. Two
halves use every row for both, and never for the same claim: what half A suggests (neurons, words, thresholds,
directions, weights) is tested on half B alone, and the other way round. Each way has half of alpha, corrected within
itself, so that the family-wise error of the whole list is at most alpha: given what one half suggests, the other is a
holdout like any (Cox 1975; Dahl, Grotte and Røislien 2008 on exchanging the halves). An autoencoder that sees no
outcome may learn from all texts: what it knows is not what is tested.

In a corpus of two halves every row has a `half` beside its split, and no split is the holdout. Whoever works on one
side sees the other half as the holdout; a corpus with a holdout has one side, itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.placing import SPLITS
from hsae_dagster.core.redundancy import likeness

HALVES = ("a", "b")


@dataclass(frozen=True)
class Side:
    """Texts and observations as one discovery sees them.

    Attributes:
        half: that is learned from, `a` or `b`; empty where there is one holdout.
        texts: as in the corpus; `split` is `holdout` for what is tested.
        observations: likewise.
    """

    half: str
    texts: pl.DataFrame
    observations: pl.DataFrame


def sides(texts: pl.DataFrame, observations: pl.DataFrame) -> list[Side]:
    """The sides of a corpus: two where it has halves, in the order of `HALVES`, else one."""
    if "half" not in texts.columns:
        return [Side("", texts, observations)]
    return [Side(half, seen_from(half, texts), seen_from(half, observations)) for half in HALVES]


def seen_from(half: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the other half as the holdout; unchanged where there are no halves."""
    if "half" not in rows.columns:
        return rows
    held_out = pl.when(pl.col("half") == half).then("split").otherwise(pl.lit("holdout"))
    return rows.with_columns(held_out.alias("split"))


def views(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The same rows as each side sees them."""
    return [seen_from(half, rows) for half in HALVES] if "half" in rows.columns else [rows]


def placed_in(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows by where they landed: by split, or by half where each is the other's holdout."""
    if "half" in rows.columns:
        return {f"half {half.upper()}": rows.filter(pl.col("half") == half) for half in HALVES}
    return {split: rows.filter(pl.col("split") == split) for split in SPLITS}


def silenced(codes: sp.csr_matrix, left_out: Sequence[int]) -> sp.csr_matrix:
    """Codes (n, m) in which some columns never fire, so that no method selects them."""
    if not len(left_out):
        return codes
    keep = np.ones(codes.shape[1])
    keep[list(left_out)] = 0.0
    found = (sp.csr_matrix(codes) @ sp.diags_array(keep)).tocsr()
    found.eliminate_zeros()
    return sp.csr_matrix(found, dtype=codes.dtype)


def of_half(rows: pl.DataFrame, half: str) -> pl.DataFrame:
    """Rows of a table, whose column `half` tells who found them, that belong to one side."""
    return rows.filter(pl.col("half") == half)


def rows_that_test(rows: pl.DataFrame, found_in: str = "") -> pl.DataFrame:
    """Rows on which claims are tested.

    Args:
        rows: of the corpus, with `split` and, where there are halves, `half`.
        found_in: half that claims were found in; empty for claims that nothing was learned for, which every row of
            both halves tests, and for a corpus with a holdout.
    """
    if "half" not in rows.columns:
        return rows.filter(pl.col("split") == "holdout")
    return rows.filter(pl.col("half") != found_in)


def alpha_shares(*, halves: bool, own: int, wanted: int) -> dict[str, float]:
    """Share of alpha by where claims were found; the user's own have a part of it, as many as there are of all.

    Args:
        halves: whether the corpus has them.
        own: claims of the user's own.
        wanted: claims that are looked for; not those found, which the outcomes decided.
    """
    if not halves:
        return {"": 1.0}
    declared = own / (own + wanted)
    return {"a": (1 - declared) / 2, "b": (1 - declared) / 2} | ({"": declared} if own else {})


@dataclass(frozen=True)
class Said:
    """A claim as far as it matters for whether another one says the same.

    Attributes:
        concept_id: of its meaning.
        claim: in words.
        direction: sign of the effect that it was found with; 0 for none.
        answers: (texts,) int8 on all texts: 1 yes, 0 no, -1 missing.
    """

    concept_id: str
    claim: str
    direction: int
    answers: np.ndarray


def twins(first: Sequence[Said], second: Sequence[Said], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs of claims of two halves that say the same, each claim in one pair at most, the most alike first.

    Equal meanings are a pair. Others are one by the rule of near-duplicates (`core.redundancy`), if they were found
    with the same direction (the opposite one, where they are opposites).

    Returns:
        (position in first, position in second, φ of their annotations).
    """
    alike: list[tuple[bool, float, int, int, float]] = []
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            equal = one.concept_id == other.concept_id
            found = likeness((one.answers, other.answers), (one.claim, other.claim), threshold)
            if equal or (found is not None and one.direction * other.direction * np.sign(found) >= 0):
                phi = 1.0 if equal or found is None else found
                alike.append((not equal, -abs(phi), i, j, phi))
    pairs: list[tuple[int, int, float]] = []
    for _, _, i, j, phi in sorted(alike):
        if all(i != a and j != b for a, b, _ in pairs):
            pairs.append((i, j, phi))
    return pairs
