"""What every published evaluation rested on, and which hypotheses it had: records that are only added to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from hsae_dagster.core.evaluations import FILES, EvaluationRecord, Origin
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import set_fingerprint
from hsae_dagster.storage.artifacts import finite
from hsae_dagster.storage.objects import ObjectStore, StoredObject
from hsae_dagster.storage.outputs import StoredCorpus, StoredEmbeddings, StoredEvaluation
from hsae_dagster.storage.records import Document

_KIND = "evaluation"
_MIXED = "`{reader}` was made from another version of `{asset}` than the evaluation read"


def origin_of(store: ObjectStore, stored: StoredObject) -> Origin:
    """A stored result as something that an evaluation rests on."""
    return Origin(
        asset=stored.asset,
        place=store.place(stored),
        data_version=stored.data_version,
        code_version=stored.inputs.code_version,
        run_id=stored.run_id,
        created=stored.created,
        upstream=dict(stored.inputs.upstream),
    )


def trace(store: ObjectStore, dataset: str, evaluation: StoredObject) -> tuple[tuple[Origin, ...], tuple[str, ...]]:
    """Everything an evaluation rests on, found by what each step recorded that it read; and what does not fit together.

    Raises:
        StorageError: a result that it rests on is gone.
    """
    found: dict[str, Origin] = {}
    mixed = []
    waiting = [("evaluation_report", asset, version) for asset, version in evaluation.inputs.upstream.items()]
    while waiting:
        reader, asset, version = waiting.pop(0)
        known = found.get(asset)
        if known is None:
            stored = _object(store, dataset, asset, version)
            known = found[asset] = origin_of(store, stored)
            waiting += [(asset, name, read) for name, read in known.upstream.items()]
        elif known.data_version != version:
            mixed.append(_MIXED.format(reader=reader, asset=asset))
    _join_embeddings(store, found, mixed)
    return tuple(sorted(found.values(), key=lambda origin: _depth(origin, found))), tuple(mixed)


def _join_embeddings(store: ObjectStore, found: dict[str, Origin], mixed: list[str]) -> None:
    """The result of `embeddings` depends on units alone and names no corpus; the keys tell whether it is this one."""
    if "embeddings" not in found or "corpus" not in found:
        return
    record = StoredEmbeddings(store.at(found["embeddings"].place)).record
    ids = StoredCorpus(store.at(found["corpus"].place)).units["unit_id"]
    if set_fingerprint(ids, record["set_id"]) == record["fingerprint"]:
        upstream = {"corpus": found["corpus"].data_version}
        found["embeddings"] = replace(found["embeddings"], upstream=upstream)
    else:
        mixed.append(_MIXED.format(reader="embeddings", asset="corpus"))


def _object(store: ObjectStore, dataset: str, asset: str, version: str) -> StoredObject:
    if store.versions(dataset).get(asset) == version:
        return store.pointed(dataset, asset)
    stored = store.find(asset, version)
    if stored is None:
        raise StorageError(
            f"Dataset `{dataset}`: the `{asset}` of data version {version[:12]} that its evaluation rests on is gone. "
            f"Materialize the dataset from `{asset}` on again."
        )
    return stored


def _depth(origin: Origin, found: Mapping[str, Origin]) -> int:
    """Steps from the files."""
    return 1 + max((_depth(found[name], found) for name in origin.upstream if name in found), default=0)


class LineageLog:
    """The records under one results folder."""

    def __init__(self, store: ObjectStore) -> None:
        self.store, self._records = store, store.records

    def datasets(self) -> list[str]:
        """Datasets that have a record."""
        with self._records.reading() as records:
            return records.subjects(_KIND)

    def records(self, dataset: str) -> list[EvaluationRecord]:
        """Records of a dataset, oldest first."""
        with self._records.reading() as records:
            return [_read(found) for found in records.all(_KIND, dataset)]

    def latest(self, dataset: str) -> EvaluationRecord | None:
        """The last record of a dataset, or None."""
        with self._records.reading() as records:
            found = records.last(_KIND, dataset)
        return _read(found) if found else None

    def previous(self, record: EvaluationRecord) -> EvaluationRecord | None:
        """The record before this one, or None."""
        with self._records.reading() as records:
            found = records.get(_KIND, record.dataset, _name(record.number - 1))
        return _read(found) if found else None

    def append(
        self,
        dataset: str,
        evaluation: StoredObject,
        summary: Mapping[str, Any],
        hypotheses: Sequence[Mapping[str, Any]],
        files: str,
        read: Sequence[Sequence[str | None]],
    ) -> EvaluationRecord:
        """Record that an evaluation is current, unless it already was; returns its record.

        `summary` and `hypotheses` are its figures and rows (JSON-like), `files` the data version of the dataset's files
        and declaration, `read` the data files as they are, in the words in which the corpus says which ones it read.

        Raises:
            StorageError: a result that it rests on is gone.
        """
        origin = origin_of(self.store, evaluation)
        last = self.latest(dataset)
        if last is not None and last.evaluation.place == origin.place:
            return last
        origins, mixed = trace(self.store, dataset, evaluation)
        corpus = next((self.store.at(each.place) for each in origins if each.asset == "corpus"), None)
        if corpus is not None and corpus.inputs.config["files"] != [list(file) for file in read]:
            mixed = (*mixed, f"`corpus` was made from other files than `{FILES}` has now")
        with self._records.writing() as records:  # another process may have written since
            found = records.last(_KIND, dataset)
            if found is not None and found.body["evaluation"]["place"] == origin.place:
                return _read(found)
            record = EvaluationRecord(
                dataset=dataset,
                number=int(found.name) + 1 if found else 1,
                published=datetime.now(UTC).isoformat(timespec="seconds"),
                evaluation=origin,
                files=files,
                origins=origins,
                mixed=mixed,
                summary=finite(summary),
                hypotheses=tuple(finite(row) for row in hypotheses),
            )
            records.add(document(record))
        return record

    def find(self, hypothesis_id: str) -> list[EvaluationRecord]:
        """Records with a hypothesis of this id (or, if only one begins so, this beginning of an id), oldest first.

        Raises:
            StorageError: several hypotheses' ids begin so.
        """
        found = {row["hypothesis_id"] for record in self for row in record.hypotheses}
        able = [key for key in found if key == hypothesis_id] or [key for key in found if key.startswith(hypothesis_id)]
        if len(able) > 1:
            raise StorageError(f"Several hypotheses begin with `{hypothesis_id}`: {', '.join(sorted(able))}. Say more.")
        return [record for record in self for key in able if record.hypothesis(key)]

    def using(self, version: str) -> list[tuple[EvaluationRecord, str]]:
        """Evaluations that rest on a result (or files) whose data version begins so, and that result's asset."""
        found = []
        for record in self:
            results = [(o.asset, o.data_version) for o in (*record.origins, record.evaluation)]
            for asset, known in [(FILES, record.files), *results]:
                if known.startswith(version):
                    found.append((record, asset))
        return found

    def quoted(self, record: EvaluationRecord, hypothesis_id: str) -> list[tuple[str, str, str]]:
        """Texts on a hypothesis' card: (role, text_id, text)."""
        stored = self.store.verified(record.dataset, self.store.at(record.evaluation.place))
        own = StoredEvaluation(stored).evidence.filter(pl.col("hypothesis_id") == hypothesis_id)
        return list(own.select("role", "text_id", "text").iter_rows())

    def __iter__(self) -> Iterator[EvaluationRecord]:
        for dataset in self.datasets():
            yield from self.records(dataset)


