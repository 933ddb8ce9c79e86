"""Sampling against the reference: given equal draws, both samplers show the same texts in the same order."""

import contextlib
import io

import numpy as np
import pytest

from hsae_dagster.core.concepts.fidelity import firing_bounds, sample_examples
from hsae_dagster_tests.core.reference import load_reference_module, record

BINS = [(90.0, 100.0), (80.0, 100.0), (40.0, 60.0), (0.0, 100.0)]


class EqualDraws:
    """The draws of the reference's global state, as a generator; of fewer rows than `least` it takes all, undrawn."""

    def __init__(self, seed: int, least: int) -> None:
        self.state = np.random.RandomState(seed)
        self.least = least

    def permutation(self, rows: np.ndarray) -> np.ndarray:
        return self.state.permutation(rows) if len(rows) >= self.least else rows


def activations(seed: int, n: int = 400) -> np.ndarray:
    """Firing rates from 1 % to 60 % over columns; no two equal positive activations."""
    rng = np.random.default_rng(seed)
    return rng.exponential(size=(n, 6)) * (rng.random((n, 6)) < [0.01, 0.05, 0.1, 0.2, 0.4, 0.6])


def reference_rows(sampler: str, acts: np.ndarray, neuron: int, count: int, seed: int, **options) -> tuple[list, list]:
    before = np.random.get_state()  # noqa: NPY002 - the reference reseeds the global state; put it back
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            drawn = getattr(load_reference_module("interpret_neurons"), sampler)(
                texts=list(range(len(acts))),
                activations=acts,
                neuron_idx=neuron,
                n_examples=count,
                random_seed=seed,
                **options,
            )
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return drawn["positive_texts"], drawn["negative_texts"]


@pytest.mark.parametrize("bin_", BINS)
@pytest.mark.parametrize("seed", range(8))
def test_percentile_bins_give_the_references_texts(seed: int, bin_: tuple[float, float]) -> None:
    acts = activations(seed)
    for neuron in range(acts.shape[1]):
        if not (acts[:, neuron] > 0).any():
            continue
        for count in (10, 20, 60):
            theirs = reference_rows("sample_percentile_bins", acts, neuron, count, seed, high_percentile=bin_)
            bounds = firing_bounds(acts[:, neuron], bin_)
            ours = sample_examples(acts[:, neuron], bounds, count, EqualDraws(seed, count // 2))  # type: ignore[arg-type]
            assert (ours.strong.tolist(), ours.silent.tolist()) == theirs
            record("texts sampled from percentile bins", [*ours.strong, *ours.silent], [*theirs[0], *theirs[1]])


@pytest.mark.parametrize("low", [(0.0, 20.0), (10.0, 50.0), (0.0, 70.0)])
@pytest.mark.parametrize("seed", range(8))
def test_a_low_bin_gives_the_references_texts(seed: int, low: tuple[float, float]) -> None:
    acts = activations(seed)
    compared = 0
    for neuron in range(acts.shape[1]):
        # Of few activations both bins may hold one text, which is shown on one side only here.
        if (acts[:, neuron] > 0).sum() < 6:
            continue
        for count in (10, 20, 60):
            bins = {"high_percentile": (80.0, 100.0), "low_percentile": low}
            theirs = reference_rows("sample_percentile_bins", acts, neuron, count, seed, **bins)
            high, weak = (firing_bounds(acts[:, neuron], ends) for ends in bins.values())
            draws = EqualDraws(seed, count // 2)
            ours = sample_examples(acts[:, neuron], high, count, draws, weak=weak)  # type: ignore[arg-type]
            assert (ours.strong.tolist(), ours.silent.tolist()) == theirs
            record("texts sampled from a low bin", [*ours.strong, *ours.silent], [*theirs[0], *theirs[1]])
            compared += 1
    assert compared >= 12


@pytest.mark.parametrize("seed", range(8))
def test_the_top_sampler_gives_the_references_texts(seed: int) -> None:
    acts = activations(seed)
    for neuron in range(acts.shape[1]):
        if not (acts[:, neuron] > 0).any():
            continue
        for count in (10, 20, 60):
            theirs = reference_rows("sample_top_zero", acts, neuron, count, seed)
            draws = EqualDraws(seed, count // 2)
            ours = sample_examples(acts[:, neuron], (np.inf, np.inf), count, draws, top=True)  # type: ignore[arg-type]
            assert (ours.strong.tolist(), ours.silent.tolist()) == theirs
            record("texts sampled from the top", [*ours.strong, *ours.silent], [*theirs[0], *theirs[1]])


# Defect 35: a dead neuron's positives are all texts, or the sampler breaks down.
def test_a_dead_neuron_has_no_positive_texts_where_the_reference_shows_all() -> None:
    acts = np.zeros((50, 1))
    strong, _ = reference_rows("sample_top_zero", acts, 0, 10, 0)
    assert len(strong) == 50
    with pytest.raises(IndexError):
        reference_rows("sample_percentile_bins", acts, 0, 10, 0)
    for top in (False, True):
        ours = sample_examples(acts[:, 0], firing_bounds(acts[:, 0], (90, 100)), 10, np.random.default_rng(0), top=top)
        assert (len(ours.strong), len(ours.silent)) == (0, 5)


# Defects 35 and 36: candidates that all see one top ten, and a global seed.
def test_candidates_see_other_strong_texts_where_the_references_top_is_always_the_same() -> None:
    acts = activations(0)
    theirs = {tuple(reference_rows("sample_top_zero", acts, 5, 20, seed)[0]) for seed in range(3)}
    assert len(theirs) == 1
    bounds = firing_bounds(acts[:, 5], (80, 100))
    ours = {tuple(sample_examples(acts[:, 5], bounds, 20, np.random.default_rng([0, 5, c])).strong) for c in range(3)}
    assert len(ours) == 3
