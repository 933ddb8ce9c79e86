"""Guidance by the label: its loss and gradients against plain autograd, its labels, its batches, what it does."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from hsae_dagster.core.inference.joint_fit import score
from hsae_dagster.core.sae.guidance import (
    LabelHead,
    LabelledRows,
    PairedBatches,
    PredictionLoss,
    guidance,
    labelled_rows,
    side_by_side,
)
from hsae_dagster.core.sae.model import SAEConfig, SparseAutoencoder
from hsae_dagster.core.sae.training import column_medians, train_sae
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.reference_sae import dense_of

SHAPES = [
    {},
    {"batch_topk": True},
    {"prefixes": (3, 11, 24)},
    {"multi_k": 12, "multi_coef": 0.5},
    {"prefixes": (5, 24), "batch_topk": True},
]
TASKS = ["regression", "classification", "pairwise"]


def rows_of(task: str, n: int, seed: int = 0, per_text: int = 2) -> LabelledRows:
    rng = np.random.default_rng(seed)
    size = per_text * n
    first = rng.integers(n, size=size)
    second = (first + rng.integers(1, n, size=size)) % n if task == "pairwise" else None
    label = rng.normal(size=size) if task == "regression" else (rng.random(size) < 0.4).astype(float)
    offset = rng.normal(size=size) if task == "classification" else np.zeros(size)
    return LabelledRows(n, first, second, label, offset)


def plain_loss(task: str, rows: LabelledRows, scores: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """Observation by observation, as a reader of the definition would write it."""
    place = {int(row): i for i, row in enumerate(batch)}
    terms = []
    for i, first in enumerate(rows.first):
        second = None if rows.second is None else int(rows.second[i])
        if int(first) not in place or (second is not None and second not in place):
            continue
        value = scores[place[int(first)]] - (0 if second is None else scores[place[second]])
        if task == "regression":
            terms.append((value - rows.target[i]) ** 2)
        else:
            sign = 1.0 if rows.target[i] == 1 else -1.0
            terms.append(torch.log1p(torch.exp(-sign * (value + rows.offset[i]))))
    return torch.stack(terms).sum() * (rows.n_texts / len(rows.first)) / len(batch)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_those_of_dense_autograd(task: str, shape: dict) -> None:
    config = SAEConfig(m=24, k=4, label_weight=0.7, **shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 10, generator=generator, dtype=torch.float64)
    sae = SparseAutoencoder(config, 10)
    sae.initialise(column_medians(x.float()), generator)
    sae = sae.double()
    rows, batch = rows_of(task, 40), torch.randperm(40, generator=generator)[:30]
    extra, head = guidance(config, task, rows, None)
    head.double()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        head.bias.fill_(0.3)
    extra = replace(extra, parameters=[])
    loss = PredictionLoss(rows, task, torch.float64, "cpu")
    codes = sae.encode_batch(x[batch]).codes
    kept = dense_of(codes).detach() > 0
    dense = ((x[batch] - sae.input_bias) @ sae.encoder.T + sae.neuron_bias).relu() * kept
    scores = dense @ head.weight + head.bias
    theirs = 0.7 * plain_loss(task, rows, scores, batch)
    torch.testing.assert_close(head.loss(codes, batch, loss, 0.7), theirs, rtol=0, atol=1e-11)
    wanted: list[nn.Parameter] = [head.weight, head.bias, sae.encoder, sae.neuron_bias, sae.input_bias]
    mine = torch.autograd.grad(3.0 * head.loss(codes, batch, loss, 0.7 / 3.0), wanted)
    their = torch.autograd.grad(0.7 * plain_loss(task, rows, scores, batch), wanted)
    for one, other in zip(mine, their, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("task", TASKS)
def test_batches_of_an_epoch_add_up_to_the_mean_over_all_observations(task: str) -> None:
    """Each observation of a text counts once an epoch, whatever batch it falls into; pairs where both texts meet."""
    rows = rows_of(task, 60)
    scores = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = PredictionLoss(rows, task, torch.float64, "cpu")
    everything = torch.arange(60)
    whole = float(loss(scores, everything)[0])
    assert whole == pytest.approx(float(plain_loss(task, rows, scores, everything)), abs=1e-12)
    if task != "pairwise":
        parts = [float(loss(scores[part], part)[0]) * len(part) / 60 for part in torch.randperm(60).split(17)]
        assert sum(parts) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_texts_of_one_observation_or_none_are_found_too(task: str) -> None:
    rows, drawn = rows_of(task, 60), torch.Generator().manual_seed(1)
    chosen = torch.randperm(60, generator=drawn)[:50].numpy()
    first, second = chosen[:25], chosen[25:] if task == "pairwise" else None
    rows = LabelledRows(60, first, second, rows.target[:25], rows.offset[:25])
    scores = torch.randn(60, generator=drawn, dtype=torch.float64, requires_grad=True)
    batch = torch.randperm(60, generator=drawn)[:40]
    theirs = plain_loss(task, rows, scores[batch], batch)
    (gradient,) = torch.autograd.grad(theirs, scores)
    loss, slope = PredictionLoss(rows, task, torch.float64, "cpu")(scores.detach()[batch], batch)
    assert float(loss) == pytest.approx(float(theirs.detach()), abs=1e-12)
    torch.testing.assert_close(slope, gradient[batch], rtol=0, atol=1e-12)


def observed(n: int, task: str, seed: int = 0) -> tuple[pl.Series, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    ids = pl.Series("text_id", [f"{i:04d}" for i in range(n)])
    region, age = rng.integers(3, size=n), rng.normal(size=n)
    raw = 2.0 * (region == 1) + 0.5 * age + rng.normal(size=n)
    label = raw if task == "regression" else (raw > 0.5).astype(float)
    columns = {"text_id": ids, "label": label, "control:region": region.astype(str), "control:age": age}
    return ids, pl.DataFrame(columns)


def test_controls_are_partialled_out_with_training_rows_alone() -> None:
    training, validation = observed(400, "regression"), observed(100, "regression", seed=1)
    learned, judged = labelled_rows("regression", training, validation)
    age = training[1]["control:age"].to_numpy()
    assert abs(np.corrcoef(learned.target, age)[0, 1]) < 1e-10
    for region in "012":
        assert abs(learned.target[(training[1]["control:region"] == region).to_numpy()].mean()) < 1e-10
    assert learned.target.std() == pytest.approx(1.0)
    # Other validation labels change nothing on training rows.
    other = (validation[0], validation[1].with_columns(pl.col("label") * 9 + 4))
    np.testing.assert_array_equal(labelled_rows("regression", training, other)[0].target, learned.target)
    assert judged.target.std() == pytest.approx(1.0, abs=0.2)


def test_controls_of_a_class_are_an_offset_in_log_odds() -> None:
    training, validation = observed(2000, "classification"), observed(300, "classification", seed=1)
    learned, judged = labelled_rows("classification", training, validation)
    assert set(np.unique(learned.target)) == {0.0, 1.0}
    share = 1 / (1 + np.exp(-judged.offset))
    assert abs(share.mean() - judged.target.mean()) < 0.1
    assert score("classification", judged.target, judged.offset) > 0.75
    bare = labelled_rows(
        "classification", *((ids, frame.select("text_id", "label")) for ids, frame in (training, validation))
    )
    odds = learned.target.mean() / (1 - learned.target.mean())
    np.testing.assert_allclose(bare[0].offset, np.log(odds))


def test_a_label_of_one_value_is_refused() -> None:
    ids, frame = observed(20, "regression")
    with pytest.raises(MethodError, match="cannot guide an autoencoder"):
        labelled_rows("regression", (ids, frame.with_columns(pl.lit(1.0).alias("label"))), (ids, frame))


def chained_pairs(groups: int, size: int) -> LabelledRows:
    """Groups of texts; each text is paired with the next one of its group."""
    first = np.array([g * size + i for g in range(groups) for i in range(size - 1)])
    return LabelledRows(groups * size, first, first + 1, np.ones(len(first)), np.zeros(len(first)))


def test_pairs_meet_in_a_batch_and_every_text_comes_once_an_epoch() -> None:
    rows = chained_pairs(groups=100, size=4)
    paired, generator = PairedBatches(rows), torch.Generator().manual_seed(0)
    orders = []
    for _ in range(3):
        batches = list(paired.batches(rows.n_texts, 64, generator, torch.device("cpu")))
        order = torch.cat(batches).numpy()
        orders.append(order)
        np.testing.assert_array_equal(np.sort(order), np.arange(400))
        batch_of = np.empty(400, dtype=int)
        batch_of[order] = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
        assert (batch_of[rows.first] == batch_of[rows.second]).mean() > 0.95
    assert not np.array_equal(orders[0], orders[1])
    again = PairedBatches(rows).order(torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(again, orders[0])


def test_pairs_of_one_large_group_take_turns() -> None:
    rows, generator = chained_pairs(groups=1, size=300), torch.Generator().manual_seed(0)
    paired, met = PairedBatches(rows), np.zeros(299, dtype=int)
    for _ in range(40):
        batch_of = np.empty(300, dtype=int)
        for number, batch in enumerate(paired.batches(300, 50, generator, torch.device("cpu"))):
            batch_of[batch.numpy()] = number
        met += batch_of[rows.first] == batch_of[rows.second]
    assert met.min() >= 5


def test_texts_side_by_side_keep_their_observations() -> None:
    rows = rows_of("pairwise", 50)
    order, moved = side_by_side(rows)
    np.testing.assert_array_equal(order[moved.first], rows.first)
    np.testing.assert_array_equal(order[moved.second], rows.second)
    single = rows_of("regression", 50)
    assert side_by_side(single)[1] is single


def planted(n: int, seed: int, task: str) -> tuple[np.ndarray, LabelledRows]:
    """Embeddings of 20 sparse directions; the label hangs on a mixture of three weak ones."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(20, 16))
    parts = rng.random((n, 20)) * (rng.random((n, 20)) < 0.15)
    x = (parts @ basis + 0.3 * rng.normal(size=(n, 16))).astype(np.float32)
    signal = x @ np.random.default_rng(5).normal(size=16)
    signal = (signal - signal.mean()) / signal.std()
    first, second = np.arange(n), None
    noise = 0.5 * rng.normal(size=n)
    target = (signal + noise) / np.hypot(1, 0.5)
    if task == "pairwise":
        first, second = np.arange(0, n, 2), np.arange(1, n, 2)
        target = (signal[first] - signal[second] + noise[first] > 0).astype(float)
    elif task == "classification":
        target = (signal + noise > 0).astype(float)
    return x, LabelledRows(n, first, second, target, np.zeros(len(target)))


