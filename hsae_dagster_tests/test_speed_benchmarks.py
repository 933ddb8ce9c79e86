"""The speed benchmark's own pieces at tiny sizes: both sides agree, memory is the child's own, the table is true."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import half_samples, memory, selection, store, training
from benchmarks.speed.__main__ import ROWS, Bench, NotHereError, main, real_activations, run
from benchmarks.speed.children import in_child, measured
from benchmarks.speed.made import load_codes, save_codes, synthetic
from benchmarks.speed.outcome import HEADER, Row, table
from hsae_dagster.core.sae.model import SAEConfig
from hsae_dagster_tests.core.reference import load_reference_module

CONFIG = SAEConfig(m=48, k=6)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_codes(tmp_path_factory.mktemp("speed"), "codes", synthetic(2500, 24, CONFIG, dead=0.0, skew=0.2))


def test_codes_have_the_sparsity_asked_for_and_come_back_from_the_file(codes: Path) -> None:
    sparse, outcome = load_codes(codes)
    assert sparse.shape == (2500, 48)
    assert sparse.nnz / 2500 == pytest.approx(6, abs=0.5)
    assert np.diff(sparse.tocsc().indptr).min() >= 100, "every neuron fires often enough for separation"
    again, _ = load_codes(save_codes(codes.parent, "again", synthetic(2500, 24, CONFIG, dead=0.0, skew=0.2)))
    assert (sparse != again).nnz == 0
    assert np.std(outcome) > 1


@pytest.mark.parametrize(
    ("method", "task"),
    [("lasso", "regression"), ("lasso", "classification"), ("correlation", "regression"), ("separation", "regression")],
)
def test_both_sides_select_the_same(codes: Path, method: str, task: str) -> None:
    load_reference_module("select_neurons")
    mine = selection.ours(str(codes), method, task, rounds=1)
    theirs = selection.reference(str(codes), method, task)
    said = selection.agree(mine, theirs, method)
    assert said.startswith("same 20")
    broken = {**mine, "columns": [*mine["columns"][1:], mine["columns"][0]]}
    with pytest.raises(AssertionError):
        selection.agree(broken, theirs, method)
    assert theirs["measured"].peak > 0


def test_encode_and_select_agree_from_the_same_files(tmp_path: Path) -> None:
    load_reference_module("sae")
    paths = memory.store(tmp_path, synthetic(1500, 24, CONFIG, dead=0.0))
    mine, theirs = memory.ours(**paths), memory.reference(**paths)
    np.testing.assert_allclose(mine["row_sums"], theirs["row_sums"], atol=1e-4)
    assert selection.agree(mine["selection"], theirs["selection"], "lasso")


@pytest.mark.parametrize("prefixes", [None, [8, 24]])
def test_steps_are_the_references_in_float64(prefixes: list[int] | None) -> None:
    load_reference_module("sae")
    found = training.steps(16, 24, 4, prefixes, rounds=1, steps=2, batch=32)
    assert found["apart"] < 1e-10
    assert len(found["ours"]) == len(found["theirs"]) == 1


def test_the_references_validation_loss_is_reached() -> None:
    load_reference_module("sae")
    found = training.converge(1600, 16, 24, 4, epochs=2)
    assert found["reached"] <= found["loss"] < 1


def test_guided_and_plain_steps_are_both_taken() -> None:
    found = training.guided(16, 24, 4, rounds=2, steps=2, batch=32)
    assert len(found["plain"]) == len(found["guided"]) == 2
    assert found["operations"] > 10, "guidance is more work"
    assert 0 < found["least_ms"] < 1


def test_what_is_least_is_measured_beside_a_row(codes: Path, tmp_path: Path) -> None:
    assert 0 < selection.passes(str(codes)) < 1
    assert store._bare_append(tmp_path, np.ones((5, 16), np.float32)) > 0


def test_half_samples_find_the_strong_neurons_again(codes: Path) -> None:
    found = half_samples.work(str(codes), rounds=1)
    assert found["sure"] >= 5
    assert len(found["frequency"]) == 20


def test_both_stores_hold_the_same_vectors_and_take_new_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_their_module", lambda folder: load_reference_embedding(folder))
    size = {"folder": str(tmp_path), "texts": 300, "dimensions": 100}
    store.fill(**size)
    for cold in (True, False):
        theirs, ours = store.read_theirs(**size, cold=cold), store.read_ours(**size, cold=cold)
        assert ours["sample"] == theirs["sample"]
    assert store.read_file(**size, cold=False) > 0
    assert store.add_theirs(**size, new=20)["texts"] == store.add_ours(**size, new=20)["texts"] == 320


def load_reference_embedding(folder: str):
    """The reference reads its cache's place once, when imported."""
    stand_in = "sentence_transformers" not in sys.modules and find_spec("sentence_transformers") is None
    try:
        module = _their_module(folder)
    finally:
        if stand_in:
            sys.modules.pop("sentence_transformers", None)
    module.CACHE_DIR = str(Path(folder) / "reference")
    return module


