"""Encoding whole data sets: the same codes whatever the blocks, and refusals that name the row."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from hsae_dagster.core.sae import model as codes_module
from hsae_dagster.core.sae.model import SAEConfig, SparseAutoencoder, concatenate_codes, encode
from hsae_dagster.core.sae.training import calibrate_threshold, column_medians
from hsae_dagster.errors import MethodError


def made(batch_topk: bool = False) -> tuple[SparseAutoencoder, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(101, 12, generator=generator)
    sae = SparseAutoencoder(SAEConfig(m=30, k=4, batch_topk=batch_topk), 12)
    sae.initialise(column_medians(x), generator)
    if batch_topk:
        calibrate_threshold(sae, x)
    return sae, x.numpy()


@pytest.mark.parametrize("batch_topk", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 8192])
def test_codes_are_the_dense_definition_in_blocks_of_any_size(batch_size: int, batch_topk: bool) -> None:
    sae, x = made(batch_topk)
    found = encode(sae, x, batch_size=batch_size)
    with torch.no_grad():
        pre = (torch.from_numpy(x) - sae.input_bias) @ sae.encoder.T + sae.neuron_bias
    least = sae.threshold if batch_topk else pre.topk(4, dim=1).values[:, -1:]
    kept = (pre > least) if batch_topk else (pre >= least)
    np.testing.assert_allclose(found.toarray(), (pre.relu() * kept).numpy(), atol=1e-6)
    assert found.dtype == np.float32
    assert found.indices.dtype == np.int32
    assert (found.data > 0).all()
    assert all((np.diff(found.indices[a:b]) > 0).all() for a, b in zip(found.indptr, found.indptr[1:], strict=False))


def test_memory_is_bounded_by_blocks_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = made()
    whole, heights, inner = encode(sae, x), [], codes_module._encode_block
    monkeypatch.setattr(codes_module, "_BLOCK_ELEMENTS", 30 * 10)
    monkeypatch.setattr(codes_module, "_encode_block", lambda s, b: heights.append(len(b)) or inner(s, b))
    blocks = encode(sae, x)
    assert max(heights) == 10
    assert abs(whole - blocks).max() < 1e-6


def test_no_rows_give_an_empty_matrix_of_the_right_width() -> None:
    sae, x = made()
    assert encode(sae, x[:0]).shape == (0, 30)


def test_embeddings_that_do_not_fit_are_refused_by_name() -> None:
    sae, x = made()
    with pytest.raises(MethodError, match="trained on 12 dimensions"):
        encode(sae, x[:, :5])
    x[40, 2] = np.inf
    with pytest.raises(MethodError, match="row 40 is not finite"):
        encode(sae, x, batch_size=16)


def test_codes_of_different_texts_cannot_stand_side_by_side() -> None:
    with pytest.raises(MethodError, match="a: 3, b: 2"):
        concatenate_codes([("a", sp.csr_matrix((3, 4))), ("b", sp.csr_matrix((2, 4)))])
    with pytest.raises(MethodError, match="none given"):
        concatenate_codes([])
