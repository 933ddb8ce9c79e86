"""Training beside the reference's: the time of a step, the time to the same validation loss, what guidance costs.

Belongs here: steps of both sides in alternation from equal weights on equal batches, equality of those steps in
float64. Does not belong here: data (`made`).

A step of the reference is the body of its `fit` (forward, loss, backward, projection, clipping, Adam, renormalisation,
reading the loss) without its data loader, which favours it.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.speed.children import in_child
from benchmarks.speed.machine import best
from benchmarks.speed.made import synthetic
from benchmarks.speed.outcome import Row
from hsae_dagster.core.sae.model import SAEConfig, SparseAutoencoder, sae_from_arrays
from hsae_dagster.core.sae.training import SAETrainer, evaluate, train_sae
from hsae_dagster_tests.core.reference import load_reference_module
from hsae_dagster_tests.core.reference_sae import twin

_BATCHES = 8
_EQUAL = 1e-10


def step_row(
    name: str,
    dimensions: int,
    m: int,
    k: int,
    *,
    goal: float | None,
    prefixes: tuple[int, ...] | None = None,
    rounds: int = 5,
    steps: int = 6,
) -> Row:
    """Milliseconds a step of both sides in alternation: medians over rounds of the rounds' means."""
    found = in_child("training:steps", dimensions=dimensions, m=m, k=k, prefixes=prefixes, rounds=rounds, steps=steps)
    return Row(
        name,
        float(np.median(found["ours"])),
        float(np.median(found["theirs"])),
        "ms",
        goal,
        agreed=f"weights after {found['compared']} steps in float64 to {found['apart']:.0e}",
        extra=found,
    )


def steps(
    dimensions: int, m: int, k: int, prefixes: list[int] | None, rounds: int, steps: int, batch: int = 512
) -> dict[str, Any]:
    """In a child: both sides' steps in alternation."""
    config = SAEConfig(m=m, k=k, prefixes=tuple(prefixes) if prefixes else None, batch_size=batch)
    made = synthetic(batch * _BATCHES, dimensions, SAEConfig(m=2 * m, k=k))
    x = torch.from_numpy(made.embeddings)
    apart, compared = _identity(config, x)
    sae = _fresh(config, x)
    model = twin(sae, config).float()
    trainer, their_step = SAETrainer(sae, config), _their_step(model, config)
    batches = x.split(batch)
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for side, step in (("theirs", their_step), ("ours", trainer.step)) * (rounds + 1):
        started = time.perf_counter()
        for number in range(steps):
            step(batches[number % len(batches)])
        found[side].append((time.perf_counter() - started) / steps * 1e3)
    # The first round warms caches and allocators of both.
    return {"apart": apart, "compared": compared, **{side: times[1:] for side, times in found.items()}}


def _fresh(config: SAEConfig, x: torch.Tensor) -> SparseAutoencoder:
    sae = SparseAutoencoder(config, x.shape[1]).to(x.dtype)
    sae.initialise(x.median(dim=0).values, torch.Generator().manual_seed(0))
    return sae


def _their_step(model: Any, config: SAEConfig) -> Callable[[torch.Tensor], float]:
    """The body of the reference's training loop."""
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    model.train()

    def step(x: torch.Tensor) -> float:
        recon, info = model(x)
        loss = model.compute_loss(x, recon, info, config.aux_coef, config.multi_coef)
        optimiser.zero_grad()
        loss.backward()
        model.adjust_decoder_gradient_()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimiser.step()
        model.normalize_decoder_()
        return float(loss.item())

    return step


def _identity(config: SAEConfig, x: torch.Tensor, count: int = 3) -> tuple[float, int]:
    """Largest difference of any weight after `count` steps of both sides in float64.

    Raises:
        AssertionError: it is more than rounding.
    """
    exact = x.double()
    sae = _fresh(config, exact)
    model = twin(sae, config)
    trainer, their_step = SAETrainer(sae, config), _their_step(model, config)
    for batch in exact.split(config.batch_size)[:count]:
        trainer.step(batch)
        their_step(batch)
    pairs = (
        (sae.encoder, model.encoder.weight),
        (sae.decoder.T, model.decoder.weight),
        (sae.input_bias, model.input_bias),
        (sae.neuron_bias, model.neuron_bias),
    )
    apart = max(float((mine - theirs).detach().abs().max()) for mine, theirs in pairs)
    assert apart < _EQUAL, f"weights differ by {apart:.1e} after {count} steps"
    return apart, count


def convergence_row(name: str, texts: int, dimensions: int, m: int, k: int, epochs: int, goal: float | None) -> Row:
    """Wall time until the validation loss that the reference's `fit` ends with."""
    found = in_child("training:converge", texts=texts, dimensions=dimensions, m=m, k=k, epochs=epochs)
    return Row(
        name,
        found["ours"],
        found["theirs"],
        "s",
        goal,
        agreed=f"validation NMSE {found['reached']:.4f} ≤ {found['loss']:.4f} (epoch {found['epoch']}; {epochs})",
        extra=found,
    )


class _ReachedError(Exception):
    """The loss to reach has been reached."""


