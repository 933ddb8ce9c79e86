"""What is made once: second runs, fresh results folders, datasets that share texts, rows appended, several SAEs."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl

from hsae_dagster.storage import artifacts
from hsae_dagster.storage.artifacts import read_codes, read_frame
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.conftest import Finished

# Files of an object that hold the run's id, which is on the report and on nothing else.
NAMING_THE_RUN = {"_report.html"}


def test_a_second_run_embeds_nothing_makes_nothing_and_changes_no_byte(copied: Workspace) -> None:
    before = copied.bytes_of()
    run = copied.run("ratings")
    assert run.success
    embeddings = run.metadata("embeddings")
    assert (embeddings["new"], embeddings["borrowed"]) == (0, 0)
    assert embeddings["kept"] == embeddings["dagster/row_count"]
    assert all(run.metadata(asset)["reused"] for asset in NAMES)
    assert copied.bytes_of() == before


SCRIPT = """
import sys
from pathlib import Path
from hsae_dagster_tests.assets.workspace import Workspace
run = Workspace(Path(sys.argv[1])).run("ratings")
sys.exit(0 if run.success else 1)
"""


def test_another_process_in_an_empty_results_folder_makes_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    other = Workspace(tmp_path)
    other.declare("ratings", tiny_texts())
    # Another seed of str hashes: whatever depends on the order of a set shows.
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made, known = other.manifests(), finished.workspace.manifests()
    assert {key.split("/")[0] for key in made} >= {*NAMES, "sae"}
    for key, manifest in made.items():
        files, expected = manifest.pop("files"), known[key].pop("files")
        assert set(files) == set(expected)
        assert {name for name in files if files[name] != expected[name]} <= NAMING_THE_RUN, key
        assert manifest == known[key]


def test_only_the_results_that_depend_on_a_change_are_made_again(copied: Workspace) -> None:
    copied.declare("ratings", None, selection={"n": 3})
    run = copied.run("ratings")
    assert run.success
    reused = {asset for asset in NAMES if run.metadata(asset)["reused"]}
    made = {"selected_neurons", "interpretations", "annotation_matrix", "evaluation_report"}
    assert reused - {"corpus"} == set(NAMES) - {"corpus"} - made


def test_claims_are_found_again_when_a_limit_of_theirs_changes_and_only_then(copied: Workspace) -> None:
    """How many claims and how many texts each needs are read by the choice; what a model is shown is not."""
    limits = {"min_positives": 5, "bootstrap": 20, "folds": 3, "same_concept": 1.1}
    for changes, kept in (
        ({"interpretation": {"candidates": 1, "bin": [80, 100]}}, True),
        ({"inference": limits | {"alpha": 0.2}}, True),
        ({"inference": limits | {"min_positives": 20}}, False),
        ({"selection": {"n": 1}}, False),
    ):
        copied.declare("ratings", None, **changes)
        # The neurons stay those of the first declaration.
        run = copied.run("ratings", "interpretations")
        assert run.success
        assert run.metadata("interpretations")["reused"] is kept, changes
    assert run.metadata("interpretations")["dagster/row_count"] == 1


def test_each_step_reads_the_activations_once(copied: Workspace, monkeypatch) -> None:
    read: list[str] = []
    read_arrays = artifacts.read_arrays
    monkeypatch.setattr(artifacts, "read_arrays", lambda path: (read.append(path.name), read_arrays(path))[1])
    copied.declare("ratings", None, selection={"n": 3})
    for asset in ("selected_neurons", "interpretations", "annotation_matrix", "evaluation_report"):
        read.clear()
        assert copied.run("ratings", asset).success
        assert read.count("codes.safetensors") == (asset != "annotation_matrix"), asset


def test_changed_code_versions_are_not_served_old_results(copied: Workspace, monkeypatch) -> None:
    from hsae_dagster.assets import selected_neurons

    old = copied.current("ratings", "selected_neurons")
    monkeypatch.setattr(selected_neurons, "CODE_VERSION", "another")
    run = copied.run("ratings", "selected_neurons")
    assert run.metadata("selected_neurons")["reused"] is False
    new = copied.current("ratings", "selected_neurons")
    assert new.folder != old.folder
    assert new.data_version == old.data_version


def test_a_damaged_result_is_made_again_from_what_is_upstream(copied: Workspace) -> None:
    stored = copied.current("ratings", "selected_neurons")
    good = stored.file("neurons.parquet").read_bytes()
    stored.file("neurons.parquet").write_bytes(good[:-7])
    failed = copied.run("ratings", "interpretations")
    assert "neurons.parquet" in failed.sentence("interpretations")
    assert "`selected_neurons` again" in failed.sentence("interpretations")
    run = copied.run("ratings")
    assert run.success
    assert run.metadata("selected_neurons")["reused"] is False
    assert stored.file("neurons.parquet").read_bytes() == good


def test_a_dataset_with_the_same_texts_borrows_their_vectors(finished: Finished) -> None:
    for dataset in ("parties", "duels"):
        told = finished.runs[dataset].metadata("embeddings")
        assert told["new"] == told["kept"] == 0
        assert told["borrowed"] == told["dagster/row_count"] > 0
        assert told["borrowed from"] in ("ratings", "parties")
    first = finished.runs["ratings"].metadata("embeddings")
    assert (first["new"], first["borrowed"], first["borrowed from"]) == (300, 0, "none")


def test_appended_rows_are_the_only_ones_embedded_and_move_no_old_text(tmp_path: Path) -> None:
    # No report has looked yet: rows join. From the first look on they wait, see test_appended_rows.py.
    workspace, texts = Workspace(tmp_path), tiny_texts()
    workspace.declare("ratings", texts)
    assert workspace.run("ratings", upto="embeddings").success
    # More of the same stream; the last one repeats an old text for another author's rating.
    more = tiny_texts(307)[300:]
    assert more.join(texts, on="text").is_empty()
    again = texts[:1].with_columns(pl.lit(9.0).alias("score"))
    before = read_frame(workspace.current("ratings", "corpus").file("texts.parquet"))
    workspace.declare("ratings", pl.concat([texts, more, again]))
    run = workspace.run("ratings", upto="embeddings")
    told = run.metadata("embeddings")
    assert (told["new"], told["kept"]) == (7, 300)
    after = read_frame(workspace.current("ratings", "corpus").file("texts.parquet"))
    assert after.join(before, on=before.columns, how="semi").equals(before)
    assert after.height == 307


def test_several_autoencoders_stand_side_by_side(copied: Workspace) -> None:
    first = {"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}
    copied.declare("ratings", None, saes=[first, {**first, "m": 6, "seed": 1, "prefixes": [3, 6]}], selection={"n": 5})
    run = copied.run("ratings")
    assert run.success
    records = copied.current("ratings", "sae_checkpoints").json("saes.json")
    assert [record["config"]["m"] for record in records] == [8, 6]
    columns = read_frame(copied.current("ratings", "activations").file("columns.parquet"))
    ids = [record["sae_id"] for record in records]
    assert columns["sae_id"].to_list() == [ids[0]] * 8 + [ids[1]] * 6
    assert columns["sae_column"].to_list() == [*range(8), *range(6)]
    codes = read_codes(copied.current("ratings", "activations").file("codes.safetensors"))
    alone = copied.current("parties", "activations")
    # The first one is the one that the other datasets have: it was not trained again, and its codes are the same.
    assert (codes[:, :8] != read_codes(alone.file("codes.safetensors"))).nnz == 0
    assert ids[0] == copied.current("parties", "sae_checkpoints").json("saes.json")[0]["sae_id"]
    neurons = read_frame(copied.current("ratings", "selected_neurons").file("neurons.parquet"))
    assert neurons["column"].n_unique() == 5
    joined = neurons.join(columns, on="column", how="left")
    assert joined["sae_id"].equals(joined["sae_id_right"])
    assert joined["sae_column"].equals(joined["sae_column_right"])
    hypotheses = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    assert set(hypotheses["sae_id"]) <= set(ids)


def test_the_same_autoencoder_declared_twice_is_there_once(copied: Workspace) -> None:
    sae = {"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}
    copied.declare("ratings", None, saes=[sae, sae])
    run = copied.run("ratings", upto="activations")
    assert run.success
    assert run.metadata("activations")["neurons"] == 8
