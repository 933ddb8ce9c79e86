"""A label of several classes: each dataset sets one against the rest, and they share what does not depend on it."""

import re

import polars as pl

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import TOPICS, Workspace, tiny_texts, topic_of


def test_each_class_against_the_rest_from_files_to_a_report(workspace: Workspace) -> None:
    texts = tiny_texts()
    topics = texts.with_columns(pl.col("text").map_elements(topic_of, return_dtype=pl.String).alias("topic"))
    sizes = topics["topic"].value_counts()
    saes, fewer = set(), []
    for name in ("cooking", "sailing"):
        columns = {"text": "text", "label": "topic", "positive": name, "cluster_by": "author"}
        workspace.declare(name, topics, task="classification", columns=columns)
        run = workspace.run(name)
        assert run.success, {step: run.sentence(step) for step in run.failures}
        rows = [record.data for record in run.metadata("corpus")["classes"].records]
        assert {row["class"]: row["rows"] for row in rows} == dict(sizes.iter_rows())
        assert [row["class"] for row in rows if row["counts as"] == 1] == [name]
        assert len(rows) == len(TOPICS)
        corpus = workspace.current(name, "corpus")
        labels = read_frame(corpus.file("observations.parquet")).join(
            read_frame(corpus.file("texts.parquet")).select("text_id", "text"), on="text_id"
        )
        assert [topic_of(text) == name for text in labels["text"]] == (labels["label"] == 1).to_list()
        saes |= {record["sae_id"] for record in workspace.current(name, "sae_checkpoints").json("saes.json")}
        page = (workspace.project.results / "reports" / f"{name}.html").read_text(encoding="utf-8")
        assert f"topic = {name}" in page
        # A topic's own neurons separate it from the rest, so that no further neuron has anything to add.
        asked = run.checks["selected_neurons.as_many_as_asked"]
        assert run.checks["selected_neurons.neurons_are_distinct"].passed
        selected = run.metadata("selected_neurons")["dagster/row_count"]
        assert asked.passed == (selected == 4)
        if not asked.passed:
            assert 0 < selected < 4
            assert "the classes are separated" in asked.metadata["notes"].value
            fewer.append(name)
        # Claims say the class itself, or the other two; each in its direction.
        found = read_frame(workspace.current(name, "evaluation_report").file("hypotheses.parquet"))
        assert found["effect_estimate"].abs().max() > 0.5
        for row in found.iter_rows(named=True):
            about = topic_of(" ".join(re.findall("“(.*?)”", row["claim"])))
            assert (row["effect_estimate"] > 0) == (about == name), row["claim"]
    assert fewer
    assert len(saes) == 1
    assert workspace.run("sailing", "embeddings").metadata("embeddings")["new"] == 0