def converge(texts: int, dimensions: int, m: int, k: int, epochs: int) -> dict[str, Any]:
    """In a child: the reference's `fit`, then ours until its validation loss is reached."""
    held = texts // 8
    made = synthetic(texts + held, dimensions, SAEConfig(m=2 * m, k=k))
    train, validation = made.embeddings[held:], made.embeddings[:held]
    config = SAEConfig(m=m, k=k, max_epochs=4 * epochs, patience=4 * epochs)
    x, v = torch.from_numpy(train), torch.from_numpy(validation)
    torch_seed = torch.Generator().manual_seed(1)
    model = load_reference_module("sae").SparseAutoencoder(dimensions, m, k, device="cpu")
    with torch.random.fork_rng():
        torch.random.set_rng_state(torch_seed.get_state())
        started = time.perf_counter()
        model.fit(x, v, n_epochs=epochs, patience=epochs, show_progress=False)
        theirs = time.perf_counter() - started
    loss = evaluate(_as_ours(model, config), v).nmse
    history = []

    def look(record: Any) -> None:
        history.append(record)
        if record.validation_nmse <= loss:
            raise _ReachedError

    started = time.perf_counter()
    with contextlib.suppress(_ReachedError):
        train_sae(train, validation, config, on_epoch=look)
    ours = time.perf_counter() - started
    last = history[-1]
    assert last.validation_nmse <= loss, f"{last.validation_nmse:.4f} after {last.epoch} epochs, not {loss:.4f}"
    return {"ours": ours, "theirs": theirs, "loss": loss, "reached": last.validation_nmse, "epoch": last.epoch}


def _as_ours(model: Any, config: SAEConfig) -> SparseAutoencoder:
    """The reference's weights in our module."""
    named = {"encoder": model.encoder.weight, "decoder": model.decoder.weight.T}
    named |= {"input_bias": model.input_bias, "neuron_bias": model.neuron_bias}
    return sae_from_arrays(config, {name: value.detach().numpy() for name, value in named.items()})


def guided_row(name: str, dimensions: int, m: int, k: int, *, rounds: int = 7, steps: int = 12) -> Row:
    """A step guided by labels of pairs beside the same step without guidance."""
    found = in_child("training:guided", dimensions=dimensions, m=m, k=k, rounds=rounds, steps=steps)
    return Row(
        name,
        float(np.median(found["guided"])),
        float(np.median(found["plain"])),
        "ms",
        1.1,
        at_most=True,
        agreed="our own step without guidance is the other side",
        roofline=f"{found['operations']} more tensor operations, {found['least_ms'] * 1e3:.1f} µs each at least",
        extra=found,
    )


def guided(dimensions: int, m: int, k: int, rounds: int, steps: int, batch: int = 512) -> dict[str, Any]:
    """In a child: steps with and without guidance by pairs, in alternation."""
    from hsae_dagster.core.sae.guidance import LabelledRows, guidance

    n = batch * _BATCHES
    made = synthetic(n, dimensions, SAEConfig(m=2 * m, k=k))
    x = torch.from_numpy(made.embeddings)
    plain, taught = SAEConfig(m=m, k=k), SAEConfig(m=m, k=k, label_weight=0.1)
    first, second = np.arange(0, n, 2), np.arange(1, n, 2)
    labels = (made.outcome[first] > made.outcome[second]).astype(np.float64)
    rows = LabelledRows(n, first, second, labels, np.zeros(len(first)))
    extra, _ = guidance(taught, "pairwise", rows, None)
    trainers = {"plain": SAETrainer(_fresh(plain, x), plain), "guided": SAETrainer(_fresh(taught, x), taught, extra)}
    batches = torch.arange(n).split(batch)
    found: dict[str, list[float]] = {"plain": [], "guided": []}
    for side in ("plain", "guided") * (rounds + 1):
        started = time.perf_counter()
        for number in range(steps):
            at = batches[number % len(batches)]
            trainers[side].step(x[at], at)
        found[side].append((time.perf_counter() - started) / steps * 1e3)
    counts = {side: _operations(lambda side=side: trainers[side].step(x[at], at)) for side in trainers}
    small = torch.zeros(batch)
    return {
        **{side: times[1:] for side, times in found.items()},
        "operations": counts["guided"] - counts["plain"],
        "least_ms": best(lambda: small.add_(1.0), 1000) * 1e3,
    }


def _operations(work: Callable[[], Any]) -> int:
    """Tensor operations that a piece of work asks for, those within another left out."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return sum(
        event.name.startswith("aten::") and not (event.cpu_parent and event.cpu_parent.name.startswith("aten::"))
        for event in seen.events()
    )


def gpu_row(name: str, dimensions: int, m: int, k: int, batch: int, steps: int = 200) -> Row:
    """A step on the GPU: its time, beside what the dense products it needs take at the measured matrix product rate."""
    found = in_child("training:gpu", dimensions=dimensions, m=m, k=k, batch=batch, steps=steps)
    return Row(
        name,
        found["step_ms"],
        None,
        "ms",
        None,
        agreed=f"{found['share']:.0%} of the measured product rate ({found['rate_tflops']:.0f} TFLOP/s float32)",
        extra=found,
    )


def gpu(dimensions: int, m: int, k: int, batch: int, steps: int) -> dict[str, Any]:
    """In a child: steps on the GPU, and the rate of the encoder's product alone."""
    config = SAEConfig(m=m, k=k, batch_size=batch)
    x = torch.from_numpy(synthetic(batch, dimensions, SAEConfig(m=2 * m, k=k)).embeddings)
    sae = _fresh(config, x).cuda()
    x = x.cuda()
    trainer = SAETrainer(sae, config)
    seconds = _on_gpu(lambda: trainer.step(x), steps)
    product = _on_gpu(lambda: x @ sae.encoder.detach().T, steps)
    operations = 2.0 * batch * dimensions * m
    return {
        "step_ms": seconds * 1e3,
        "rate_tflops": operations / product / 1e12,
        "share": product / seconds,
        "device": torch.cuda.get_device_name(),
    }


def _on_gpu(work: Callable[[], Any], times: int) -> float:
    for _ in range(10):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times
