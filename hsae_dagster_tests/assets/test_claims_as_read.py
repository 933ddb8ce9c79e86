"""Whoever knows only the printed claims, and the embedder, judges every held-out text as the pipeline did."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from hsae_dagster.providers.minilm import MiniLM
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.outputs import StoredCorpus
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.reader.annotate import annotate


def _read_again(workspace: Workspace, dataset: str, claims: Sequence[str], answers: pl.DataFrame) -> np.ndarray:
    corpus = StoredCorpus.current(workspace.project.store, dataset)
    texts = answers.select("text_id").join(corpus.texts, on="text_id", how="left")
    places = corpus.places.of_texts(answers["text_id"])
    reads = dict(corpus.units.select("unit_id", "unit").iter_rows())
    own = [
        [reads[places.unit_ids[int(row)]] for row in places.rows[start:end]]
        for start, end in zip(places.starts, places.starts[1:], strict=False)
    ]
    return annotate(claims, texts["text"].to_list(), own, MiniLM(threads=1).embed)


def _agrees(workspace: Workspace, dataset: str) -> list[str]:
    matrix = workspace.current(dataset, "annotation_matrix")
    claims = matrix.json("summary.json")["claims"]
    answers = read_frame(matrix.file("annotations.parquet"))
    found = answers.select(list(claims)).to_numpy().astype(bool)
    assert np.array_equal(_read_again(workspace, dataset, list(claims.values()), answers), found)
    assert found.any(axis=0).all() and not found.all(axis=0).any()
    return list(claims.values())


@pytest.mark.parametrize("dataset", ["ratings", "parties", "duels"])
def test_a_reader_of_the_claims_agrees_on_every_cell(finished: Finished, dataset: str) -> None:
    assert _agrees(finished.workspace, dataset)


def test_a_reader_agrees_on_sentences_of_longer_texts(workspace: Workspace) -> None:
    rows = tiny_texts(400, seed=3)
    workspace.declare("long", rows, units="sentence", selection={"n": 8})
    assert workspace.run("long").success
    assert _agrees(workspace, "long")
