"""The bundled embedder: its arithmetic, its batches, and the same bytes after a kill."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed.embedder import one_by_one
from hsae_dagster.providers import minilm as minilm_model
from hsae_dagster.providers.minilm import TOKENS_PER_BATCH, MiniLM, same_length_batches
from hsae_dagster.storage.vectors import VectorTable
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts

pytestmark = pytest.mark.usefixtures("really_embedded")

TEXTS = ["I decided to return it.", "Runs small!", "", "😀", "A " + "very " * 300 + "long one", "很好看", "Runs large!"]


def test_vectors_point_where_those_of_the_published_model_point() -> None:
    texts = [*TEXTS, *tiny_texts()["text"].to_list()[:60]]
    found, alone = MiniLM(threads=2).embed(texts), one_by_one(texts, threads=1)
    cosine = (found * alone).sum(1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.995


def test_no_text_is_no_vector() -> None:
    assert MiniLM().embed([]).shape == (0, 384)


def test_whole_numbers_are_multiplied_alike_by_every_machine() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(40, 416, generator=generator) * 254 - 127
    weights = torch.randint(-127, 128, (416, 96), generator=generator, dtype=torch.int8)
    fastest = minilm_model.exact_product()(weights)(x.clone())
    assert torch.equal(fastest, minilm_model.float_product(weights)(x.clone()))


def test_an_exact_product_that_is_slower_than_float32_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch's own is on processors without dot products of int8."""
    quick, threads = minilm_model.integer_product, list[int]()

    def slow(weights: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def multiply(x: torch.Tensor) -> torch.Tensor:
            threads.append(torch.get_num_threads())
            time.sleep(0.05)
            return quick(weights)(x)

        return multiply

    monkeypatch.setattr(minilm_model, "integer_product", slow)
    assert minilm_model.exact_product() is minilm_model.float_product
    assert set(threads[1:]) == {1}  # all but the first, which is not timed, as they will be used


def test_batches_hold_every_row_once_and_one_length_each() -> None:
    lengths = np.random.default_rng(2).integers(2, 300, 500).tolist()
    batches = same_length_batches(lengths)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)
    assert all(len(batch) * lengths[batch[0]] <= max(TOKENS_PER_BATCH, lengths[batch[0]]) for batch in batches)


def test_the_order_of_what_remains_is_the_tail_of_the_order() -> None:
    texts = sorted(set(tiny_texts()["text"]))
    order = [texts[i] for i in MiniLM().order(texts)]
    rest = sorted(order[37:])
    assert [rest[i] for i in MiniLM().order(rest)] == order[37:]


@pytest.mark.usefixtures("environment")
def test_a_killed_run_that_goes_on_gives_the_bytes_of_an_undisturbed_one(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.declare("tiny", tiny_texts(), embedding={"model": "minilm", "batch_size": 25})
    calm = workspace.copy_to(tmp_path / "calm")
    assert calm.run("tiny", upto="embeddings").success

    embed, calls = MiniLM.embed, []

    def dies(self: MiniLM, texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        if len(calls) == 3:
            raise OSError("the machine went down")
        return embed(self, texts)

    monkeypatch.setattr(MiniLM, "embed", dies)
    assert not workspace.run("tiny", upto="embeddings").success
    assert len(_table(workspace).keys()) == 50
    assert workspace.run("tiny", upto="embeddings").success
    assert len(calls) > 4
    keys = sorted(_table(calm).keys())
    assert _table(workspace).read(keys).tobytes() == _table(calm).read(keys).tobytes()


def _table(workspace: Workspace) -> VectorTable:
    return VectorTable(workspace.project.results, "tiny", MiniLM().embedding_set)
