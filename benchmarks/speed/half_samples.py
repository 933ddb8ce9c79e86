"""Selection over a hundred half-samples beside one selection: what stability costs.

Belongs here: both in alternation on the same codes. Does not belong here: whether frequencies are right (their tests).
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.children import in_child, measured
from benchmarks.speed.made import load_codes
from benchmarks.speed.outcome import Row
from benchmarks.speed.selection import N_SELECT


def row(name: str, codes: Path, rounds: int = 5) -> Row:
    """Medians of one selection and of selections from 50 pairs of complementary halves."""
    found = in_child("half_samples:work", path=str(codes), rounds=rounds)
    once, halves = (float(np.median([run["seconds"] for run in found[side]])) for side in ("once", "halves"))
    return Row(
        name,
        halves,
        once,
        "s",
        3.0,
        at_most=True,
        agreed=f"{found['sure']} of {N_SELECT} neurons selected again from nine halves of ten; the other side is ours",
        peak_ours=found["halves"][0]["peak"] / 1e6,
        peak_theirs=found["once"][0]["peak"] / 1e6,
        extra={"frequency": found["frequency"]},
    )


def work(path: str, rounds: int) -> dict[str, Any]:
    """In a child: one selection and a hundred half-samples, in alternation."""
    from hsae_dagster.core.selection.methods import select_neurons
    from hsae_dagster.core.selection.stability import selection_frequency

    codes, outcome = load_codes(path)
    clusters = np.arange(len(outcome))
    found: dict[str, list[Any]] = {"once": [], "halves": []}
    frequency = np.empty(0)
    for _ in range(rounds):
        with measured() as run:
            selection = select_neurons(codes, outcome, N_SELECT)
        found["once"].append(run)
        with measured() as run:
            frequency = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(0), pairs=50)
        found["halves"].append(run)
    return {**found, "frequency": frequency, "sure": int((frequency > 0.9).sum())}
