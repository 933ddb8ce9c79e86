"""The published files, got from a loopback copy of the hub by the real client, over real HTTP."""

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hsae_dagster.dataset.discovery import file_digest, load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data.fetch import EXPERIMENTS, RECORD, REPOSITORY, fetch_published
from hsae_dagster_tests.conftest import CHECKOUT

pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
COMMIT = "a" * 40
FILES = {
    "yelp/train-200K.json": b'{"text": "Good soup.", "stars": 5}\n',
    "yelp/val-10K.json": b'{"text": "Bad soup.", "stars": 1}\n',
    "elsewhere/holdout-50K.json": b'{"text": "Soup.", "stars": 3}\n',
    "headlines/headline_pairs_train.json": b"{}\n",
    "old/headline_pairs_train.json": b"{}\n",
}


class Hub:
    """What the client asks of the hub: the repository's description, and its files."""

    def __init__(self) -> None:
        self.files, self.asked, self.claims = dict(FILES), [], dict[str, str]()
        self.tokens: list[str | None] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def description(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": path,
                "size": len(data),
                "blobId": "b" * 40,
                "lfs": {
                    "sha256": self.claims.get(path) or hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 1,
                },
            }
            for path, data in self.files.items()
        ]
        card = {"license": "cc-by-nc-sa-4.0"}
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "cardData": card, "tags": [], "private": False}

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                hub.tokens.append(self.headers.get("authorization"))
                path = self.path.split("?")[0]
                if path.startswith(f"/api/datasets/{REPOSITORY}"):
                    return self._send(json.dumps(hub.description()).encode(), with_body)
                name = path.removeprefix(f"/datasets/{REPOSITORY}/resolve/{COMMIT}/")
                if name not in hub.files:
                    return self._send(b"{}", with_body, 404)
                hub.asked.append((self.command, name))
                return self._send(hub.files[name], with_body)

            def _send(self, data: bytes, with_body: bool, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.end_headers()
                if with_body:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_not_to_be_sent")
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in EXPERIMENTS:
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(CHECKOUT / "data" / name / "dataset.yaml", tmp_path / "data" / name)
    return tmp_path / "data"


def test_files_arrive_where_the_declaration_names_them_with_licence_and_checksums(hub: Hub, data: Path) -> None:
    said: list[str] = []
    paths = fetch_published("yelp", data, said.append)
    assert paths == [path for _, path in load_dataset(data, "yelp").file_paths()]
    assert [path.read_bytes() for path in paths] == list(FILES.values())[:3]
    assert "cc-by-nc-sa-4.0" in " ".join(said)
    record = json.loads((data / "yelp" / RECORD).read_text(encoding="utf-8"))
    for path in paths:
        noted = record[path.name]
        assert noted["sha256"] == file_digest(path)
        assert (noted["repository"], noted["commit"], noted["licence"]) == (REPOSITORY, COMMIT, "cc-by-nc-sa-4.0")
    assert sorted(path.name for path in (data / "yelp").iterdir()) == sorted(
        [RECORD, "dataset.yaml", *(path.name for path in paths)]
    )
    assert set(hub.tokens) == {None}
    asked = list(hub.asked)
    fetch_published("yelp", data, said.append)
    assert hub.asked == asked


def test_a_file_that_somebody_put_there_is_kept(hub: Hub, data: Path) -> None:
    (data / "yelp" / "val-10K.json").write_bytes(b"mine")
    fetch_published("yelp", data, lambda line: None)
    assert (data / "yelp" / "val-10K.json").read_bytes() == b"mine"
    assert "val-10K.json" not in json.loads((data / "yelp" / RECORD).read_text(encoding="utf-8"))


def test_a_file_that_is_not_what_the_repository_says_is_not_kept(hub: Hub, data: Path) -> None:
    hub.claims["yelp/train-200K.json"] = "0" * 64
    with pytest.raises(DatasetError, match="It was not kept"):
        fetch_published("yelp", data, lambda line: None)
    assert [path.name for path in (data / "yelp").iterdir()] == ["dataset.yaml"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("congress", "holds 0 files called train-10sentence-114K.json"),
        ("headlines", "holds 2 files called headline_pairs_train.json"),
        ("tweets", "Use one of headlines, yelp, congress"),
    ],
)
def test_what_cannot_be_got_is_explained(hub: Hub, data: Path, name: str, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        fetch_published(name, data, lambda line: None)


def test_no_network_is_a_sentence_with_the_way_by_hand(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DatasetError, match=r"could not be read.*put them into .*/data/yelp"):
        fetch_published("yelp", data, lambda line: None)


def test_without_the_extra_its_installation_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DatasetError, match=r"pip install -e '\.\[hub\]'"):
        fetch_published("yelp", data, lambda line: None)
