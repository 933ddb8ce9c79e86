"""The reference's autoencoder (hypothesaes 2.0.1) with our weights, and our codes as it has them: dense."""

from typing import Any

import torch

from hsae_dagster.core.sae.model import BatchCodes, SAEConfig, SparseAutoencoder
from hsae_dagster_tests.core.reference import load_reference_module


def dense_of(codes: BatchCodes) -> torch.Tensor:
    """(n_rows, m), differentiable."""
    dense = codes.values.new_zeros(codes.entries.n_rows, codes.entries.n_columns)
    return dense.index_put((codes.entries.rows, codes.entries.columns), codes.values)


def twin(sae: SparseAutoencoder, config: SAEConfig) -> Any:
    """The reference's model in float64 with the same settings and weights."""
    reference = (
        load_reference_module("sae")
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
