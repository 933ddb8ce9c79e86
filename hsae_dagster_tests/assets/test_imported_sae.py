"""A checkpoint of the reference, declared in dataset.yaml, takes the place of training."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.storage.artifacts import read_codes, read_frame
from hsae_dagster.storage.outputs import StoredEmbeddings
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.core.reference import load_reference_module

FILE = "SAE_M=12_K=3.pt"
DECLARED = {"m": 12, "k": 3, "checkpoint": FILE}


def vectors(workspace: Workspace, dataset: str, ids: Any) -> np.ndarray:
    return StoredEmbeddings(workspace.current(dataset, "embeddings")).read(pl.Series(ids))


def save(workspace: Workspace, dimensions: int = 384, seed: int = 0, **options: Any) -> Any:
    """A reference model with weights of no special form, saved beside dataset.yaml by the reference itself."""
    settings = {"input_dim": dimensions, "m_total_neurons": 12, "k_active_neurons": 3, "device": "cpu", **options}
    model = load_reference_module("sae").SparseAutoencoder(**settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    model.save(str(workspace.root / "data" / "ratings" / FILE))
    return model


@pytest.mark.parametrize("variant", [{}, {"prefix_lengths": [4, 12]}, {"use_batch_topk": True}])
def test_the_activations_are_the_references(copied: Workspace, variant: dict[str, Any]) -> None:
    model = save(copied, **variant)
    more = {"prefixes": variant.get("prefix_lengths"), "batch_topk": variant.get("use_batch_topk", False)}
    copied.declare("ratings", None, saes=[DECLARED | more])
    run = copied.run("ratings", "sae_checkpoints", "activations", "selected_neurons")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    activations = copied.current("ratings", "activations")
    ids = read_frame(activations.file("texts.parquet"))["text_id"]
    embeddings = vectors(copied, "ratings", ids)
    theirs = model.get_activations(embeddings, show_progress=False)
    np.testing.assert_allclose(read_codes(activations.file("codes.safetensors")).toarray(), theirs, atol=1e-5)
    assert np.count_nonzero(theirs) > len(ids)
    (record,) = copied.current("ratings", "sae_checkpoints").json("saes.json")
    assert record["stop_reason"] == f"imported from {FILE}, not trained here"
    corpus = read_frame(copied.current("ratings", "corpus").file("texts.parquet"))
    held_out = vectors(copied, "ratings", corpus.filter(corpus["split"] == "validation")["text_id"])
    there = model.get_activations(held_out, show_progress=False)
    assert record["l0"] == pytest.approx((there > 0).sum(axis=1).mean())
    with torch.no_grad():
        left = held_out - (model.decoder(torch.tensor(there)) + model.input_bias).numpy()
    nmse = np.square(left).sum() / np.square(held_out - held_out.mean(axis=0)).sum()
    assert record["explained_variance"] == pytest.approx(1 - nmse, rel=1e-4)


def test_an_imported_one_stands_beside_a_trained_one_and_goes_on_to_a_report(copied: Workspace) -> None:
    save(copied)
    copied.declare("ratings", None, saes=[{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}, DECLARED])
    run = copied.run("ratings", *[s for s in _AFTER_EMBEDDING])
    assert run.success, {step: run.sentence(step) for step in run.failures}
    rows = [record.data for record in run.metadata("sae_checkpoints")["autoencoders"].records]
    assert [(row["m"], row["k"]) for row in rows] == [(8, 2), (12, 3)]
    assert "imported from" in rows[1]["stopped"]


_AFTER_EMBEDDING = (
    "sae_checkpoints",
    "activations",
    "selected_neurons",
    "interpretations",
    "annotation_matrix",
    "evaluation_report",
)


def test_another_file_of_the_same_name_is_another_autoencoder(copied: Workspace) -> None:
    save(copied)
    copied.declare("ratings", None, saes=[DECLARED])
    dataset = load_dataset(copied.project.data, "ratings")
    first = files_fingerprint(dataset)
    assert copied.run("ratings", "sae_checkpoints").success
    before = copied.current("ratings", "sae_checkpoints").data_version
    save(copied, seed=1)
    assert files_fingerprint(dataset) != first
    assert copied.run("ratings", "sae_checkpoints").success
    assert copied.current("ratings", "sae_checkpoints").data_version != before


@pytest.mark.parametrize(
    ("declared", "options", "said"),
    [
        ({"m": 16}, {}, f"{FILE} has m = 12, but dataset.yaml says 16"),
        ({"k": 2}, {}, "has k = 3, but dataset.yaml says 2"),
        ({"prefixes": [4, 12]}, {}, "has prefixes = none, but dataset.yaml says [4, 12]"),
        ({}, {"use_batch_topk": True}, "has batch_topk = true, but dataset.yaml says false"),
        ({}, {"dimensions": 10}, "trained on 10 dimensions, but the embeddings have 384"),
        ({"checkpoint": "absent.pt"}, {}, "correct `saes.checkpoint`"),
        ({"checkpoint": "../../elsewhere.pt"}, {}, "lies outside its folder"),
        ({"checkpoint": "texts.parquet"}, {}, "cannot be read as weights only"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_clear_sentence(
    copied: Workspace, declared: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    save(copied, **options)
    (copied.root / "elsewhere.pt").write_bytes(b"")
    copied.declare("ratings", None, saes=[DECLARED | declared])
    before = copied.bytes_of()
    run = copied.run("ratings", "sae_checkpoints")
    sentence = run.sentence("sae_checkpoints")
    assert said in sentence
    assert "`ratings`" in sentence
    assert sentence.endswith(".")
    after = copied.bytes_of()
    assert {path: after[path] for path in before} == before


def test_settings_of_training_beside_a_checkpoint_are_refused(copied: Workspace) -> None:
    copied.declare("ratings", None, saes=[DECLARED | {"learning_rate": 0.1, "seed": 3}])
    with pytest.raises(DatasetError, match=r"saes\.0.*taken as it is, so learning_rate, seed would have no effect"):
        load_dataset(copied.project.data, "ratings")


def test_nothing_is_left_of_a_hostile_file(copied: Workspace) -> None:
    class Program:
        def __reduce__(self) -> tuple:
            return Path.touch, (copied.root / "it_ran",)

    torch.save({"config": Program(), "state_dict": {}}, copied.root / "data" / "ratings" / FILE)
    copied.declare("ratings", None, saes=[DECLARED])
    run = copied.run("ratings", "sae_checkpoints")
    assert "nothing in it was run" in run.sentence("sae_checkpoints")
    assert not (copied.root / "it_ran").exists()
