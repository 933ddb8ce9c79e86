"""Results as the stages hand them on: files under declared names and schemas, concepts as a type."""

import errno
import re
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

import hsae_dagster
from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import Fidelity
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.errors import StorageError
from hsae_dagster.storage.artifacts import write_frame
from hsae_dagster.storage.objects import StageInputs, StoredObject
from hsae_dagster.storage.outputs import Output, StoredActivations, StoredInterpretations, StoredSelection

NEURONS = pl.DataFrame({"rank": [0], "column": [3], "score": [0.5], "sae_id": ["s"], "half": [""]})


def stored(folder: Path, kind: type[Output]) -> StoredObject:
    return StoredObject(kind.asset, folder, "v", StageInputs(kind.asset, "1", {}, {}), "run", "now")


def fidelity(**known: object) -> Fidelity:
    nothing = dict.fromkeys(("recall", "precision", "f1", "correlation"), 0.25)
    natural = dict.fromkeys(("natural_precision", "natural_recall", "natural_f1"), 0.5)
    counts = {"n_firing": 7, "false_positive_interval": (0.2, 0.8)}
    return Fidelity(**{**nothing, **natural, **counts, **known})  # type: ignore[arg-type]


def write_selection(folder: Path, neurons: pl.DataFrame = NEURONS) -> StoredSelection:
    StoredSelection.write(folder, neurons=neurons, summary={"method": "lasso"})
    return StoredSelection(stored(folder, StoredSelection))


def test_a_file_is_read_when_it_is_asked_for_and_once(tmp_path: Path) -> None:
    selection = write_selection(tmp_path)
    assert selection.columns("") == [3]
    (tmp_path / "neurons.parquet").unlink()
    assert selection.columns("") == [3] and selection.columns("a") == []
    (tmp_path / "selection.json").unlink()
    with pytest.raises(StorageError, match=r"selection\.json is not what this version reads of `selected_neurons`"):
        _ = selection.summary


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (NEURONS.drop("sae_id"), "its column `sae_id` is missing, not String"),
        (NEURONS.with_columns(pl.col("column").cast(pl.Int32)), "its column `column` is Int32, not Int64"),
    ],
)
def test_a_table_of_another_schema_is_neither_written_nor_read(tmp_path: Path, frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write_selection(tmp_path, frame)
    frame.write_parquet(tmp_path / "neurons.parquet")
    with pytest.raises(StorageError) as error:
        _ = StoredSelection(stored(tmp_path, StoredSelection)).neurons
    sentence = str(error.value)
    assert said in sentence and str(tmp_path / "neurons.parquet") in sentence
    assert sentence.endswith(f"Remove {tmp_path}, then materialize `selected_neurons` again.")


def test_a_result_is_written_whole_and_holds_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`selected_neurons` is made of"):
        StoredSelection.write(tmp_path, neurons=NEURONS)
    with pytest.raises(TypeError, match="`selected_neurons` is made of"):
        StoredSelection.write(tmp_path, neurons=NEURONS, summary={}, other=1)
    StoredInterpretations.write(tmp_path, concepts=[], seen={}, incomplete=None)
    assert {path.name for path in tmp_path.iterdir()} == {"concepts.json", "seen.json"}
    assert StoredInterpretations(stored(tmp_path, StoredInterpretations)).choice is None


def test_what_is_passed_twice_is_one_file_under_two_names(tmp_path: Path) -> None:
    codes = sp.csr_matrix(np.eye(2, dtype=np.float32))
    columns = {"column": [0, 1], "sae_id": ["s", "s"], "sae_column": [0, 1], "half": ["", "b"]}
    StoredActivations.write(
        tmp_path,
        codes=codes,
        unit_codes=codes,
        strongest=np.array([0, 1], dtype=np.int32),
        columns=pl.DataFrame(columns | {"firing_rate": [0.5, 0.5]}),
        texts=pl.DataFrame({"text_id": ["a", "b"]}),
        units=pl.DataFrame({"unit_id": ["a", "b"]}),
    )
    assert (tmp_path / "codes.safetensors").samefile(tmp_path / "unit_codes.safetensors")
    read = StoredActivations(stored(tmp_path, StoredActivations))
    assert read.on(pl.Series(["b"])).toarray().tolist() == [[0.0, 1.0]]
    assert read.on(pl.Series(["b"]), "a").nnz == 0  # the other half chose that neuron's autoencoder
    assert read.of_half("b").nnz == 2 and read.strongest.tolist() == [0, 1]


PHRASE = Concept("asks for money", "openai:m", None, {"prompt": "p", "cost_usd": 0.25})
GROUP = Concept("says “tax”", "lexical", {"kind": "words", "terms": ["tax"]}, {"title": "tax"})
OFFLINE = FoundConcept(
    0, 3, "s", 1, 0.5, -0.25, GROUP, (1.5, None), fidelity(), 2.5, chosen=0, made_from="terms", half="a"
)
SILENT = FoundConcept(1, 4, "s", 2, 0.0, 0.0, None, unreadable="nothing", made_from="neuron")
WRITTEN = FoundConcept(
    2,
    5,
    "s",
    3,
    0.5,
    0.25,
    PHRASE,
    (1.0, 2.0),
    fidelity(n_firing=3),
    1.5,
    ((PHRASE, fidelity()),),
    0,
    calls=4,
    model="m",
)


@pytest.mark.parametrize(
    "concept",
    [
        OFFLINE,
        SILENT,
        WRITTEN,
        replace(WRITTEN, concept=None, fidelity=None, unreadable="no candidate tells", chosen=None),
    ],
    ids=["offline", "silent", "written", "unreadable"],
)
def test_a_concept_comes_back_from_its_record_as_it_was(tmp_path: Path, concept: FoundConcept) -> None:
    StoredInterpretations.write(tmp_path, concepts=[concept], seen={})
    (read,) = StoredInterpretations(stored(tmp_path, StoredInterpretations)).concepts
    assert str(read) == str(concept)  # NaN is no NaN's equal
    if concept.concept:
        assert read.said.details == concept.concept.details


def test_a_claim_without_a_neuron_has_no_activations_to_draw_texts_by(tmp_path: Path) -> None:
    from hsae_dagster.stages.gold import firing_of

    activations = StoredActivations(stored(tmp_path, StoredActivations))
    vars(activations).update(
        texts=pl.DataFrame({"text_id": ["a", "b"]}), codes=sp.csr_matrix(np.array([[0.0, 2.0], [3.0, 0.0]]))
    )
    of_style = replace(OFFLINE, column=None)
    found = firing_of(activations, [replace(OFFLINE, column=1), of_style], activations.texts)
    assert found.tolist() == [[2.0], [0.0]]
    assert firing_of(activations, [of_style], activations.texts).shape == (2, 0)


def test_file_names_stand_in_storage_alone() -> None:
    root = Path(hsae_dagster.__file__).parent
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        if path.parent.name != "storage"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"""\.(file|json)\(f?["']""", line)
    ]
    assert found == []


def test_a_table_that_finds_no_room_is_an_error_of_the_machine_and_none_of_a_library(tmp_path: Path) -> None:
    # Polars raises its own errors, which nobody told people about; a limit on the size of files stands for a full disk.
    texts = pl.DataFrame({"text": [str(number**7) for number in range(5_000)]})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            write_frame(tmp_path / "texts.parquet", texts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
