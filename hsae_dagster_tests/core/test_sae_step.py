"""The pieces of a training step: sparse products against dense ones, the loss on degenerate batches, extra terms."""

import numpy as np
import pytest
import torch
from torch import nn

from hsae_dagster.core.sae.model import BatchCodes, SAEConfig, SparseAutoencoder, largest_columns, largest_positions
from hsae_dagster.core.sae.training import (
    ExtraLoss,
    SAETrainer,
    calibrate_threshold,
    column_medians,
    evaluate,
    spread,
    squares_about_means,
    train_sae,
    training_loss,
)
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.reference import load_reference_module, record
from hsae_dagster_tests.core.reference_sae import dense_of, twin


def made(config: SAEConfig, seed: int = 0, d: int = 10, n: int = 64) -> tuple[SparseAutoencoder, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    sae = SparseAutoencoder(config, d)
    sae.initialise(column_medians(x), generator)
    with torch.no_grad():
        sae.neuron_bias.copy_(0.1 * torch.randn(config.m, generator=generator))
    return sae.double(), x.double()


def normalised_mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over that of the target's column means."""
    return (predicted - target).square().mean() / spread(target)


def directions(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(20, 16))
    return ((rng.random((n, 20)) * (rng.random((n, 20)) < 0.15)) @ basis).astype(np.float32)


@pytest.mark.parametrize("prefixes", [None, (3, 11, 24)])
@pytest.mark.parametrize("batch_topk", [False, True])
def test_any_product_with_the_codes_has_the_gradients_of_the_dense_one(
    prefixes: tuple[int, ...] | None, batch_topk: bool
) -> None:
    sae, x = made(SAEConfig(m=24, k=4, prefixes=prefixes, batch_topk=batch_topk))
    head = nn.Parameter(torch.randn(24, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    codes = sae.encode_batch(x).codes
    kept = dense_of(codes).detach() > 0
    assert kept.sum() <= 4 * len(x)
    dense = ((x - sae.input_bias) @ sae.encoder.T + sae.neuron_bias).relu() * kept
    torch.testing.assert_close(dense_of(codes), dense, rtol=0, atol=1e-12)
    wanted = [head, sae.encoder, sae.neuron_bias, sae.input_bias]
    ours = torch.autograd.grad(codes.decode(head).sin().sum(), wanted)
    theirs = torch.autograd.grad((dense @ head).sin().sum(), wanted)
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=0, atol=1e-11)


def test_the_module_in_float32_agrees_with_the_reference_to_a_hundred_thousandth() -> None:
    config = SAEConfig(m=256, k=8)
    sae, x = made(config, d=96, n=300)
    reference = twin(sae, config).float().eval()
    activations = reference(x.float())[1]["activations"]
    ours = dense_of(sae.float().encode(x.float()))
    torch.testing.assert_close(ours, activations, rtol=0, atol=1e-5)
    record("activations, float32", ours.detach(), activations.detach())


def test_normalised_error_is_the_references_wherever_that_one_is_finite() -> None:
    theirs = load_reference_module("sae").SparseAutoencoder._normalized_mse
    generator = torch.Generator().manual_seed(3)
    predicted, target = (torch.randn(33, 7, generator=generator, dtype=torch.float64) + 5 for _ in range(2))
    assert float(normalised_mse(predicted, target)) == pytest.approx(float(theirs(predicted, target)), abs=1e-12)
    assert squares_about_means(target) == pytest.approx(float(spread(target)) * target.numel(), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 5])
def test_without_any_spread_errors_are_relative_to_predicting_zero(rows: int, dtype: torch.dtype) -> None:
    row = torch.tensor([[0.1, -0.7, 3.3]], dtype=dtype)
    same = row.expand(rows, 3).contiguous()
    assert float(spread(same)) == pytest.approx(float(row.square().mean()), rel=1e-6)
    assert squares_about_means(same) == pytest.approx(rows * float(row.square().sum()), rel=1e-6)
    assert float(normalised_mse(torch.zeros_like(same), same)) == pytest.approx(1.0, rel=1e-6)
    assert float(spread(torch.zeros_like(same))) == 1.0
    sae = made(SAEConfig(m=6, k=2), d=3)[0].to(dtype)
    loss = training_loss(sae, same, sae.encode_batch(same))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in sae.parameters() if p.grad is not None)


def test_a_bias_far_from_the_data_does_not_change_the_normalisation() -> None:
    sae, x = made(SAEConfig(m=12, k=12))
    with torch.no_grad():
        sae.input_bias += 100.0
    expected = normalised_mse(sae.encode_batch(x).codes.decode(sae.decoder) + sae.input_bias, x)
    assert float(training_loss(sae, x, sae.encode_batch(x))) == pytest.approx(float(expected.detach()), rel=1e-10)


def test_the_auxiliary_term_is_there_only_for_dead_neurons_and_pushes_them_alone() -> None:
    sae, x = made(SAEConfig(m=24, k=2))
    encoded = sae.encode_batch(x)
    alone = training_loss(sae, x, encoded)
    assert training_loss(sae, x, encoded, torch.empty(0, dtype=torch.long)) == alone
    both = training_loss(sae, x, sae.encode_batch(x), torch.tensor([3, 17]))
    assert both > alone
    (of_all,), (of_plain,) = (torch.autograd.grad(loss, [sae.neuron_bias]) for loss in (both, alone))
    assert (of_all - of_plain).nonzero().flatten().tolist() == [3, 17]