def predicted(head: LabelHead, sae: SparseAutoencoder, x: np.ndarray, rows: LabelledRows) -> np.ndarray:
    with torch.no_grad():
        scores = head(sae.encode(torch.from_numpy(x))).numpy()
    return scores[rows.first] - (0 if rows.second is None else scores[rows.second])


def unseen_score(task: str, permute: np.random.Generator | None = None, **shape: Any) -> float:
    (x, rows), (x_test, test) = planted(1200, 0, task), planted(600, 1, task)
    config = SAEConfig(m=12, k=2, label_weight=1.0, max_epochs=25, batch_size=128, learning_rate=5e-3, **shape)
    learned = rows if permute is None else replace(rows, target=permute.permutation(rows.target))
    extra, head = guidance(config, task, learned, None)
    trained = train_sae(x, None, config, extra_loss=extra)
    return score(task, test.target, predicted(head, trained.sae, x_test, test))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "shape", [{}, {"batch_topk": True}, {"prefixes": (6, 12)}, {"multi_k": 6, "multi_coef": 0.5}], ids=str
)
def test_guided_neurons_predict_unseen_labels(task: str, shape: dict) -> None:
    assert unseen_score(task, **shape) > (0.2 if task == "regression" else 0.7)


@pytest.mark.parametrize("task", TASKS)
def test_permuted_labels_teach_nothing(task: str) -> None:
    rng = np.random.default_rng(0)
    scores = [unseen_score(task, rng, seed=seed) for seed in range(6)]
    # What noise teaches is a random direction, which in 16 dimensions has a correlation of 0 ± 1/4 with the true one.
    assert np.mean(scores) < (0.0 if task == "regression" else 0.6)


