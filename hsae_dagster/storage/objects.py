"""Finished results, addressed by what they were made from, on disk and in the store that several machines share."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.storage.files import Shared, locked, sealed, sync, unsealed
from hsae_dagster.storage.records import Document, Records

MANIFEST = "manifest.json"
# A result that holds this file lacks something that making it again may bring (answers of a server that failed).
INCOMPLETE = "_incomplete.json"
_CURRENT = "current result"


@dataclass(frozen=True)
class StageInputs:
    """What a stage's result is a function of; equal inputs mean equal results.

    These are the stage's name, the version of its code, the part of the declaration that it reads (JSON-like), and the
    data version of each upstream asset.
    """

    asset: str
    code_version: str
    config: Mapping[str, Any]
    upstream: Mapping[str, str]

    @property
    def record(self) -> dict[str, Any]:
        """As JSON-like data."""
        return {**vars(self), "config": dict(self.config), "upstream": dict(self.upstream)}

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hash_json(self.record)


@dataclass(frozen=True)
class StoredObject:
    """A verified result.

    Attributes:
        asset: the stage that made it.
        folder: where its files lie.
        data_version: fingerprint of its content files.
        inputs: what it was made from.
        run_id, created: the run that made it, and when (ISO 8601, UTC).
        reused: whether this call found it finished instead of making it.
    """

    asset: str
    folder: Path
    data_version: str
    inputs: StageInputs
    run_id: str
    created: str
    reused: bool = field(default=False, compare=False)

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.folder / name

    def json(self, name: str) -> Any:
        """Content of one of its JSON files."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


