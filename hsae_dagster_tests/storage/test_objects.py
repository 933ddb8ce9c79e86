"""Finished results: whole or absent, verified, shared, never stale."""

import errno
import fcntl
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from hsae_dagster.errors import StorageError
from hsae_dagster.storage.files import write_atomically
from hsae_dagster.storage.objects import ObjectStore, StageInputs
from hsae_dagster_tests.storage.test_holdouts import altered

INPUTS = StageInputs("stage", "1", {"n": 2}, {"up": "v1"})


def write_two(folder: Path) -> None:
    (folder / "table.bin").write_bytes(b"content")
    (folder / "_figure.png").write_bytes(b"drawn")


def test_equal_inputs_are_built_once_and_found_again(tmp_path: Path) -> None:
    store, calls = ObjectStore(tmp_path), []
    first = store.build(INPUTS, "run1", lambda folder: (calls.append(1), write_two(folder))[1])
    second = store.build(INPUTS, "run2", lambda folder: (calls.append(1), write_two(folder))[1])
    assert calls == [1]
    assert (first.reused, second.reused, second.run_id) == (False, True, "run1")
    assert first == second


@pytest.mark.parametrize(
    "other",
    [
        StageInputs("stage", "2", {"n": 2}, {"up": "v1"}),
        StageInputs("stage", "1", {"n": 3}, {"up": "v1"}),
        StageInputs("stage", "1", {"n": 2}, {"up": "v2"}),
        StageInputs("other", "1", {"n": 2}, {"up": "v1"}),
    ],
)
def test_any_other_input_is_another_object(tmp_path: Path, other: StageInputs) -> None:
    store = ObjectStore(tmp_path)
    assert store.build(INPUTS, "r", write_two).folder != store.build(other, "r", write_two).folder


def test_the_data_version_follows_content_and_ignores_figures(tmp_path: Path) -> None:
    def version(table: bytes, figure: bytes, place: str) -> str:
        def make(folder: Path) -> None:
            (folder / "table.bin").write_bytes(table)
            (folder / "_figure.png").write_bytes(figure)

        return ObjectStore(tmp_path / place).build(INPUTS, "r", make).data_version

    assert version(b"a", b"x", "1") == version(b"a", b"y", "2")
    assert version(b"a", b"x", "3") != version(b"b", b"x", "4")


def test_a_failing_build_leaves_nothing_and_keeps_what_was_current(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    good = store.build(INPUTS, "r", write_two)
    store.point("mine", good)

    def fail(folder: Path) -> None:
        (folder / "table.bin").write_bytes(b"half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        store.build(StageInputs("stage", "2", {}, {}), "r", fail)
    assert [p.name for p in (tmp_path / "objects" / "stage").iterdir()] == [INPUTS.key]
    assert store.current("mine", "stage") == good


@pytest.mark.parametrize("damage", ["flip", "remove", "manifest"])
def test_damage_is_noticed_on_reading_and_repaired_by_building(tmp_path: Path, damage: str) -> None:
    store = ObjectStore(tmp_path)
    stored = store.build(INPUTS, "r", write_two)
    store.point("mine", stored)
    victim = stored.file("manifest.json" if damage == "manifest" else "table.bin")
    if damage == "flip":
        victim.write_bytes(b"contenT")
    else:
        victim.unlink()
    with pytest.raises(StorageError, match=r"Dataset `mine`.*Materialize `stage` again"):
        store.current("mine", "stage")
    again = store.build(INPUTS, "r2", write_two)
    assert not again.reused
    assert store.current("mine", "stage").file("table.bin").read_bytes() == b"content"


def test_an_asset_never_made_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"has no `corpus` yet .by .*records.sqlite.*Materialize `corpus`"):
        ObjectStore(tmp_path).current("mine", "corpus")


def _build_in_process(root: str, barrier: object, results: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    results.put(ObjectStore(Path(root)).build(INPUTS, "r", write_two).data_version)  # type: ignore[attr-defined]


def test_two_processes_may_build_the_same_object(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_build_in_process, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    versions = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(versions) == 1
    assert [p.name for p in (tmp_path / "objects" / "stage").iterdir()] == [INPUTS.key]


def _die_while_making(root: Path) -> None:
    def make(folder: Path) -> None:
        write_two(folder)
        os._exit(9)

    ObjectStore(root).build(INPUTS, "killed", make)


def test_what_a_killed_run_left_unfinished_goes_when_it_is_made_again(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=_die_while_making, args=(tmp_path,))
    killed.start()
    killed.join(60)
    (left,) = tmp_path.rglob(".making-*")
    being_made_elsewhere = left.with_name(".making-another-key-x")
    being_made_elsewhere.mkdir()
    made = ObjectStore(tmp_path).build(INPUTS, "r", write_two)
    assert (killed.exitcode, made.run_id) == (9, "r")
    assert list(tmp_path.rglob(".making-*")) == [being_made_elsewhere]


def test_without_locks_an_unfinished_result_may_be_in_the_making_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    being_made = tmp_path / "objects" / "stage" / f".making-{INPUTS.key}-x"
    being_made.mkdir(parents=True)
    ObjectStore(tmp_path).build(INPUTS, "r", write_two)
    assert being_made.is_dir()


def test_an_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "pointer.json"
    write_atomically(path, b'{"a": 1}')
    write_atomically(path, b'{"a": 2}')
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["pointer.json"]


def test_a_damaged_pointer_points_to_nothing_and_can_be_set_again(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    stored = store.build(INPUTS, "r", write_two)
    store.point("mine", stored)
    altered(tmp_path, stored.data_version.encode(), b"0" * len(stored.data_version))
    with pytest.raises(StorageError, match=r"`mine` has no `stage` yet .by .*records.sqlite.*Materialize `stage`"):
        store.current("mine", "stage")
    assert store.versions("mine") == {}
    store.point("mine", store.build(INPUTS, "r2", write_two))
    assert store.current("mine", "stage").reused


def test_a_manifest_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    stored = store.build(INPUTS, "r", write_two)
    manifest = stored.file("manifest.json")
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(stored.data_version, "0" * 32), encoding="utf-8")
    with pytest.raises(StorageError, match="no readable manifest"):
        store.at(store.place(stored))
    assert store.build(INPUTS, "r2", write_two).data_version == stored.data_version


def test_who_makes_what_another_process_is_making_waits_and_takes_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    maker = context.Process(target=_build_slowly, args=(str(tmp_path), begun))
    maker.start()
    assert begun.wait(30)
    told: list[str] = []
    found = ObjectStore(tmp_path).build(
        INPUTS, "second", lambda folder: pytest.fail("made twice"), lambda: told.append("w")
    )
    maker.join()
    assert (found.reused, found.run_id, told) == (True, "first", ["w"])


def _build_slowly(root: str, begun: object) -> None:
    def make(folder: Path) -> None:
        begun.set()  # type: ignore[attr-defined]
        time.sleep(0.5)
        write_two(folder)

    ObjectStore(Path(root)).build(INPUTS, "first", make)
