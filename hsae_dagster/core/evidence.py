"""Texts around a claim: for it, near it, against it.

Belongs here: which holdout texts are shown beside a hypothesis, and the sentence in each that speaks for it. Does not
belong here: how they are drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Closeness, because, meaning_of
from hsae_dagster.core.hypothesis import Evidence, Example

_SHOWN = 3
# Row of a judged text -> its unit that fired the neuron most; empty where none did.
UnitOf: TypeAlias = Callable[[int], str]


def gather_evidence(
    definition: Mapping[str, Any] | None,
    texts: pl.DataFrame,
    answers: np.ndarray,
    activation: np.ndarray,
    strong: float,
    outcome: np.ndarray,
    effect: float,
    *,
    closeness: Closeness | None = None,
    unit_of: UnitOf = lambda row: "",
) -> Evidence:
    """Pick examples, deterministically; short texts first where activations are equal.

    Args:
        definition: what executes the concept, or None where only a reader can judge.
        texts: judged holdout texts (text_id, text, n_words), n rows.
        answers: (n,) int8.
        activation: (n,) of the neuron.
        strong: activation from which on firing counts as strong.
        outcome: (n,) outcome of each text.
        effect: estimated separation; its sign says which outcomes speak against the claim.
        closeness: of units with quoted sentences.
        unit_of: the unit of a text that fired the neuron most.
    """
    centre = float(np.nanmean(outcome))
    against = np.nan_to_num((centre - outcome) * np.sign(effect if np.isfinite(effect) else 1.0))
    yes, no = answers == 1, answers == 0
    meaning = meaning_of(definition) if definition else None
    n_words = texts["n_words"].to_numpy()

    def because_of(text: str) -> tuple[str, ...]:
        return because(meaning, text, closeness)[:8] if meaning else ()

    def pick(mask: np.ndarray, key: np.ndarray) -> tuple[Example, ...]:
        rows = np.flatnonzero(mask)
        rows = rows[np.lexsort((rows, n_words[rows], -key[rows]))][:_SHOWN]
        return tuple(_example(texts, int(row), outcome, activation, because_of, unit_of) for row in rows)

    return Evidence(
        supporting=pick(yes, activation),
        near_misses=pick(no & (activation > 0) & (activation >= strong), activation),
        counterexamples=pick(yes & (against > 0), against),
    )


def _example(
    texts: pl.DataFrame,
    row: int,
    outcome: np.ndarray,
    activation: np.ndarray,
    because_of: Callable[[str], Sequence[str]],
    unit_of: UnitOf,
) -> Example:
    text = texts["text"][row]
    return Example(
        texts["text_id"][row],
        text,
        float(outcome[row]),
        float(activation[row]),
        tuple(because_of(text)),
        unit_of(row),
    )
