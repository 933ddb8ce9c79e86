"""The benchmarks' own machinery on tiny texts: labels dealt anew, runs apart, cells kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from benchmarks import asking, real_data, units
from benchmarks.cells import Shared, append, finished, lines, permuted, run_stages
from benchmarks.permuted_labels import permutation
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.records import DOCUMENTS
from hsae_dagster_tests.assets.workspace import Workspace


def shared(workspace: Workspace) -> Shared:
    return Shared(workspace.project.data, workspace.project.results)


def test_labels_are_dealt_anew_and_rows_without_one_stay_without() -> None:
    frame = pl.DataFrame({"text": [f"t{i}" for i in range(200)], "y": [None if i % 10 == 0 else i for i in range(200)]})
    shuffled = permuted(frame, "y", np.random.default_rng(0))
    assert shuffled["text"].equals(frame["text"])
    assert shuffled["y"].sort().equals(frame["y"].sort())
    assert shuffled["y"].is_null().equals(frame["y"].is_null())
    assert (shuffled["y"] == frame["y"]).sum() < 10
    assert shuffled.equals(permuted(frame, "y", np.random.default_rng(0)))


def test_labels_that_belong_to_clusters_are_dealt_to_whole_clusters_and_pairs_are_turned() -> None:
    who = [f"s{i % 20}" if i != 7 else None for i in range(200)]
    party = ["R" if i % 20 < 9 and i != 7 else "D" for i in range(200)]
    frame = pl.DataFrame({"who": who, "party": party})
    seen = []
    for seed in range(8):
        dealt = permuted(frame, "party", np.random.default_rng(seed), cluster="who", task="classification")
        assert dealt.drop_nulls("who").group_by("who").agg(pl.col("party").n_unique())["party"].max() == 1
        seen.append(dealt["party"].to_list())
    assert len({tuple(each) for each in seen}) == 8
    turned = permuted(
        pl.DataFrame({"test": who, "won": [i % 2 for i in range(200)]}),
        "won",
        np.random.default_rng(0),
        cluster="test",
        task="pairwise",
    )
    moved = (turned["won"] != pl.Series([i % 2 for i in range(200)])).alias("moved").to_frame()
    of_test = moved.with_columns(turned["test"]).drop_nulls().group_by("test").agg(pl.col("moved").n_unique())
    assert of_test["moved"].max() == 1
    assert 0 < moved["moved"].sum() < 200


def documents(workspace: Workspace) -> list[dict[str, Any]]:
    with workspace.store.records.reading() as records:
        return records.rows(sa.select(DOCUMENTS))


def test_a_run_apart_moves_nothing_and_is_nobodys_second_look(copied: Workspace) -> None:
    before = copied.bytes_of("reports"), documents(copied)
    embedded = len(list((copied.project.results / "objects" / "embeddings").iterdir()))
    with shared(copied).apart("ratings", {"inference": {"bootstrap": 0}}) as project:
        run_stages(project, "ratings")
        report = Workspace(project.data.parent).current("ratings", "evaluation_report")
        badges = sorted(read_frame(report.file("hypotheses.parquet"))["badge"])
        assert badges.count("confirmed") >= 1, "the tiny texts' topics are found"
        assert report.json("evaluation.json")["look"] == 1, "a run apart is nobody's second look"
    assert not project.data.exists()
    assert (copied.bytes_of("reports"), documents(copied)) == before
    assert len(list((copied.project.results / "objects" / "embeddings").iterdir())) == embedded, "vectors are reused"


def test_whole_texts_beside_sentences_is_a_table_of_what_selected_neurons_tell(copied: Workspace) -> None:
    saes = [{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}]
    found = [units.cell(shared(copied), "ratings", arm, 0, saes) for arm in units.ARMS]
    whole, parts = list(units.table(found))[2:]
    assert whole.startswith("| ratings (R²) | whole texts |")
    for one, row in zip(found, (whole, parts), strict=True):
        assert one["fits"]["selected neurons"] > 0.2, "the tiny texts' topics are found"
        assert f"| {one['fits']['selected neurons']:.3f} |" in row
        assert row.count("|") == next(iter(units.table([]))).count("|")
    nothing = {**found[0], "fits": {"embeddings (ceiling)": 0.1}, "seed": 1}
    (row,) = list(units.table([found[0], nothing]))[2:]
    assert f"{found[0]['fits']['selected neurons']:.3f}, nothing found in 1" in row


def test_permuted_labels_go_through_guidance_and_confirm_nothing(copied: Workspace) -> None:
    saes = [{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32, "label_weight": 0.1}]
    record = permutation(shared(copied), "ratings", 0, saes)
    assert record["saes"] == [{"m": 8, "k": 2, "label_weight": 0.1}]
    assert record["confirmed"] == 0
    assert json.loads(json.dumps(record)) == record


def test_a_second_run_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "out" / "cells.jsonl"
    assert finished(path, "dataset", "seed") == set()
    append(path, {"dataset": "ratings", "seed": 0})
    with path.open("a") as stream:
        stream.write('{"dataset": "ratings", "se')
    assert finished(path, "dataset", "seed") == {("ratings", 0)}
    assert len(lines(path)) == 1


@pytest.mark.parametrize("name", real_data.DATASETS)
def test_public_datasets_are_declared_validly(name: str) -> None:
    DatasetSpec.model_validate({**real_data.DATASETS[name].declaration, "files": "rows.parquet"})


def test_a_public_dataset_goes_from_its_file_to_a_row_of_the_table(tmp_path: Path, copied: Workspace) -> None:
    source = tmp_path / "pairs_train.parquet"
    pl.DataFrame({"headline_A": ["a", "b"], "headline_B": ["c", "d"], "z": [-2.5, 1.0]}).write_parquet(source)
    real_data.declare(copied.project, "upworthy_significant", source)
    assert pl.read_parquet(copied.project.data / "upworthy_significant" / "rows.parquet").height == 1
    found = real_data.measure(copied.project, "ratings")
    (row,) = list(real_data.table([{"dataset": "ratings", "seconds": 90.0, **found}]))[2:]
    assert f"| {found['texts']:,} | R² | {found['fits']['embeddings (ceiling)'][0]:.3f} |" in row
    assert row.endswith("| 1.5 |")
    assert row.count("|") == next(iter(real_data.table([]))).count("|")


def test_two_trees_that_ask_alike_end_up_with_equal_results(capsys: pytest.CaptureFixture[str]) -> None:
    with asking.serving(0.01) as url:
        asking.compare(asking.ROOT, url, texts=30, requests=20, rounds=1)
        other = asking.measure(asking.ROOT, "embedding", url, 31)["digest"]
        assert other != asking.measure(asking.ROOT, "embedding", url, 30)["digest"]
    told = capsys.readouterr().out
    assert "embedding of 30, wall seconds, equal results" in told
    assert "annotation of 20, processor seconds, equal results" in told
    assert told.count("before / now: ") == 2
