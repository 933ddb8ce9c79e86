"""Checkpoints of the reference: its own files give its own activations, and no other file does harm."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hsae_dagster.core.sae.model import encode
from hsae_dagster.errors import StorageError
from hsae_dagster.storage.artifacts import load_legacy_checkpoint
from hsae_dagster_tests.core.reference import load_reference_module, record

VARIANTS = {
    "top-k": {},
    "matryoshka": {"prefix_lengths": [6, 24]},
    "multi-k": {"multi_k": 12, "aux_k": 5},
    "batch top-k": {"use_batch_topk": True},
}


def saved(path: Path, **options: Any) -> Any:
    """A reference model with weights of no special form, and its file."""
    module = load_reference_module("sae")
    settings = {"input_dim": 10, "m_total_neurons": 24, "k_active_neurons": 4, "device": "cpu", **options}
    model = module.SparseAutoencoder(**settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        model.threshold.fill_(0.7)
    model.save(str(path))
    return model


def embeddings() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((200, 10)).astype(np.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_checkpoint_of_the_reference_gives_its_activations_and_reconstructions(name: str, tmp_path: Path) -> None:
    path = tmp_path / "SAE_M=24_K=4.pt"
    model = saved(path, **VARIANTS[name])
    sae = load_legacy_checkpoint(path, input_dim=10)
    x = embeddings()
    theirs = model.get_activations(x, show_progress=False)
    np.testing.assert_allclose(encode(sae, x).toarray(), theirs, atol=1e-5)
    record("activations of its own checkpoints, float32", encode(sae, x).toarray(), theirs)
    assert np.count_nonzero(theirs) > 400
    with torch.no_grad():
        np.testing.assert_allclose(sae(torch.tensor(x)).numpy(), model(torch.tensor(x))[0].numpy(), atol=1e-4)
    assert (sae.config.m, sae.config.k, sae.config.dead_after_steps) == (24, 4, 256)
    assert sae.config.batch_topk == (name == "batch top-k")
    assert sae.config.prefixes == ((6, 24) if name == "matryoshka" else None)
    assert sae.config.multi_k == VARIANTS[name].get("multi_k")


# Defect 20: files of early versions, GPU files, and files that run code.
def test_a_checkpoint_from_before_the_threshold_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    model = saved(path)
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["threshold"]
    content["config"] = {k: content["config"][k] for k in ("input_dim", "m_total_neurons", "k_active_neurons")}
    torch.save(content, path)
    with pytest.raises(RuntimeError, match="threshold"):
        load_reference_module("sae").load_model(str(path), device="cpu")
    x = embeddings()
    theirs = model.get_activations(x, show_progress=False)
    np.testing.assert_allclose(encode(load_legacy_checkpoint(path), x).toarray(), theirs, atol=1e-5)


def test_weights_go_to_the_cpu_wherever_they_were_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "x.pt")
    seen = {}
    load = torch.load

    def spy(*arguments: Any, **options: Any) -> Any:
        seen.update(options)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", spy)
    sae = load_legacy_checkpoint(tmp_path / "x.pt")
    assert seen == {"map_location": "cpu", "weights_only": True}
    assert {tensor.device.type for tensor in sae.parameters()} == {"cpu"}


class Program:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("place", ["whole", "config", "state_dict"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(place: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "hostile.pt", tmp_path / "it_ran"
    saved(path)
    content = torch.load(path, weights_only=True)
    program = Program(trace)
    torch.save(program if place == "whole" else {**content, place: {**content[place], "x": program}}, path)
    with pytest.raises(StorageError, match=r"hostile.pt cannot be read as weights only .*nothing in it was run"):
        load_legacy_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the file is as dangerous as it claims


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 100, b"\x80\x02."])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"x.pt cannot be read as weights only"):
        load_legacy_checkpoint(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    saved(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="cannot be read"):
        load_legacy_checkpoint(path)


def test_an_absent_file_and_another_dimension_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no checkpoint"):
        load_legacy_checkpoint(tmp_path / "none.pt")
    saved(tmp_path / "x.pt")
    with pytest.raises(StorageError, match="trained on 10 dimensions, but the embeddings have 384"):
        load_legacy_checkpoint(tmp_path / "x.pt", input_dim=384)


def wrong(part: str, **changes: Any):
    return lambda content: {**content, part: {**content[part], **changes}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: list(content), "no `config` and `state_dict`"),
        (lambda content: {"config": content["config"]}, "no `config` and `state_dict`"),
        (lambda content: {**content, "state_dict": {}}, "lacks the weights `encoder.weight`"),
        (wrong("state_dict", layer=torch.zeros(2)), "another kind of model: layer"),
        (wrong("state_dict", input_bias=torch.zeros(11)), r"shape \(10,\) by its own configuration, and is \(11,\)"),
        (wrong("state_dict", input_bias=[0.0] * 10), "and is list"),
        (wrong("state_dict", neuron_bias=torch.zeros(24, dtype=torch.int64)), "must be floating-point"),
        (wrong("state_dict", neuron_bias=torch.full((24,), float("nan"))), "NaN or infinity"),
        (wrong("state_dict", **{"encoder.weight": torch.zeros(1).expand(24, 10)}), "more numbers than the file holds"),
        (wrong("config", m_total_neurons="24"), "m_total_neurons is '24', not a whole number"),
        (wrong("config", m_total_neurons=25), r"shape \(25, 10\)"),
        (wrong("config", k_active_neurons=99), "k may be at most m"),
        (wrong("config", k_active_neurons=0), "not a whole number above 0"),
        (wrong("config", prefix_lengths=[6, 12]), "end at m = 24"),
        (wrong("config", prefix_lengths="6-24"), "not a list of whole numbers"),
        (wrong("config", use_batch_topk=1), "not true or false"),
        (wrong("config", multi_k=2.5), "multi_k is 2.5"),
    ],
)
def test_content_that_contradicts_itself_is_refused_with_a_sentence(change, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    saved(path)
    torch.save(change(torch.load(path, weights_only=True)), path)
    with pytest.raises(StorageError, match=sentence):
        load_legacy_checkpoint(path)


def test_batch_topk_without_its_threshold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    saved(path, use_batch_topk=True)
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["threshold"]
    torch.save(content, path)
    with pytest.raises(StorageError, match="holds no threshold"):
        load_legacy_checkpoint(path)
