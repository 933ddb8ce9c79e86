"""Vectors of single terms, which datasets share: embedded once, and again where a row is not what was written."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hsae_dagster.keys import EmbeddingSet, text_id
from hsae_dagster.stages import claims
from hsae_dagster.storage.vectors import VectorTable

FAMILY = EmbeddingSet("letters", 2, "c" * 32)


def embed(terms: Sequence[str]) -> np.ndarray:
    return np.array([[len(term), ord(term[0])] for term in terms], dtype=np.float32)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    asked: list[list[str]] = []

    def counted(terms: Sequence[str]) -> np.ndarray:
        asked.append(sorted(terms))
        return embed(terms)

    monkeypatch.setattr(claims, "_embedder", lambda dataset, account: counted)
    embeddings, project = SimpleNamespace(family=FAMILY), SimpleNamespace(results=tmp_path)
    return SimpleNamespace(
        project=project, embeddings=embeddings, dataset=None, report=lambda message: None, asked=asked
    )


def test_a_term_is_embedded_once_and_its_vector_is_in_its_place(stage: Any) -> None:
    for terms in (["soup", "oven"], ["oven", "garlic", "soup"]):
        np.testing.assert_array_equal(claims.term_vectors(stage, terms), embed(terms))
    assert stage.asked == [["oven", "soup"], ["garlic"]]


def test_a_term_whose_row_is_not_what_was_written_is_embedded_again(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims.term_vectors(stage, ["soup", "oven"])
    rows = VectorTable._rows

    def damaged(table: VectorTable, opened: Any) -> Any:
        # Until a whole row follows it, the one of "soup" is left out, as its checksum would have it.
        for number, batch in enumerate(rows(table, opened)):
            keys = batch.column(0).to_pylist()
            yield batch.take([i for i, key in enumerate(keys) if number or key != text_id("soup")])

    monkeypatch.setattr(VectorTable, "_rows", damaged)
    np.testing.assert_array_equal(claims.term_vectors(stage, ["soup", "oven"]), embed(["soup", "oven"]))
    assert stage.asked == [["oven", "soup"], ["soup"]]
