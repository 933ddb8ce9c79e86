"""Neurons that start at centroids: on the data, whatever the seed, and more of them agreed on by several seeds."""

import warnings

import numpy as np
import pytest
import torch

from hsae_dagster.core.sae import training
from hsae_dagster.core.sae.model import SAEConfig, encode
from hsae_dagster.core.sae.training import centroids, train_sae
from hsae_dagster.core.selection.stability import FOUND, found_again
from hsae_dagster.errors import MethodError


def bundles(rng: np.random.Generator, n: int, directions: int, d: int) -> np.ndarray:
    """Embeddings near one of several directions each."""
    axes = rng.normal(size=(directions, d))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return (axes[rng.integers(directions, size=n)] + 0.1 * rng.normal(size=(n, d))).astype(np.float32)


def test_they_lie_where_the_embeddings_are() -> None:
    x = torch.from_numpy(bundles(np.random.default_rng(0), 600, 8, 32))
    found = centroids(x, 8, torch.Generator().manual_seed(3))
    assert found.shape == (8, 32)
    assert torch.allclose(torch.linalg.vector_norm(found, dim=1), torch.ones(8), atol=1e-5)
    nearest = (torch.nn.functional.normalize(x, dim=1) @ found.T).max(dim=1).values
    assert float(nearest.mean()) > 0.8
    again = centroids(x, 8, torch.Generator().manual_seed(3))
    assert torch.equal(found, again), "a function of data and seed"


def test_no_centred_copy_of_all_embeddings_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    x = bundles(np.random.default_rng(0), 600, 8, 32)
    centre = torch.from_numpy(np.median(x, axis=0))
    found = centroids(torch.from_numpy(x), 8, torch.Generator().manual_seed(3), centre)
    assert torch.equal(found, centroids(torch.from_numpy(x) - centre, 8, torch.Generator().manual_seed(3)))
    seen = []
    monkeypatch.setattr(training, "centroids", lambda given, *rest: (seen.append(given), centroids(given, *rest))[1])
    train_sae(x, None, SAEConfig(m=8, k=2, max_epochs=1, start="centroids"))
    assert seen[0].data_ptr() == x.ctypes.data


def test_embeddings_without_a_direction_get_a_random_one() -> None:
    x = torch.zeros(20, 6)
    x[:3] = torch.eye(6)[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn says that there are fewer distinct points than centroids
        found = centroids(x, 5, torch.Generator().manual_seed(0))
    assert torch.isfinite(found).all()
    assert torch.allclose(torch.linalg.vector_norm(found, dim=1), torch.ones(5), atol=1e-5)


def test_more_neurons_are_found_again_by_another_seed() -> None:
    rng = np.random.default_rng(1)
    # Topics of unequal subtopics, which dictionaries can cut up in many ways.
    topics, subtopics = rng.normal(size=(20, 48)), rng.normal(size=(20, 10, 48))
    of, at = rng.integers(20, size=2000), np.minimum(rng.geometric(0.35, size=2000) - 1, 9)
    x = topics[of] + 0.8 * subtopics[of, at] + 0.5 * rng.normal(size=(2000, 48))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def agreed(start: str) -> float:
        codes = []
        for seed in (0, 1):
            config = SAEConfig(m=64, k=4, learning_rate=2e-3, max_epochs=10, batch_size=128, seed=seed, start=start)
            codes.append(encode(train_sae(x, None, config).sae, x))
        return float((found_again(codes[0], codes[1]) >= FOUND).mean())

    # 0.58 from a random start, 0.86 from the centroids of one run of k-means, 0.97 from refined ones.
    assert agreed("centroids") > max(agreed("random") + 0.15, 0.92)


def test_another_start_is_refused() -> None:
    with pytest.raises(MethodError, match=r"start is nowhere: .*'random' or 'centroids'"):
        SAEConfig(m=8, k=2, start="nowhere")
