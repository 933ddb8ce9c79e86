"""Sizes that follow from how many texts there are and how long they are.

Belongs here: autoencoder, number of neurons and splits for data that the defaults (about 10,000 texts) do not fit.
Does not belong here: which columns are used (`proposal_roles`). The best size differs between datasets; what is
proposed is a start, and the report says what another size would have to beat (its ceiling).
"""

from typing import Any

import polars as pl

# (fewer distinct texts than, neurons in all, neurons per text, neurons to select)
SMALL = ((1_500, 16, 4, 10), (4_000, 32, 8, 12))
# Tokens per word of English prose, roughly; the default embedder reads 256 tokens.
TOKENS_PER_WORD, TOKENS_READ = 1.35, 256

SizeField = tuple[str, Any, str]


def size_fields(frame: pl.DataFrame, texts: list[str], cluster: str | None) -> list[SizeField]:
    """(path, value, reason) of the fields whose default does not fit."""
    distinct = pl.concat([frame[name].cast(pl.String).drop_nulls().rename("text") for name in texts]).unique()
    clusters = frame[cluster].n_unique() if cluster else distinct.len()
    return [*_splits(clusters, cluster), *_autoencoder(distinct.len())]


def _autoencoder(n: int) -> list[SizeField]:
    for limit, m, k, select in SMALL:
        if n < limit:
            why = f"{n:,} distinct texts carry a smaller dictionary than 10,000 (the default is 64 neurons, 16 a text)."
            return [("saes", [{"m": m, "k": k}], why), ("selection.n", select, f"Of {m} neurons.")]
    if n >= 50_000:
        return [("saes", [{"m": 256, "k": 16}], f"{n:,} distinct texts carry more neurons than the default 64.")]
    return []


def _splits(clusters: int, cluster: str | None) -> list[SizeField]:
    if clusters >= 500:
        return []
    unit = f"clusters (`{cluster}`)" if cluster else "texts"
    why = f"A tenth of {clusters:,} {unit} would be too few to choose and judge concepts on."
    return [("splits.validation", 0.15, why), ("splits.fidelity", 0.15, "")]


def share_cut(frame: pl.DataFrame, texts: list[str]) -> float:
    """Share of texts of which the default embedder would read only the beginning."""
    words = pl.concat([frame[name].cast(pl.String).drop_nulls().head(20_000).rename("text") for name in texts])
    if not words.len():
        return 0.0
    return float((words.str.count_matches(r"\S+") * TOKENS_PER_WORD > TOKENS_READ).mean())  # type: ignore[arg-type]
