"""The SAE against the reference in float64, and each of the reference's SAE defects shown to be gone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from hsae_dagster.core.sae.model import (
    SAEConfig,
    SparseAutoencoder,
    concatenate_codes,
    encode,
    sae_from_arrays,
    state_to_arrays,
)
from hsae_dagster.core.sae.training import SAETrainer, evaluate, shuffled_batches, spread, train_sae
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.reference import record
from hsae_dagster_tests.core.reference_sae import twin

VARIANTS = {
    "top-k": SAEConfig(m=24, k=4),
    "dense top-k": SAEConfig(m=6, k=6),
    "matryoshka": SAEConfig(m=24, k=4, prefixes=(4, 9, 24)),
    "multi-k": SAEConfig(m=24, k=4, multi_k=12, multi_coef=0.125),
    "batch top-k": SAEConfig(m=24, k=4, batch_topk=True),
    "batch top-k matryoshka": SAEConfig(m=24, k=4, batch_topk=True, prefixes=(8, 24)),
    # One step of silence is death, so the aux branch works from the second step on.
    "aux-k": SAEConfig(m=40, k=2, dead_after_steps=1, aux_k=5),
    "all at once": SAEConfig(m=40, k=2, dead_after_steps=1, prefixes=(7, 40), multi_k=6, multi_coef=0.5),
}


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def made(config: SAEConfig, seed: int = 0, d: int = 10, n: int = 64) -> tuple[SparseAutoencoder, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    sae = SparseAutoencoder(config, d)
    sae.initialise(x.median(dim=0).values, generator)
    with torch.no_grad():
        sae.neuron_bias.copy_(0.1 * torch.randn(config.m, generator=generator))
        sae.encoder.add_(0.05 * torch.randn(config.m, d, generator=generator))
    return sae, x


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_four_steps_equal_the_reference_in_float64(name: str, seed: int) -> None:
    config = VARIANTS[name]
    with float64():
        sae, x = made(config, seed)
        reference = twin(sae, config)
        trainer = SAETrainer(sae, config)
        optimiser = torch.optim.Adam(reference.parameters(), lr=config.learning_rate)
        for step in range(4):
            batch = x[step * 16 : step * 16 + 16]
            reference.train()
            recon, info = reference(batch)
            loss = reference.compute_loss(batch, recon, info, config.aux_coef, config.multi_coef)
            optimiser.zero_grad()
            loss.backward()
            reference.adjust_decoder_gradient_()
            torch.nn.utils.clip_grad_norm_(reference.parameters(), config.clip_grad)
            optimiser.step()
            reference.normalize_decoder_()
            dead_before = bool((reference.steps_since_activation > config.dead_after_steps).any())
            ours = float(trainer.step(batch))
            # With nothing dead the reference adds the constant loss of predicting a residual by zeros.
            idle = 0.0 if dead_before else float(_idle_aux(batch, recon)) * config.aux_coef
            assert ours == pytest.approx(loss.item() - idle, abs=1e-10)
            record("loss of a training step, float64", ours, loss.item() - idle)
        assert torch.equal(trainer.silent_steps, reference.steps_since_activation)
        for mine, theirs in (
            (sae.encoder, reference.encoder.weight),
            (sae.decoder, reference.decoder.weight.T),
            (sae.neuron_bias, reference.neuron_bias),
            (sae.input_bias, reference.input_bias),
        ):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
            record("weights after four training steps, float64", mine.detach(), theirs.detach())


def _idle_aux(x: torch.Tensor, recon: torch.Tensor) -> torch.Tensor:
    residual = (x - recon).detach()
    return residual.square().mean() / spread(residual)


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_codes_equal_the_reference(name: str) -> None:
    config = VARIANTS[name]
    with float64():
        sae, x = made(config, 5)
        reference = twin(sae, config)
        sae.threshold.fill_(0.2)
        reference.threshold.fill_(0.2)
        reference.eval()
        sae.eval()
        recon, info = reference(x)
        torch.testing.assert_close(sae(x), recon, rtol=0, atol=1e-10)
        record("reconstructions, float64", sae(x).detach(), recon.detach())
        codes = encode(sae, x.numpy(), batch_size=7)
    np.testing.assert_allclose(codes.toarray(), info["activations"].detach().numpy(), atol=1e-5)
    record("activations, float64", codes.toarray(), info["activations"].detach())
    assert codes.dtype == np.float64
    assert codes.has_sorted_indices
    assert (codes.data > 0).all()


def clustered(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    """Sparse mixtures of 20 directions, unit length, as embeddings are."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(20, d))
    weights = rng.random((n, 20)) * (rng.random((n, 20)) < 0.15)
    x = weights @ directions + 0.05 * rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


SMALL = SAEConfig(m=24, k=3, batch_size=64, max_epochs=25, learning_rate=3e-3)


def test_training_learns_and_records_it() -> None:
    seen = []
    trained = train_sae(clustered(600), clustered(200, seed=1), SMALL, on_epoch=seen.append)
    first, best = trained.history[0], trained.history[trained.best_epoch - 1]
    assert tuple(seen) == trained.history
    assert best.explained_variance > max(0.6, first.explained_variance)
    assert best.validation_loss == pytest.approx(1 - best.explained_variance, abs=1e-6)
    assert 0 < best.l0 <= SMALL.k


def test_the_best_weights_are_restored_not_the_last() -> None:
    config = SAEConfig(m=24, k=3, batch_size=16, max_epochs=60, patience=4, learning_rate=0.05)
    train, validation = clustered(80), clustered(200, seed=1)
    trained = train_sae(train, validation, config)
    losses = [record.validation_loss for record in trained.history]
    assert trained.best_epoch == int(np.argmin(losses)) + 1
    assert trained.best_epoch < len(losses)
    assert trained.stop_reason == "no improvement for 4 epochs"
    again = evaluate(trained.sae, torch.from_numpy(validation)).loss
    assert again == pytest.approx(min(losses), abs=1e-6)
    assert again < losses[-1]