def test_early_stopping_hears_the_validation_labels() -> None:
    (x, rows), (x_test, test) = planted(300, 0, "regression"), planted(150, 1, "regression")
    config = SAEConfig(m=12, k=2, label_weight=5.0, max_epochs=8, batch_size=64, learning_rate=5e-3)
    runs = []
    for judged in (test, replace(test, target=-test.target)):
        extra, _ = guidance(config, "regression", rows, judged)
        runs.append(train_sae(x, x_test, config, extra_loss=extra).history)
    assert runs[0][0].train_loss == runs[1][0].train_loss
    assert min(r.validation_loss for r in runs[0]) < min(r.validation_loss for r in runs[1]) - 1.0


def test_a_neuron_that_is_silent_in_a_batch_keeps_the_weights_finite() -> None:
    x, rows = planted(60, 0, "regression")
    config = SAEConfig(m=40, k=36, label_weight=1.0, max_epochs=3, batch_size=4)
    trained = train_sae(x, None, config, extra_loss=guidance(config, "regression", rows, None)[0])
    assert all(torch.isfinite(weights).all() for weights in trained.sae.parameters())
    silent = trained.sae.encode(torch.from_numpy(x[:2]))
    assert (dense_of(silent).abs().sum(dim=0) == 0).any()


def test_guidance_without_labels_is_refused() -> None:
    with pytest.raises(MethodError, match="needs labels"):
        train_sae(planted(60, 0, "regression")[0], None, SAEConfig(m=4, k=1, label_weight=0.1, max_epochs=1))
