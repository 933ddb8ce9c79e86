"""Datasets whose texts are read by their sentences, from files to report."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.inference import joint_fit as ladder
from hsae_dagster.core.selection import variants as across_clusters
from hsae_dagster.keys import text_id
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.outputs import StoredActivations, StoredCorpus, StoredEmbeddings
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts

SAE = {"m": 16, "k": 2, "max_epochs": 20, "batch_size": 64}


def several_sentences() -> pl.DataFrame:
    """150 texts of six sentences, whose outcome is the sum of theirs; 30 authors."""
    single = tiny_texts(450)
    texts, scores = single["text"].to_list(), single["score"].to_list()
    rows = [
        (
            ". ".join(text.capitalize() for text in texts[i : i + 3]) + ".",
            sum(scores[i : i + 3]),
            f"author {i // 3 % 30}",
        )
        for i in range(0, 450, 3)
    ]
    return pl.DataFrame(rows, schema=["text", "score", "author"], orient="row")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("units"))
    made.declare("long", several_sentences(), saes=[SAE], units="auto", sae_seeds=2)
    run = made.run("long")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert run.metadata("corpus")["unit"] == "sentence"
    assert run.metadata("corpus")["units of the median text"] == 6
    assert run.metadata("selected_neurons")["share found again"] is not None
    return made


def test_the_corpus_holds_distinct_sentences_and_where_they_stand(workspace: Workspace) -> None:
    corpus = workspace.current("long", "corpus")
    assert StoredCorpus(corpus).unit_kind == "sentence"
    units, places = read_frame(corpus.file("units.parquet")), read_frame(corpus.file("text_units.parquet"))
    assert units["unit_id"].to_list() == sorted({text_id(unit) for unit in units["unit"]})
    assert places.height == 900
    texts = read_frame(corpus.file("texts.parquet"))
    joined = places.join(texts, on="text_id").join(units, on="unit_id")
    assert all(row["text"][row["start"] : row["end"]] == row["unit"] for row in joined.iter_rows(named=True))
    summary = corpus.json("summary.json")["units"]
    assert (summary["units"], summary["distinct"]) == (900, units.height)


def test_embeddings_are_of_sentences_and_shared_with_texts_that_are_one(workspace: Workspace) -> None:
    units = read_frame(workspace.current("long", "corpus").file("units.parquet"))
    assert workspace.current("long", "embeddings").json("embeddings.json")["texts"] == units.height
    single = units.head(60).select(
        pl.col("unit").alias("text"), score=pl.int_range(60) % 7, author=pl.int_range(60).cast(pl.String)
    )
    workspace.declare("single", single, saes=[SAE], units="auto")
    run = workspace.run("single", "corpus", "embeddings")
    assert run.success
    assert run.metadata("corpus")["unit"] == "text"
    assert run.metadata("embeddings")["borrowed"] == 60


def test_autoencoders_learn_from_distinct_training_sentences(workspace: Workspace) -> None:
    from hsae_dagster.stages.autoencoders import Lessons

    corpus = StoredCorpus.current(workspace.project.store, "long")
    lessons, free = (
        Lessons.read(None, corpus, None, every_text=every)  # type: ignore[arg-type]
        for every in (False, True)
    )
    places = corpus.text_units.join(corpus.texts, on="text_id")
    of = {split: set(places.filter(pl.col("split") == split)["unit_id"]) for split in ("train", "validation")}
    assert lessons.ids["train"].to_list() == sorted(of["train"])
    # Those that see no outcome learn from holdout texts, too; never from the texts that tell the end.
    assert free.ids["train"].to_list() == sorted(set(places.filter(pl.col("split") != "validation")["unit_id"]))
    assert set(free.ids["train"]) > set(lessons.ids["train"])
    assert not set(free.ids["validation"]) & set(free.ids["train"])
    assert lessons.ids["validation"].to_list() == sorted(of["validation"] - of["train"])


def test_activations_of_texts_are_the_largest_of_their_sentences(workspace: Workspace) -> None:
    activations = StoredActivations.current(workspace.project.store, "long")
    codes, strongest = activations.codes, activations.strongest
    units = StoredCorpus.current(workspace.project.store, "long").places
    assert activations.units["unit_id"].to_list() == units.unit_ids.to_list()
    assert activations.text_ids.to_list() == units.text_ids.to_list()
    dense = activations.unit_codes.toarray()
    expected = np.stack(
        [dense[units.rows[a:b]].max(axis=0) for a, b in zip(units.starts, units.starts[1:], strict=False)]
    )
    np.testing.assert_array_equal(codes.toarray(), expected)
    rows = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))
    np.testing.assert_array_equal(dense[strongest, codes.indices], codes.data)
    assert all(
        unit in units.rows[units.starts[t] : units.starts[t + 1]] for t, unit in zip(rows, strongest, strict=True)
    )


def test_a_texts_vector_is_the_mean_of_its_sentences(workspace: Workspace) -> None:
    vectors = StoredEmbeddings.current(workspace.project.store, "long")
    units = StoredCorpus.current(workspace.project.store, "long").places
    wanted = units.text_ids.gather_every(5)
    found = vectors.of_texts(units, wanted)
    for place in (0, 7):
        row = 5 * place
        own = units.unit_ids.gather(units.rows[units.starts[row] : units.starts[row + 1]])
        np.testing.assert_allclose(found[place], vectors.read(own).mean(axis=0), atol=1e-6)


def test_no_stage_holds_the_vectors_of_all_sentences_to_look_at_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = workspace.project.store
    vectors = StoredEmbeddings.current(store, "long")
    units = StoredCorpus.current(store, "long").places
    whole = vectors.of_texts(units, units.text_ids)
    asked, read = [], StoredEmbeddings.read
    monkeypatch.setattr("hsae_dagster.storage.outputs._PASSED", 50)
    monkeypatch.setattr(StoredEmbeddings, "read", lambda held, ids: (asked.append(len(ids)), read(held, ids))[1])
    np.testing.assert_array_equal(vectors.of_texts(units, units.text_ids), whole)
    assert len(asked) > 10
    assert workspace.run("long", "embeddings").success
    assert max(asked) <= 60


def test_the_evaluation_knows_the_corpus_whose_sentences_were_embedded(workspace: Workspace) -> None:
    store = workspace.project.store
    record = LineageLog(store).latest("long")
    assert record is not None and record.mixed == ()
    embeddings = record.origin("embeddings")
    assert embeddings is not None and embeddings.upstream == {"corpus": store.versions("long")["corpus"]}


def test_labels_shape_no_activation(workspace: Workspace, tmp_path: Path) -> None:
    copied = workspace.copy_to(tmp_path)
    frame = several_sentences().with_columns(pl.col("score") * 2)
    copied.declare("long", frame, saes=[SAE], units="auto", sae_seeds=2)
    run = copied.run("long", upto="activations")
    assert run.metadata("activations")["reused"]
    copied.declare("long", frame, saes=[SAE], units="auto", sae_seeds=2, pool="mean")
    run = copied.run("long", upto="activations")
    assert run.metadata("sae_checkpoints")["reused"]
    assert not run.metadata("activations")["reused"]


def test_whole_texts_keep_one_file_of_codes(workspace: Workspace) -> None:
    workspace.declare("whole", several_sentences(), saes=[SAE], units="text")
    run = workspace.run("whole", upto="activations")
    assert run.success
    folder = workspace.current("whole", "activations").folder
    assert (folder / "codes.safetensors").samefile(folder / "unit_codes.safetensors")
    corpus = workspace.current("whole", "corpus")
    assert read_frame(corpus.file("units.parquet"))["unit_id"].equals(
        read_frame(corpus.file("texts.parquet"))["text_id"].rename("unit_id")
    )


@pytest.mark.parametrize("units", ["auto", "sentence"])
def test_labels_cannot_guide_sentences(workspace: Workspace, units: str) -> None:
    workspace.declare("guided", several_sentences(), saes=[{**SAE, "label_weight": 0.2}], units=units)
    run = workspace.run("guided", upto="sae_checkpoints")
    (step,) = run.failures
    assert "a sentence has no label of its own" in run.sentence(step)


def test_auto_chooses_among_sentence_neurons(workspace: Workspace) -> None:
    workspace.declare("auto", several_sentences(), saes={"auto": {"max_epochs": 3}}, units="auto")
    run = workspace.run("auto", upto="selected_neurons")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    (record,) = workspace.current("auto", "sae_checkpoints").json("saes.json")
    assert record["config"]["label_weight"] == 0.0


def test_no_neuron_holds_where_the_outcome_does_not_across_clusters(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = workspace.copy_to(tmp_path)
    monkeypatch.setattr(across_clusters, "_CLUSTERS", 10_000)
    copied.declare("long", None, saes=[SAE], units="auto", sae_seeds=2, selection={"n": 5})
    run = copied.run("long", upto="interpretations")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    neurons = read_frame(copied.current("long", "selected_neurons").file("neurons.parquet"))
    before = read_frame(workspace.current("long", "selected_neurons").file("neurons.parquet"))
    assert neurons.height == 0
    assert neurons.schema == before.schema
    assert not run.checks["selected_neurons.as_many_as_asked"].passed
    assert "16 of 16 neurons were left out" in run.metadata("selected_neurons")["notes"]
    # Claims are chosen for themselves, so there are some without a selected neuron.
    assert run.metadata("interpretations")["dagster/row_count"] >= 1
    copied.declare("long", None, saes=[SAE], units="auto", sae_seeds=2, selection={"n": 5, "across_clusters": False})
    assert copied.run("long", "selected_neurons").success
    assert read_frame(copied.current("long", "selected_neurons").file("neurons.parquet")).height == 5


def test_nothing_found_ends_in_a_report(workspace: Workspace, tmp_path: Path) -> None:
    copied = workspace.copy_to(tmp_path)
    frame = several_sentences()
    shuffled = pl.Series("score", np.random.default_rng(0).permutation(frame["score"].to_numpy()))
    copied.declare("long", frame.with_columns(shuffled), saes=[SAE], units="auto", sae_seeds=2)
    run = copied.run("long")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert run.metadata("interpretations")["dagster/row_count"] == 0
    assert run.metadata("evaluation_report")["dagster/row_count"] == 0
    page = Path(run.metadata("evaluation_report")["report"]).read_text(encoding="utf-8")
    assert "Nothing found." in page and "There is nothing to show: no claim was tested." in page
    before, after = (
        read_frame(made.current("long", "evaluation_report").file("hypotheses.parquet")) for made in (workspace, copied)
    )
    assert after.is_empty() and after.schema == before.schema


def test_pictures_alone_end_in_a_report_without_a_line_of_plain_words(tmp_path: Path) -> None:
    workspace, rng = Workspace(tmp_path), np.random.default_rng(2)
    good = rng.random(240) < 0.5
    # The bundled embedder tells pictures by their number and by the marks beside them, if at all.
    faces = [
        "".join(rng.choice(list("🎉😂👍😍" if yes else "😡💩👎😢"), rng.integers(2, 12)))
        + "!" * int(rng.integers(5)) * int(yes)
        for yes in good
    ]
    frame = pl.DataFrame({"text": faces, "score": good.astype(float)})
    workspace.declare("faces", frame, saes=[SAE], columns={"text": "text", "label": "score"})
    run = workspace.run("faces")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    fits = read_frame(workspace.current("faces", "evaluation_report").file("fits.parquet"))["name"].to_list()
    assert ladder.EMBEDDINGS in fits and ladder.CONCEPTS in fits and ladder.WORDS not in fits