def staleness(store: ObjectStore, record: EvaluationRecord, files: str | None = None) -> tuple[str, ...]:
    """Why what an evaluation rests on is no longer what is current, in sentences; empty when all of it is.

    `files` is the data version of the dataset's files as they are now, if known.
    """
    now = store.versions(record.dataset)
    reasons = [f"{sentence}." for sentence in record.mixed]
    if files is not None and files != record.files:
        reasons.append("The files or dataset.yaml have changed since.")
    changed = [o.asset for o in record.origins if o.asset in now and now[o.asset] != o.data_version]
    if changed:
        names = " and ".join(f"`{name}`" for name in changed)
        reasons.append(f"{names} {'has' if len(changed) == 1 else 'have'} changed since.")
    return tuple(reasons)


def document(record: EvaluationRecord) -> Document:
    """A record as it is kept."""
    return Document(_KIND, record.dataset, _name(record.number), asdict(record))


def _name(number: int) -> str:
    return f"{number:06d}"


def _read(found: Document) -> EvaluationRecord:
    fields = found.body | {
        "evaluation": Origin(**found.body["evaluation"]),
        "origins": tuple(Origin(**origin) for origin in found.body["origins"]),
        "mixed": tuple(found.body["mixed"]),
        "hypotheses": tuple(found.body["hypotheses"]),
    }
    return EvaluationRecord(**fields)
