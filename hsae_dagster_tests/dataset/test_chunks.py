"""Chunks: nothing of a document is lost, none is too long, and they stay together."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.core.corpus import SplitShares, build_corpus
from hsae_dagster.dataset.chunks import chunk_rows, chunks
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.spec import Chunk
from hsae_dagster.errors import DatasetError
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts

TEXTS = st.lists(st.sampled_from(["One", "two.", "Three!", "four,", "\n\n", "5", "“Six?”", "ßeven…"]), min_size=1).map(
    " ".join
)


def rows(texts: list[str], cluster: list[str | None] | None = None) -> pl.DataFrame:
    n = len(texts)
    return pl.DataFrame(
        {
            "file": ["f"] * n,
            "row": range(1, n + 1),
            "declared_split": [None] * n,
            "text": texts,
            "label": [float(i % 2) for i in range(n)],
            "cluster": cluster or [None] * n,
        },
        schema_overrides={"declared_split": pl.String, "cluster": pl.String},
    )


@given(text=TEXTS, words=st.integers(20, 40), sentences=st.integers(1, 4))
def test_every_word_is_kept_in_order_and_no_part_is_too_long(text: str, words: int, sentences: int) -> None:
    text = f"{text} {text} {text}"
    by_words = chunks(text, Chunk(words=words))
    assert " ".join(by_words).split() == text.split()
    assert max(len(part.split()) for part in by_words) <= words
    sizes = [len(part.split()) for part in by_words]
    assert max(sizes) - min(sizes) <= 1
    by_sentences = chunks(text, Chunk(sentences=sentences))
    assert " ".join(by_sentences).split() == text.split()
    assert all(part in text for part in [*by_words, *by_sentences])


def test_sentences_end_where_a_reader_ends_them() -> None:
    text = 'He paid 3.50 dollars. "Why?" she asked. It was, e.g., cheap!\n\nno capital here… 4 more. Übung.'
    assert chunks(text, Chunk(sentences=1)) == [
        "He paid 3.50 dollars.",
        '"Why?" she asked.',
        "It was, e.g., cheap!",
        "no capital here…",
        "4 more.",
        "Übung.",
    ]
    assert chunks("A b. C d. E f.", Chunk(sentences=2)) == ["A b. C d.", "E f."]


def test_chunks_inherit_and_the_document_is_the_cluster() -> None:
    long = " ".join(f"word{i}" for i in range(50))
    made = chunk_rows(rows([long, "short", f"{long} more"], [None, None, "ann"]), Chunk(words=20))
    assert made["row"].to_list() == [1, 1, 1, 2, 3, 3, 3]
    assert made["label"].to_list() == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    clusters = made["cluster"].to_list()
    assert len(set(clusters[:3])) == 1
    assert len({clusters[0], clusters[3], clusters[4]}) == 3
    assert set(clusters[4:]) == {"ann"}


def test_no_document_is_on_two_sides_of_a_split() -> None:
    documents = [" ".join(f"w{i}x{j}" for j in range(90)) for i in range(120)]
    corpus = build_corpus(chunk_rows(rows(documents), Chunk(words=30)), SplitShares(0.2, 0.1, 0.3, "salt"))
    assert corpus.observations.height == 360
    assert corpus.observations["cluster_id"].n_unique() == 120
    assert corpus.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_without_the_field_rows_stay_as_they_are() -> None:
    frame = rows(["a b", "c d"])
    assert chunk_rows(frame, None).equals(frame)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chunk": {"words": 100, "sentences": 3}}, "either words or sentences"),
        ({"chunk": {}}, "either words or sentences"),
        ({"chunk": {"words": 5}}, "chunk.words"),
        (
            {
                "chunk": {"words": 100},
                "task": "pairwise",
                "columns": {"text_a": "text", "text_b": "author", "label": "score"},
            },
            "not for pairs",
        ),
    ],
)
def test_wrong_uses_are_explained(workspace: Workspace, changes: dict[str, object], words: str) -> None:
    workspace.declare("mine", tiny_texts(20), **changes)
    with pytest.raises(DatasetError, match=words):
        load_dataset(workspace.root / "data", "mine")


def test_the_corpus_holds_chunks(workspace: Workspace) -> None:
    numbered = (
        tiny_texts(200)
        .with_row_index()
        .with_columns(pl.col("text").str.replace_all(r"\.", pl.format(" n{}n.", "index")))
    )
    workspace.declare("mine", numbered, chunk={"sentences": 1}, columns={"text": "text", "label": "score"})
    run = workspace.run("mine", upto="corpus")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    told = run.metadata("corpus")
    assert (told["rows read"], told["clusters"]) == (200, 200)
    assert told["observations"] > 300
