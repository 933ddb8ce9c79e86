"""Noise on training embeddings: how much of it, and that it keeps guidance from learning labels by heart."""

import numpy as np
import pytest
import torch

from hsae_dagster.core.inference.joint_fit import score
from hsae_dagster.core.sae.guidance import LabelledRows, guidance
from hsae_dagster.core.sae.model import SAEConfig
from hsae_dagster.core.sae.training import InputNoise, train_sae


def read_twice(level: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, size=(400, 50)).astype(np.float32))
    generator = torch.Generator().manual_seed(seed)
    noise, rows = InputNoise(x, level, batch_size=100), torch.arange(100)
    added = [(noise.reader(x, generator)(rows) - x[rows]).numpy() for _ in range(2)]
    return x.numpy(), added[0], added[1]


@pytest.mark.parametrize("level", [0.5, 1.5])
def test_noise_is_a_multiple_of_the_spread_and_new_every_epoch(level: float) -> None:
    x, first, second = read_twice(level, seed=1)
    spread = np.sqrt(((x - x.mean(axis=0)) ** 2).mean())
    assert first.std() == pytest.approx(level * spread, rel=0.05)
    assert abs(first.mean()) < 0.1 * spread
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1
    assert (read_twice(level, seed=1)[2] == second).all()
    assert (read_twice(level, seed=2)[1] != first).all()


def test_a_last_batch_of_one_more_text_finds_noise_for_all() -> None:
    x = torch.zeros(5, 3)
    x[0] = 1.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        read = InputNoise(x, 1.0, batch_size=4).reader(x, generator)
        assert read(torch.arange(5)).shape == (5, 3)


def labelled(n: int, seed: int) -> tuple[np.ndarray, LabelledRows]:
    """Embeddings of ten directions in 150 dimensions, the rest fainter; the label is one direction and much chance."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(9).normal(size=(150, 10)))[0].T
    factors = rng.normal(size=(n, 10))
    x = (factors @ basis + 0.3 * rng.normal(size=(n, 150))).astype(np.float32)
    label = (factors[:, 0] + rng.normal(size=n) > 0).astype(float)
    return x, LabelledRows(n, np.arange(n), None, label, np.zeros(n))


def unseen_score(noise: float, seed: int) -> float:
    (x, rows), (x_test, test) = labelled(150, seed), labelled(600, 100 + seed)
    config = SAEConfig(
        m=16, k=6, label_weight=3.0, max_epochs=40, batch_size=50, learning_rate=5e-3, input_noise=noise, seed=seed
    )
    extra, head = guidance(config, "classification", rows, None)
    trained = train_sae(x, None, config, extra_loss=extra)
    with torch.no_grad():
        predicted = head(trained.sae.encode(torch.from_numpy(x_test))).numpy()
    return score("classification", test.target, predicted)


def test_with_noise_fewer_labels_are_learned_by_heart() -> None:
    plain, noisy = (np.mean([unseen_score(noise, seed) for seed in range(4)]) for noise in (0.0, 1.5))
    assert noisy > plain + 0.01
