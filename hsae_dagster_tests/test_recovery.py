"""The recovery benchmark: the matching by hand, the draws, and one cell on tiny texts whose topics are known."""

import json

import numpy as np
import polars as pl
import pytest

from benchmarks import recovery
from benchmarks.cells import Shared
from benchmarks.recovery import Known, cell, draw, f1_matrix, matched, membership, table
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts, topic_of


def test_f1_by_hand_and_a_match_that_gives_each_topic_one_row() -> None:
    truth = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=bool)
    found = np.array([[1, 0, 0], [1, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    f1 = f1_matrix(found, truth)
    np.testing.assert_allclose(f1, [[1.0, 2 / 4], [0.0, 0.0], [2 / 4, 0.0]])
    assert matched(f1)[0].tolist() == [1.0, 0.0]
    # Row 0 is best for both topics; the sum is largest when topic 1 gets it and topic 0 has row 1.
    values, rows = matched(np.array([[0.9, 0.8], [0.7, 0.1]]))
    assert (values.tolist(), rows.tolist()) == ([0.7, 0.8], [1, 0])


def test_more_topics_than_rows_leave_some_without() -> None:
    values, rows = matched(np.array([[0.2, 0.6, 0.1]]))
    assert (values.tolist(), rows.tolist()) == ([0.0, 0.6, 0.0], [-1, 0, -1])


def test_draws_are_of_common_topics_and_differ() -> None:
    topics = pl.DataFrame({"topic": ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["rare"], "text_id": "x"})
    known = Known("text", "topic", 2, 5)
    drawn = [draw(topics, known, number) for number in range(3)]
    assert len({frozenset(names) for names in drawn}) == 3
    assert "rare" not in {name for names in drawn for name in names}
    with pytest.raises(ValueError, match="no draw number 3"):
        draw(topics, known, 3)


def test_whole_clusters_are_sampled_and_rows_without_a_topic_left_out() -> None:
    frame = pl.DataFrame({"topic": ["a", None] * 50, "cluster": np.arange(100) // 10})
    sample = Known("text", "topic", 1, 1, "cluster", 12).sample(frame)
    assert sample.height == 12
    assert sample["topic"].null_count() == 0
    assert sorted(sample["cluster"].value_counts()["count"].to_list()) == [2, 5, 5]


def test_a_text_coded_twice_has_both_topics() -> None:
    topics = pl.DataFrame({"topic": ["a", "b", "b"], "text_id": ["1", "1", "2"]})
    assert membership(topics, pl.Series(["1", "2"]), ["a", "b"]).tolist() == [[True, True], [False, True]]


@pytest.mark.slow
def test_topics_of_tiny_texts_are_recovered(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tiny_texts(300, seed=5)
    frame = texts.with_columns(pl.Series("topic", [topic_of(text) for text in texts["text"]]))
    workspace.declare("coded", frame)
    monkeypatch.setitem(recovery.KNOWN, "coded", Known("text", "topic", 1, 50))
    monkeypatch.setitem(recovery.ARMS, "tiny", ([{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}], "lasso"))
    shared = Shared(workspace.project.data, workspace.project.results)
    record = cell(shared, "coded", "tiny", 0, 4)
    assert json.loads(json.dumps(record)) == record
    assert set(record["topics"]) < {"cooking", "sailing", "stars"}
    concepts, neurons = record["f1"]["concepts"], record["f1"]["selected neurons"]
    assert sum(record["f1"]["all neurons"]) >= sum(neurons), "more to choose from is never worse"
    assert max(concepts) > 0.8, "each topic has its own words"
    assert set(record["claims"]) == set(record["surface"])
    (row,) = list(table([record]))[2:]
    assert row.count("|") == next(iter(table([]))).count("|")
    assert f"| {np.mean(concepts):.2f} |" in row
