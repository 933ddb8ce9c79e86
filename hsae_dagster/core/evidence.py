"""Texts around a claim: for it, near it, against it.

Belongs here: which holdout texts are shown beside a hypothesis. Does not belong here: how they are drawn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.hypothesis import Evidence, Example
from hsae_dagster.core.lexicon import Lexicon

_SHOWN = 3


def gather_evidence(
    definition: Mapping[str, Any] | None,
    texts: pl.DataFrame,
    answers: np.ndarray,
    activation: np.ndarray,
    strong: float,
    outcome: np.ndarray,
    effect: float,
) -> tuple[Evidence, tuple[tuple[str, float], ...]]:
    """Pick examples, deterministically.

    Args:
        definition: the concept's lexicon, or None.
        texts: judged holdout texts (text_id, text), n rows.
        answers: (n,) int8.
        activation: (n,) of the neuron.
        strong: activation from which on firing counts as strong.
        outcome: (n,) outcome of each text.
        effect: estimated separation; its sign says which outcomes speak against the claim.

    Returns:
        The evidence, and the lexicon's (term, weight) pairs, strongest first (empty without one).
    """
    lexicon = Lexicon.from_definition(definition) if definition else None
    centre = float(np.nanmean(outcome))
    against = np.nan_to_num((centre - outcome) * np.sign(effect if np.isfinite(effect) else 1.0))
    yes, no = answers == 1, answers == 0

    def pick(mask: np.ndarray, key: np.ndarray) -> tuple[Example, ...]:
        rows = np.flatnonzero(mask)
        rows = rows[np.argsort(-key[rows], kind="stable")][:_SHOWN]
        return tuple(_example(texts, int(row), outcome, activation, lexicon) for row in rows)

    evidence = Evidence(
        supporting=pick(yes & (activation > 0), activation),
        near_misses=pick(no & (activation > 0) & (activation >= strong), activation),
        counterexamples=pick(yes & (against > 0), against),
    )
    pairs = tuple(zip(lexicon.terms, lexicon.weights, strict=True)) if lexicon else ()
    return evidence, pairs


def _example(
    texts: pl.DataFrame, row: int, outcome: np.ndarray, activation: np.ndarray, lexicon: Lexicon | None
) -> Example:
    text = texts["text"][row]
    because = tuple(term for term, weight in lexicon.matched(text) if weight > 0)[:8] if lexicon else ()
    return Example(texts["text_id"][row], text, float(outcome[row]), float(activation[row]), because)
