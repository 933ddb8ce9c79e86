"""One object store for several machines: what is finished is made once, and no look is lost."""

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage.files import bind
from hsae_dagster.storage.holdouts import HoldoutRegister
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import INCOMPLETE, ObjectStore, StageInputs
from hsae_dagster.storage.records import bind_records
from hsae_dagster.storage.vectors import VectorTable
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.live.processes import free_port, processes, wait_for
from hsae_dagster_tests.storage.test_holdouts import keys, looked, plan

pytest.importorskip("obstore")

FAMILY = EmbeddingSet("test", 3, "f" * 32)
INPUTS = StageInputs("stage", "1", {"n": 2}, {"up": "v1"})


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Path, Path]:
    """The results folders of two machines that share a store."""
    here, there = (shares(tmp_path / name) for name in ("here", "there"))
    return here, there


def shares(folder: Path) -> Path:
    """A results folder of one of several machines. What they share is on one disk, which a test's machines can."""
    bind_records(folder, f"sqlite:///{folder.with_name('shared.sqlite')}")
    return bind(folder, folder.with_name("a store").as_uri())


def write(content: bytes) -> Any:
    def make(folder: Path) -> None:
        (folder / "part").mkdir()
        (folder / "part" / "table.bin").write_bytes(content)
        (folder / "_figure.png").write_bytes(b"drawn")

    return make


def never(_: Path) -> None:
    raise AssertionError("it was made already")


def test_what_one_machine_has_made_another_finds_and_reads(machines: tuple[Path, Path]) -> None:
    here, there = (ObjectStore(folder) for folder in machines)
    made = here.build(INPUTS, "run1", write(b"content"))
    here.point("d", made)
    assert there.datasets() == ["d"] and there.has("d", "stage") and not there.has("d", "other")
    assert there.versions("d") == {"stage": made.data_version}
    found = there.current("d", "stage")
    assert found.folder.is_relative_to(machines[1]) and found.file("part/table.bin").read_bytes() == b"content"
    assert there.build(INPUTS, "run2", never).run_id == "run1"
    changed = there.build(StageInputs("stage", "2", {}, {}), "run2", write(b"changed"))
    there.point("d", changed)
    assert here.current("d", "stage").data_version == changed.data_version != made.data_version
    third = ObjectStore(shares(machines[0].with_name("third")))
    older = third.find("stage", made.data_version)
    assert older is not None and third.place(older) == here.place(made) and older.data_version == made.data_version


def test_of_two_machines_that_make_the_same_at_once_one_is_first_for_both(machines: tuple[Path, Path]) -> None:
    here, there = (ObjectStore(folder) for folder in machines)

    def slowly(folder: Path) -> None:
        there.build(INPUTS, "run2", write(b"as made there"))
        write(b"as made here")(folder)

    assert here.build(INPUTS, "run1", slowly).run_id == "run2"
    assert here.build(INPUTS, "run3", never).file("part/table.bin").read_bytes() == b"as made there"


def test_what_was_cut_off_before_it_was_shared_is_shared_later(machines: tuple[Path, Path]) -> None:
    here, there = (ObjectStore(folder) for folder in machines)
    here.shared, shared = None, here.shared
    here.build(INPUTS, "run1", write(b"content"))
    here.shared = shared
    assert not there.finished(INPUTS)
    here.build(INPUTS, "run2", never)
    assert there.finished(INPUTS)


def test_an_incomplete_result_is_replaced_for_all_once_it_is_complete(machines: tuple[Path, Path]) -> None:
    here, there = (ObjectStore(folder) for folder in machines)

    def lacking(folder: Path) -> None:
        (folder / INCOMPLETE).write_text("{}", encoding="utf-8")
        write(b"half")(folder)

    here.point("d", here.build(INPUTS, "run1", lacking))
    assert there.current("d", "stage").file("part/table.bin").read_bytes() == b"half"  # a worker elsewhere reads it
    assert not there.finished(INPUTS)
    there.build(INPUTS, "run2", write(b"whole"))
    assert here.finished(INPUTS)
    assert here.build(INPUTS, "run3", never).file("part/table.bin").read_bytes() == b"whole"


@pytest.mark.parametrize("whose", ["here", "store"])
def test_a_damaged_file_is_brought_or_made_again(machines: tuple[Path, Path], whose: str) -> None:
    here, there = (ObjectStore(folder) for folder in machines)
    made = here.build(INPUTS, "run1", write(b"content"))
    if whose == "here":
        made.file("part/table.bin").write_bytes(b"torn")
        assert here.build(INPUTS, "run2", never).file("part/table.bin").read_bytes() == b"content"
    else:
        (blob,) = [p for p in (machines[0].with_name("a store") / "blobs").iterdir() if p.read_bytes() == b"content"]
        blob.write_bytes(b"torn")
        assert there.build(INPUTS, "run2", write(b"content")).run_id == "run2"
        assert blob.read_bytes() == b"content"