def test_equal_seeds_give_equal_bits_and_no_global_generator_moves() -> None:
    before = torch.random.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (train_sae(clustered(300), clustered(99, seed=1), SMALL) for _ in range(2))
    other = train_sae(clustered(300), clustered(99, seed=1), SAEConfig(**{**SMALL.__dict__, "seed": 1}))
    for name, value in state_to_arrays(first.sae).items():
        np.testing.assert_array_equal(value, state_to_arrays(second.sae)[name])
    assert not np.array_equal(state_to_arrays(first.sae)["encoder"], state_to_arrays(other.sae)["encoder"])
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("n", [513, 65, 129])
def test_a_last_batch_of_one_text_joins_the_one_before(n: int) -> None:
    size = 512 if n == 513 else 64
    batches = list(shuffled_batches(n, size, torch.Generator().manual_seed(0), torch.device("cpu")))
    assert min(len(batch) for batch in batches) > 1
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    config = SAEConfig(m=8, k=2, batch_size=size, max_epochs=3)
    trained = train_sae(clustered(n), clustered(n, seed=1), config)
    assert all(np.isfinite(value).all() for value in state_to_arrays(trained.sae).values())
    assert all(np.isfinite(record.validation_loss) for record in trained.history)


def test_equal_texts_do_not_break_training() -> None:
    same = np.tile(clustered(1), (100, 1))
    trained = train_sae(same, same, SAEConfig(m=8, k=2, max_epochs=3, batch_size=32))
    assert all(np.isfinite(value).all() for value in state_to_arrays(trained.sae).values())


def test_looking_changes_nothing() -> None:
    config = SAEConfig(m=24, k=3, batch_topk=True)
    sae, x = made(config)
    trainer = SAETrainer(sae, config)
    trainer.step(x)
    state = {name: value.clone() for name, value in sae.state_dict().items()}
    counts = trainer.silent_steps.clone()
    evaluate(sae, x)
    encode(sae.eval(), x.numpy())
    assert torch.equal(counts, trainer.silent_steps)
    for name, value in sae.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("epochs", [1, 3, 25])
def test_batch_topk_fires_k_neurons_at_inference_however_short_the_training(epochs: int) -> None:
    config = SAEConfig(m=48, k=4, batch_topk=True, batch_size=64, max_epochs=epochs, learning_rate=3e-3)
    trained = train_sae(clustered(1000), clustered(400, seed=1), config)
    unseen = encode(trained.sae, clustered(1000, seed=2))
    assert unseen.nnz / 1000 == pytest.approx(config.k, rel=0.1)


def test_dead_neurons_are_revived() -> None:
    """Neurons pushed far below zero never win again by themselves; the aux term brings them back."""

    def dead_after(aux_coef: float) -> int:
        config = SAEConfig(m=24, k=2, batch_size=64, dead_after_steps=5, aux_coef=aux_coef, learning_rate=1e-2)
        x = torch.from_numpy(clustered(640))
        sae = SparseAutoencoder(config, x.shape[1])
        sae.initialise(x.median(dim=0).values, torch.Generator().manual_seed(0))
        with torch.no_grad():
            sae.neuron_bias[12:] = -0.6
        trainer = SAETrainer(sae, config)
        for _ in range(30):
            for batch in x.split(64):
                trainer.step(batch)
        return int((trainer.silent_steps > 5).sum())

    assert dead_after(0.5) < dead_after(0.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"m": 4, "k": 5}, "k is 5 and m is 4"),
        ({"m": 4, "k": 0}, "k is 0"),
        ({"m": 8, "k": 2, "prefixes": (2, 4)}, "end at m = 8"),
        ({"m": 8, "k": 2, "prefixes": (4, 4, 8)}, "rise strictly"),
        ({"m": 8, "k": 2, "multi_k": 9}, "multi_k is 9"),
        ({"m": 8, "k": 2, "batch_size": 1}, "batch_size is 1: .* equal to 2"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_at_once(settings: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        SAEConfig(**settings)


def test_unusable_embeddings_are_named() -> None:
    bad = clustered(50)
    bad[7, 3] = np.nan
    with pytest.raises(MethodError, match="training embedding of row 7 is not finite"):
        train_sae(bad, None, SMALL)
    with pytest.raises(MethodError, match="at least 2 training texts; there are 1"):
        train_sae(clustered(1), None, SMALL)


def test_a_checkpoint_survives_arrays_and_wrong_sizes_are_refused() -> None:
    trained = train_sae(clustered(300), None, SMALL)
    arrays = state_to_arrays(trained.sae)
    again = sae_from_arrays(SMALL, arrays)
    np.testing.assert_array_equal(encode(again, clustered(40)).toarray(), encode(trained.sae, clustered(40)).toarray())
    assert all(parameter.is_contiguous() for parameter in again.parameters())
    with pytest.raises(MethodError, match="does not fit m = 12"):
        sae_from_arrays(SAEConfig(m=12, k=3), arrays)


def test_columns_know_their_autoencoder() -> None:
    a, b = encode(made(SAEConfig(m=5, k=2))[0].eval(), np.ones((3, 10), np.float32)), None
    b = encode(made(SAEConfig(m=4, k=1))[0].eval(), np.ones((3, 10), np.float32))
    codes, sources = concatenate_codes([("first", a), ("second", b)])
    assert codes.shape == (3, 9)
    assert sources[4] == ("first", 4)
    assert sources[5] == ("second", 0)
    np.testing.assert_array_equal(codes.toarray()[:, 5:], b.toarray())