def test_the_largest_of_many_values_are_exact_even_where_the_sample_misleads() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(100_000, generator=generator)
    misleading = torch.zeros(100_000)
    misleading[::61] = 5 + torch.rand(len(misleading[::61]), generator=generator)
    misleading[7:2007:61] = 3.0
    for flat, count in ((plain, 4_000), (misleading, 1_660), (plain, 99_999)):
        found = flat[largest_positions(flat, count)].sort().values
        assert torch.equal(found, flat.sort().values[-count:])


def test_the_largest_of_each_row_are_exact_and_ties_leave_no_row_short() -> None:
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(50, 40, generator=generator)
    tied = plain.round()
    tied[3] = 0.0
    for values in (plain, plain.double(), tied):
        for k in (1, 7, 39, 40):
            columns = largest_columns(values, k)
            assert columns.shape == (50, k)
            assert all(len(row.unique()) == k for row in columns), "no neuron twice"
            found = values.gather(1, columns).sort(dim=1).values
            assert torch.equal(found, values.sort(dim=1).values[:, -k:])


@pytest.mark.parametrize("n", [300, 5000])
def test_calibration_leaves_exactly_k_neurons_per_text_on_its_own_texts(n: int) -> None:
    sae, x = made(SAEConfig(m=40, k=5, batch_topk=True), n=n)
    calibrate_threshold(sae, x)
    assert int((sae.encode(x).values > 0).sum()) == 5 * n
    with torch.no_grad():
        sae.neuron_bias -= 100.0
    calibrate_threshold(sae, x)
    assert float(sae.threshold) == 0.0
    assert torch.equal(sae(x), sae.input_bias.expand_as(x))


def test_medians_are_the_references_lower_ones() -> None:
    x = torch.randn(50, 2000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(column_medians(x), x.median(dim=0).values)


def test_an_extra_loss_trains_its_head_shapes_the_codes_and_is_monitored() -> None:
    train, validation = directions(600, 1), directions(300, 2)
    labels = [torch.from_numpy(x[:, 0] / train[:, 0].std()) for x in (train, validation)]
    config = SAEConfig(m=24, k=3, batch_size=64, max_epochs=15, learning_rate=3e-3)
    head = nn.Parameter(torch.zeros(24, 1))

    def error(of: torch.Tensor, codes: BatchCodes, rows: torch.Tensor) -> torch.Tensor:
        return (codes.decode(head)[:, 0] - of[rows]).square().mean()

    guide = ExtraLoss(
        train=lambda codes, rows: error(labels[0], codes, rows),
        validation=lambda codes, rows: error(labels[1], codes, rows),
        parameters=(head,),
    )
    guided = train_sae(train, validation, config, extra_loss=guide)
    plain = train_sae(train, validation, config)
    assert guided.history[-1].validation_loss > guided.history[-1].validation_nmse
    assert plain.history[-1].validation_loss == pytest.approx(plain.history[-1].validation_nmse, abs=1e-9)
    assert not torch.equal(guided.sae.encoder, plain.sae.encoder)
    seen = evaluate(guided.sae, torch.from_numpy(validation), None, guide.validation)
    assert seen.loss - seen.nmse < 0.5 * float(labels[1].square().mean())
    assert seen.loss == pytest.approx(guided.history[guided.best_epoch - 1].validation_loss, rel=1e-6)


def test_an_extra_loss_must_know_its_rows() -> None:
    sae, x = made(SAEConfig(m=8, k=2))
    trainer = SAETrainer(sae, sae.config, ExtraLoss(train=lambda codes, rows: codes.values.sum()))
    with pytest.raises(MethodError, match="pass the rows"):
        trainer.step(x)


def test_training_that_leaves_the_finite_numbers_says_so() -> None:
    config = SAEConfig(m=8, k=2, learning_rate=1e38, clip_grad=None, max_epochs=3, batch_size=16)
    with pytest.raises(MethodError, match="lower learning_rate"):
        train_sae(directions(64, 0), None, config)


def test_without_validation_all_epochs_run_and_the_best_on_training_texts_is_kept() -> None:
    config = SAEConfig(m=8, k=2, max_epochs=7, patience=1, batch_size=16, learning_rate=0.2)
    trained = train_sae(directions(80, 0), None, config)
    losses = [record.validation_loss for record in trained.history]
    assert len(losses) == 7
    assert trained.best_epoch == int(np.argmin(losses)) + 1
    assert trained.stop_reason == "all 7 epochs were used"
    again = evaluate(trained.sae, torch.from_numpy(directions(80, 0)))
    assert again.loss == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"aux_k": 9}, "between 1 and m = 8"),
        ({"multi_coef": 0.5}, "needs multi_k"),
        ({"learning_rate": float("nan")}, "learning_rate is nan: .*finite"),
        ({"prefixes": ()}, "rise strictly"),
        ({"clip_grad": 0.0}, "clip_grad is 0.0"),
        ({"patience": 0}, "patience is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_each_setting_that_cannot_be_used_is_named(settings: dict, words: str) -> None:
    with pytest.raises(MethodError, match=words):
        SAEConfig(m=8, k=2, **settings)