def test_a_folder_with_a_history_or_another_store_is_refused(tmp_path: Path) -> None:
    worked_in = tmp_path / "worked in"
    looked(HoldoutRegister(worked_in), keys(), plan(keys(), "a"))
    with pytest.raises(StorageError, match=r"worked in without it .records\.sqlite.*empty folder"):
        bind(worked_in, "s3://bucket")
    assert bind(worked_in, "") == worked_in
    bind_records(bind(tmp_path / "new", "s3://bucket/x/"), f"sqlite:///{tmp_path}/r")
    bind(tmp_path / "new", "s3://bucket/x")
    assert ObjectStore(bind(tmp_path / "new", "")).shared is not None  # forgotten settings lose no look
    with pytest.raises(StorageError, match=r"belong to s3://bucket/x.*HSAE_STORE names s3://other"):
        bind(tmp_path / "new", "s3://other")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3-compatible server on this machine."""
    pytest.importorskip("moto.server")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = {"ENDPOINT_URL": address, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}
    for name, value in {**settings, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with processes(tmp_path / "logs") as running:
        running.python("s3", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))

        def created() -> bool:
            try:
                request = urllib.request.Request(f"{address}/b{port}", method="PUT")
                return bool(urllib.request.urlopen(request, timeout=5).status == 200)
            except OSError:
                return False

        wait_for("the server makes a bucket", created)
        yield f"s3://b{port}/study"


@pytest.mark.slow
def test_vectors_of_two_machines_are_one_table_in_s3(tmp_path: Path, bucket: str) -> None:
    here, there = (VectorTable(bind(tmp_path / name, bucket), "d", FAMILY) for name in ("here", "there"))
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert here.keys() == there.keys() == set()
    here.append(["a", "b"], values[:2])
    there.append(["b", "c"], values[1:3])  # both were embedding them: the first stays
    assert sorted(there.listed()) == ["a", "b", "c"]
    here.append(["e"], values[3:])
    for table in (here, there):
        np.testing.assert_array_equal(table.read(["e", "a", "c", "b"]), values[[3, 0, 2, 1]])
    other = VectorTable(tmp_path / "there", "other", FAMILY)
    found, lent, lenders = other.borrow({"a", "z"})
    assert (found, lenders) == (["a"], ["d"])
    np.testing.assert_array_equal(lent, values[:1])
    assert not (tmp_path / "here" / "lancedb").exists()


@pytest.mark.slow
def test_a_second_machine_reads_everything_from_s3_and_makes_nothing_again(tmp_path: Path, bucket: str) -> None:
    disk, here, there, worker = (Workspace(tmp_path / name) for name in ("disk", "here", "there", "worker"))
    for workspace in (disk, here, there, worker):
        workspace.declare("ratings", tiny_texts(120))
    assert disk.run("ratings").success
    shared = {"store_url": bucket, "records_url": f"sqlite:///{tmp_path}/shared.sqlite"}
    first = here.run("ratings", **shared)
    assert first.success, {step: first.sentence(step) for step in first.failures}
    versions = disk.store.versions("ratings")
    assert here.store.versions("ratings") == versions and set(versions) == set(NAMES)
    assert not (here.project.results / "lancedb").exists()

    second = there.run("ratings", **shared)
    assert second.success, {step: second.sentence(step) for step in second.failures}
    assert (second.metadata("embeddings")["new"], first.metadata("embeddings")["new"]) == (0, 120)
    assert all(second.metadata(name)["reused"] for name in NAMES)
    read = there.bytes_of("objects")  # of an autoencoder alone nothing was read: `sae_checkpoints` has it too
    assert read.items() <= here.bytes_of("objects").items()
    assert {name.split("/")[1] for name in read} == set(NAMES)
    assert LineageLog(there.store).records("ratings") == LineageLog(here.store).records("ratings")
    assert len(LineageLog(there.store).records("ratings")) == 1

    # A worker without the others' disk takes up where they stopped.
    last = worker.run("ratings", "evaluation_report", **shared)
    assert last.success and worker.store.versions("ratings") == versions
    assert "first evaluation" in str(last.cards["ratings|h01"])


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    workspace = Workspace(tmp_path)
    workspace.declare("ratings", tiny_texts(120))
    said = workspace.run(
        "ratings", "corpus", store_url="s3://gone/study", records_url=f"sqlite:///{tmp_path}/r"
    ).sentence("corpus")
    assert "s3://gone/study cannot be used" in said and "run again" in said