_their_module = store._their_module


def test_a_child_has_its_own_peak_and_says_what_went_wrong(codes: Path) -> None:
    found = in_child("selection:ours", path=str(codes), method="correlation", task="regression", rounds=2)
    assert len(found["seconds"]) == 2
    assert 0 < found["measured"]["base"] <= found["measured"]["peak"]
    with pytest.raises(RuntimeError, match="No such file"):
        in_child("selection:ours", path="absent.npz", method="correlation", task="regression", rounds=1)


def test_peak_memory_is_that_of_the_block() -> None:
    with measured() as run:
        block = np.ones(2**25)
        del block
    assert 2**28 * 0.9 < run.grown < 2**28 * 1.5
    with measured() as after:
        pass
    assert after.grown < 2**26


def test_the_table_shows_goals_and_whether_they_are_met() -> None:
    rows = [
        Row("fast", 1.0, 200.0, "s", 100, agreed="same", peak_ours=1.0, peak_theirs=30.0),
        Row("slow", 1.0, 2.0, "s", 4, roofline="the disk"),
        Row("bounded", 1.3, 1.0, "ms", 1.1, at_most=True),
        Row("alone", 1.5, None, "s", 2.0, at_most=True),
        Row("no goal", 1.0, 2.0, "s", None),
    ]
    assert [row.met for row in rows] == [True, False, False, True, None]
    lines = list(table(rows))
    assert all(line.count("|") == len(HEADER) + 1 for line in lines)
    assert "| 200x | ≥ 100x | yes | 30 | 1 | same |" in lines[2]
    assert "| ≥ 4x | NO |" in lines[3] and lines[3].endswith("| the disk |")
    assert "| ≤ 2 s | yes |" in lines[5]


def disagreeing(_: Bench) -> list[Row]:
    raise AssertionError("the selected neurons differ")


def test_a_row_without_means_is_named_and_the_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, full=False, shrink=1, results=None, dataset="absent")
    with pytest.raises(NotHereError, match="no embeddings of `absent`"):
        real_activations(bench)
    monkeypatch.setattr("benchmarks.speed.__main__.roofline", dict)
    monkeypatch.setitem(ROWS, "lasso", lambda _: [Row("tried", 1.0, 3.0, "s", 2)])
    monkeypatch.setitem(ROWS, "separation", disagreeing)
    found, agreed = run(bench, ["separation", "lasso", "real"], tmp_path / "out.json")
    assert not agreed
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row.name for row in found] == [row["name"] for row in written["rows"]] == ["tried"]
    assert written["rows"][0]["met"] is True
    assert written["failed"] == {"separation": "the selected neurons differ"}
    assert written["skipped"]["real"].startswith("no embeddings")
    assert written["machine"]["cores"] >= 1


def test_the_command_names_its_rows_and_refuses_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--list"])
    main()
    assert capsys.readouterr().out.split() == list(ROWS)
    monkeypatch.setattr(sys, "argv", ["speed", "lassoo"])
    with pytest.raises(SystemExit):
        main()
    assert "no row is called lassoo" in capsys.readouterr().err
