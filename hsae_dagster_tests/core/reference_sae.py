"""The reference's SAE module, loaded by itself: its package init would pull in far more than the comparison needs."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hsae_dagster.core.sae import SAEConfig, SparseAutoencoder


def load_reference_sae() -> ModuleType:
    """hypothesaes/sae.py, or skip where the package is not installed."""
    package = importlib.util.find_spec("hypothesaes")
    if package is None or not package.submodule_search_locations:
        pytest.skip("hypothesaes is not installed (pip install --no-deps hypothesaes==2.0.1)")
    path = Path(next(iter(package.submodule_search_locations))) / "sae.py"
    spec = importlib.util.spec_from_file_location("reference_hypothesaes_sae", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def twin(sae: SparseAutoencoder, config: SAEConfig) -> Any:
    """The reference's model in float64 with the same settings and weights."""
    reference = (
        load_reference_sae()
        .SparseAutoencoder(
            input_dim=sae.encoder.shape[1],
            m_total_neurons=config.m,
            k_active_neurons=config.k,
            aux_k=config.aux_k,
            multi_k=config.multi_k,
            dead_neuron_threshold_steps=config.dead_after_steps,
            prefix_lengths=list(config.prefixes) if config.prefixes else None,
            use_batch_topk=config.batch_topk,
            device="cpu",
        )
        .double()
    )
    with torch.no_grad():
        reference.encoder.weight.copy_(sae.encoder)
        reference.decoder.weight.copy_(sae.decoder.T)
        reference.input_bias.copy_(sae.input_bias)
        reference.neuron_bias.copy_(sae.neuron_bias)
    return reference