class ObjectStore:
    """Results under one folder. Safe for several processes: they appear whole or not at all.

    Where the folder belongs to a store, what is finished is there too, and is brought here when it is asked for.

    Raises:
        StorageError: where a result that is asked for was never materialized, or is damaged or gone.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.shared, self.records = root, Shared.of(root), Records(root)

    def build(
        self, inputs: StageInputs, run_id: str, make: Callable[[Path], None], waiting: Callable[[], None] = lambda: None
    ) -> StoredObject:
        """Return the object made from `inputs`, calling `make(folder)` to write its files unless it exists.

        Files whose name begins with `_` (figures, timings) travel with the object but are not part of its data
        version. A stored object whose files no longer match their hashes is made again; one that is incomplete is
        replaced once it could be made again, and stays until then. While another process makes it, this one waits and
        takes what it made, after calling `waiting`: nothing is asked, or paid, twice.
        """
        with locked(self.root / "locks" / f"{inputs.asset}-{inputs.key}", waiting) as alone:
            return self._build(inputs, run_id, make, alone)

    def _build(self, inputs: StageInputs, run_id: str, make: Callable[[Path], None], alone: bool) -> StoredObject:
        target = self._folder(inputs)
        found = self._found(target, inputs) or self._found(target, inputs)  # a damaged one may be whole in the store
        if found is not None and not found.file(INCOMPLETE).exists():
            return self._load(target, inputs, reused=True) if self._share(target) else found
        parent = target.parent
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = f".making-{inputs.key}-"
        if alone:  # what is there was left by runs that were killed, and not by one that is at it
            for left in parent.glob(f"{unfinished}*"):
                shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=unfinished, dir=parent))
        try:
            make(aside)
            _write_manifest(aside, inputs, run_id)
            _publish(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._share(target)
        return self._load(target, inputs, reused=False)

    def _found(self, target: Path, inputs: StageInputs) -> StoredObject | None:
        """A finished result, or None after a damaged one was removed."""
        self._fetch(target)
        if not target.exists():
            return None
        try:
            return self._load(target, inputs, reused=True)
        except StorageError:
            shutil.rmtree(target, ignore_errors=True)
            return None

    def _fetch(self, folder: Path) -> None:
        """Bring a result that the store has, and this machine has not, or not complete."""
        if self.shared is None or ((folder / MANIFEST).is_file() and not (folder / INCOMPLETE).exists()):
            return
        name = f"{self._name(folder)}/{MANIFEST}"
        manifest = self.shared.get(name)
        files = _files(manifest)
        if manifest is None or (folder.exists() and INCOMPLETE in files):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".fetching-{folder.name}-", dir=folder.parent))
        try:
            if files and all(self.shared.download(digest, aside / file) for file, digest in files.items()):
                (aside / MANIFEST).write_bytes(manifest)
                _publish(aside, folder)
            else:  # damaged there: whoever makes it again keeps it anew
                self.shared.remove(name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _share(self, folder: Path) -> bool:
        """Keep a finished result in the store; whether another machine was first, whose result is taken instead.

        The manifest comes last, and one machine alone can put it there; files are kept by the hash of their content.
        """
        if self.shared is None:
            return False
        name, ours = f"{self._name(folder)}/{MANIFEST}", (folder / MANIFEST).read_bytes()
        theirs = self.shared.get(name)
        if theirs is None or (INCOMPLETE in _files(theirs) and theirs != ours):
            for file, digest in _files(ours).items():
                self.shared.upload(digest, folder / file)
            if theirs is not None:
                self.shared.put(name, ours)
            elif not self.shared.create(name, ours):
                theirs = self.shared.get(name)
        if theirs and INCOMPLETE not in _files(theirs) and _files(theirs) != _files(ours):
            shutil.rmtree(folder, ignore_errors=True)
            self._fetch(folder)
            return True
        return False

    def finished(self, inputs: StageInputs) -> bool:
        """Whether `build` would find the result of these inputs, complete."""
        folder = self._folder(inputs)
        self._fetch(folder)
        return (folder / MANIFEST).is_file() and not (folder / INCOMPLETE).exists()

    def point(self, dataset: str, stored: StoredObject, passing: str = "") -> None:
        """Make `stored` the current result of its asset for `dataset`.

        The file `passing` of the one before goes if that is no dataset's any more; it is made again where it is needed.
        """
        found = {"object": self.place(stored), "data_version": stored.data_version}
        with self.records.writing() as records:
            known = records.all(_CURRENT, sound=True) if passing else []
            records.put(Document(_CURRENT, dataset, stored.asset, found))
        mine = [one for one in known if (one.subject, one.name) == (dataset, stored.asset)]
        used = {found["object"], *(one.body["object"] for one in known if one not in mine)}
        for folder in (self.root / one.body["object"] for one in mine if one.body["object"] not in used):
            if self.shared is not None:  # which has it, whole
                shutil.rmtree(folder, ignore_errors=True)
            (folder / passing).unlink(missing_ok=True)

    def current(self, dataset: str, asset: str) -> StoredObject:
        """The current result of `asset` for `dataset`, verified."""
        return self.verified(dataset, self.pointed(dataset, asset))

    def datasets(self) -> list[str]:
        """Datasets that have a current result of anything."""
        with self.records.reading() as records:
            return sorted({one.subject for one in records.all(_CURRENT, sound=True) if self._is_there(one)})

    def has(self, dataset: str, asset: str) -> bool:
        """Whether `asset` was materialized for `dataset`."""
        return asset in self._pointers(dataset)

    def versions(self, dataset: str) -> dict[str, str]:
        """Data version of every current result of a dataset by asset, from the records alone."""
        return {asset: str(one.body["data_version"]) for asset, one in self._pointers(dataset).items()}

    def pointed(self, dataset: str, asset: str) -> StoredObject:
        """The current result of `asset` for `dataset`, known by its manifest but with its files unread."""
        found = self._pointers(dataset).get(asset)
        if found is None:
            raise StorageError(
                f"Dataset `{dataset}` has no `{asset}` yet (by {self.records.place}). Materialize `{asset}` (and what "
                "is upstream of it) first."
            )
        stored = self._explained(dataset, asset, self.root / found.body["object"], verify=False)
        if stored.data_version != found.body["data_version"]:
            raise StorageError(
                f"Dataset `{dataset}`: {stored.folder} holds another result than its records say. Materialize "
                f"`{asset}` again."
            )
        return stored

    def verified(self, dataset: str, stored: StoredObject) -> StoredObject:
        """The same object after its files were compared with their hashes."""
        return self._explained(dataset, stored.asset, stored.folder, verify=True)

    def find(self, asset: str, data_version: str) -> StoredObject | None:
        """The newest object of `asset` with this data version, its files unread, or None."""
        found = []
        folder = self.root / "objects" / asset
        if self.shared is not None:
            for name in self.shared.names(self._name(folder)):
                here = (self.root / name).is_file()
                if not here and _json(self.shared.get(name)).get("data_version") == data_version:
                    self._fetch((self.root / name).parent)
        for path in sorted(folder.glob(f"*/{MANIFEST}")):
            with suppress(StorageError):
                found.append(self._load(path.parent, None, reused=True, verify=False))
        of_version = [stored for stored in found if stored.data_version == data_version]
        return max(of_version, key=lambda stored: stored.created, default=None)

    def at(self, place: str) -> StoredObject:
        """The object whose folder is `place`, relative to the results folder; its files unread."""
        return self._load(self.root / place, None, reused=True, verify=False)

    def place(self, stored: StoredObject) -> str:
        """Where an object lies, relative to the results folder."""
        return self._name(stored.folder)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _pointers(self, dataset: str) -> dict[str, Document]:
        """Which result of each asset is current; one that is damaged or removed can be made again, and is none."""
        with self.records.reading() as records:
            found = records.all(_CURRENT, dataset, sound=True)
        return {one.name: one for one in found if self._is_there(one)}

    def _is_there(self, pointer: Document) -> bool:
        return self.shared is not None or (self.root / pointer.body["object"]).is_dir()

    def _explained(self, dataset: str, asset: str, folder: Path, *, verify: bool) -> StoredObject:
        try:
            return self._load(folder, None, reused=True, verify=verify)
        except StorageError as error:
            raise StorageError(f"Dataset `{dataset}`: {error} Materialize `{asset}` again.") from error

    def _folder(self, inputs: StageInputs) -> Path:
        return self.root / "objects" / inputs.asset / inputs.key

    def _load(self, folder: Path, inputs: StageInputs | None, *, reused: bool, verify: bool = True) -> StoredObject:
        if not (folder / MANIFEST).is_file():
            self._fetch(folder)
        try:
            manifest = unsealed(folder / MANIFEST)
            stored = StoredObject(
                asset=manifest["inputs"]["asset"],
                folder=folder,
                data_version=manifest["data_version"],
                inputs=inputs or StageInputs(**manifest["inputs"]),
                run_id=manifest["run_id"],
                created=manifest["created"],
                reused=reused,
            )
            files = dict(manifest["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the stored result {folder} has no readable manifest.") from error
        for name, digest in files.items() if verify else ():
            # Rows of vectors have sums, which whoever reads them compares; here only who could make them again.
            if name.endswith(".npy") and inputs is None:
                continue
            if not (folder / name).is_file() or _digest(folder / name) != digest:
                raise StorageError(f"the stored file {folder / name} is missing or not what was written.")
        return stored


def _json(manifest: bytes | None) -> dict[str, Any]:
    """What a manifest in the store says; nothing where there is none, or none that can be read."""
    try:
        found = json.loads(manifest or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _files(manifest: bytes | None) -> dict[str, str]:
    """Hash of each file of a result, by name."""
    return dict(_json(manifest).get("files", {}))


def _write_manifest(folder: Path, inputs: StageInputs, run_id: str) -> None:
    files = {str(p.relative_to(folder)): _digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {name: digest for name, digest in files.items() if not Path(name).name.startswith("_")}
    manifest = {
        "inputs": inputs.record,
        "files": files,
        "data_version": hash_json(content),
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / MANIFEST).write_bytes(sealed(manifest))


def _publish(aside: Path, target: Path) -> None:
    for path in aside.rglob("*"):
        sync(path)
    aside.chmod(0o755)
    if (target / INCOMPLETE).exists():  # taken away whole, so that its successor can take its place
        old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
        target.rename(old / target.name)
        shutil.rmtree(old, ignore_errors=True)
    try:
        aside.rename(target)
    except OSError:
        # Another process published the same inputs first; equal inputs mean equal results.
        if not (target / MANIFEST).is_file():
            raise
    sync(target.parent)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:64]
