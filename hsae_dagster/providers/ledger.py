"""The ledger: every answer of a paid model, kept for ever, by the hash of what was asked.

And its journal, written line by line as answers arrive.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_bytes, hash_json
from hsae_dagster.providers.replies import NO_TOKENS, Usage, is_refusal, readable_now
from hsae_dagster.storage.objects import locked
from hsae_dagster.storage.vectors import has_version, lance_explained

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "llm_journal"
# Where there are no locks, a journal that nobody has written to for so long was left behind.
LEFT_BEHIND_SECONDS = 24 * 3600.0


@dataclass
class Record:
    """What a journal says.

    Attributes:
        answers: rows of the ledger, as they were written.
        intents: rows of requests that were sent, or about to be, and of whose end it says nothing, by request.
    """

    answers: list[dict[str, Any]] = field(default_factory=list)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """One line."""
        row = line["row"]
        if line["is"] == "intent":
            self.intents[row["request_hash"]] = row
            return
        self.intents.pop(row["request_hash"], None)
        if line["is"] == "answer":
            self.answers.append(row)


class Journal:
    """The journal of one round; not to be shared between threads."""

    def __init__(self, root: Path) -> None:
        folder = root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"
        self.record = Record()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with suppress(OSError):  # no locks here
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def intend(self, row: Mapping[str, Any]) -> None:
        """A request is about to be sent; `row` is what it counts as if nothing more is heard of it."""
        self._write("intent", row)

    def answered(self, row: Mapping[str, Any]) -> None:
        """It was answered."""
        self._write("answer", row)

    def came_to_nothing(self, request_hash: str) -> None:
        """It failed, and nothing is paid for it."""
        self._write("nothing", {"request_hash": request_hash})

    def close(self, *, keep: bool = False) -> None:
        """Its content is elsewhere (or is to stay for the next to come)."""
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, kind: str, row: Mapping[str, Any]) -> None:
        line = {"is": kind, "row": dict(row)}
        self.record.take(line)
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass")
        os.write(self._file, hash_bytes(data).encode() + b" " + data + b"\n")


def read_all(root: Path) -> Iterator[tuple[Path, Record]]:
    """Every journal there is, live or left behind."""
    for path in sorted((root / FOLDER).glob("*.jsonl")):
        with suppress(FileNotFoundError):  # folded meanwhile: it is in the table
            yield path, read(path)


def read(path: Path) -> Record:
    """A journal's whole lines; what is not what was written is left out."""
    record = Record()
    for data in path.read_bytes().split(b"\n"):
        try:
            checksum, _, written = data.partition(b" ")
            if checksum.decode() == hash_bytes(written):
                record.take(json.loads(written.decode("utf-8", "surrogatepass")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return record


def left_behind(root: Path) -> Iterator[tuple[Path, Record]]:
    """Journals whose process is gone; each is locked until the next is asked for, so that one process takes it."""
    for path in sorted((root / FOLDER).glob("*.jsonl")):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            if _is_left(file, path):
                yield path, read(path)
        finally:
            os.close(file)


def _is_left(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        return time.time() - os.fstat(file).st_mtime > LEFT_BEHIND_SECONDS
    return path.exists()


TABLE = "llm_calls"
CHECKSUM = "checksum"
INTENT, TAKEN_BACK = "intent", "taken back"
# Each flush adds a fragment; reading slows down with hundreds of them.
MOST_FRAGMENTS = 100


@dataclass(frozen=True)
class Entry:
    """One answer.

    Attributes:
        request_hash: of the whole body and the server (`providers.openai.client.request_hash`).
        kind: `chat` or `embeddings`; `intent`: sent, and its answer never seen; `taken back`: unusable answers to the
            request from before this row count no longer.
        dataset, stage, run_id: on whose account it was asked first.
        server: host, port and path.
        model: as asked.
        prompt_hash: of the prompt file, or None.
        sent_bytes: size of the request.
        answer: what the model wrote, None for vectors.
        parsed: the JSON object in it, as JSON, or None.
        reason: why it holds none (refused, empty, cut off, not JSON) or nothing that was asked for, or None.
        usage: tokens.
        cost_usd: at the prices of that day, None where no price was known; where the server counted no tokens (zeros
            above), the most it can have cost.
        tier: how it was paid.
        model_echo, request_id: as the server named them.
        seconds: from asking to answer, retries included.
        created: nanoseconds since 1970, UTC.
    """

    request_hash: str
    kind: str
    dataset: str
    stage: str
    run_id: str
    server: str
    model: str
    prompt_hash: str | None
    sent_bytes: int
    answer: str | None
    parsed: str | None
    reason: str | None
    usage: Usage
    cost_usd: float | None
    tier: str
    model_echo: str | None = None
    request_id: str | None = None
    seconds: float = 0.0
    created: int = field(default_factory=time.time_ns)

    @property
    def refused(self) -> bool:
        """Whether the answer was withheld by choice."""
        return is_refusal(self.reason)


@dataclass(frozen=True)
class Spent:
    """What requests have cost.

    Attributes:
        calls: how many.
        usd: dollars of those with a known price.
        unpriced: calls without one.
        lost: calls whose answer never arrived, in `usd` with the most they can have cost.
        uncounted: calls whose tokens the server did not count, in `usd` with the most they can have cost.
    """

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    lost: int = 0
    uncounted: int = 0


@dataclass(frozen=True)
class Experience:
    """What earlier answers of one model to one prompt teach.

    Attributes:
        tokens_per_byte: of what was sent.
        output_tokens: of an answer.
        seconds: from asking to answer.
        calls: answers that teach.
        pace: seconds for each of them while some were under way: less than `seconds` where several were at once.
    """

    tokens_per_byte: float
    output_tokens: float
    seconds: float
    calls: int = 1
    pace: float = 0.0


class Ledger:
    """The table under one results folder. Created at the first append."""

    def __init__(self, root: Path) -> None:
        self.uri = root / "lancedb"
        self._locks = root / "locks"

    def append(self, entries: Sequence[Entry]) -> None:
        """Add answers in one commit.

        Raises:
            ProviderError: the table cannot be written.
        """
        self._append([as_row(entry) for entry in entries])

    def find(self, hashes: Collection[str], server: str, model: str) -> dict[str, Entry]:
        """Chat answers to the given requests, by hash: the first usable one, else the first that is not taken back.

        Raises:
            ProviderError: the table is damaged.
        """
        if not hashes:
            return {}
        wanted = set(hashes)
        rows = [row for record in self._journals() for row in record.answers]
        rows = [row for row in rows if row["server"] == server and row["model"] == model]
        where = f"kind IN ('chat', '{TAKEN_BACK}') AND server = {_quoted(server)} AND model = {_quoted(model)}"
        rows += self._of(wanted, where)
        found: dict[str, Entry] = {}
        for row in sorted((row for row in rows if row["request_hash"] in wanted), key=lambda row: row["created"]):
            held = found.get(row["request_hash"])
            if held is not None and not _unusable(held):
                continue
            if row["kind"] == TAKEN_BACK:
                found.pop(row["request_hash"], None)
            elif row["kind"] == "chat" and (held is None or not _unusable(_entry(row))):
                found[row["request_hash"]] = _entry(row)
        return found

    def unusable(self, dataset: str) -> list[Entry]:
        """Chat answers of a dataset that hold nothing usable and stand instead of a usable one.

        Raises:
            ProviderError: the table is damaged.
        """
        rows = [row for record in self._journals() for row in record.answers if row["dataset"] == dataset]
        rows += self._of(None, f"kind = 'chat' AND dataset = {_quoted(dataset)}")
        asked: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            if row["kind"] == "chat" and row["reason"] is not None:
                asked.setdefault((row["server"], row["model"]), set()).add(row["request_hash"])
        return [
            entry
            for (server, model), hashes in asked.items()
            for entry in self.find(hashes, server, model).values()
            if _unusable(entry)
        ]

    def take_back(self, entries: Sequence[Entry]) -> None:
        """Have unusable answers count no longer: their requests are asked again. What they cost stays spent.

        Raises:
            ProviderError: the table cannot be written.
        """
        now = time.time_ns()
        if entries:
            self.append(
                [
                    replace(e, kind=TAKEN_BACK, answer=None, parsed=None, usage=NO_TOKENS, cost_usd=None, created=now)
                    for e in entries
                ]
            )

    def spent(self, dataset: str) -> Spent:
        """What a dataset has cost so far, in every run: answers, and requests whose answer never arrived."""
        rows = [
            row
            for record in self._journals()
            for row in (*record.answers, *record.intents.values())
            if row["dataset"] == dataset
        ]
        columns = ["request_hash", "kind", "created", "input_tokens", "cost_usd"]
        table = self._rows(f"dataset = {_quoted(dataset)} AND kind != '{TAKEN_BACK}'", columns)
        rows += table.to_pylist() if table is not None else []
        # A process killed while it folded its journal leaves a row in both.
        once = {(row["request_hash"], row["kind"], row["created"]): row for row in rows}.values()
        known = [row["cost_usd"] for row in once if row["cost_usd"] is not None]
        return Spent(
            len(once),
            sum(sorted(known)),
            len(once) - len(known),
            lost=sum(row["kind"] == INTENT for row in once),
            uncounted=sum(row["kind"] != INTENT and not row["input_tokens"] and bool(row["cost_usd"]) for row in once),
        )

    def journal(self) -> Journal:
        """A journal for a round that begins.

        Raises:
            ProviderError: it cannot be written.
        """
        try:
            return Journal(self.uri)
        except OSError as error:
            raise _unwritable(self.uri / FOLDER, error) from error

    def fold(self, journal: Journal) -> None:
        """Put a journal of this process into the table, with requests of which nothing more is to come.

        Raises:
            ProviderError: the table cannot be written; the journal stays for the next run.
        """
        try:
            self._append([*journal.record.answers, *journal.record.intents.values()])
        except ProviderError:
            journal.close(keep=True)
            raise
        journal.close()

    def take_in(self) -> None:
        """Fold journals whose process is gone."""
        for path, record in left_behind(self.uri):
            self._append([*record.answers, *record.intents.values()])
            path.unlink(missing_ok=True)

    def turn(self, dataset: str) -> Path:
        """The lock file of a dataset whose runs share a budget."""
        return self._locks / f"budget-{hash_json(dataset)}"

    def experience(self, server: str, model: str, prompt_hash: str | None) -> Experience | None:
        """What answers of this model to this prompt (or embeddings, without one) teach; None without any."""
        asked = "prompt_hash IS NULL" if prompt_hash is None else f"prompt_hash = {_quoted(prompt_hash)}"
        where = f"server = {_quoted(server)} AND model = {_quoted(model)} AND {asked} AND input_tokens > 0"
        rows = self._rows(where, ["sent_bytes", "input_tokens", "output_tokens", "seconds", "created"])
        if rows is None or not rows.num_rows:
            return None
        sums = {name: sum(rows[name].to_pylist()) for name in rows.column_names}
        n = rows.num_rows
        return Experience(
            sums["input_tokens"] / sums["sent_bytes"],
            sums["output_tokens"] / n,
            sums["seconds"] / n,
            n,
            _busy(rows["seconds"].to_numpy(), rows["created"].to_numpy()) / n,
        )

    def compact(self) -> None:
        """Join the fragments of many small flushes. Another process that does so at the same time wins."""
        table = self._open()
        if table is None or table.stats()["fragment_stats"]["num_fragments"] <= MOST_FRAGMENTS:
            return
        try:
            table.optimize()
        except RuntimeError:
            # A conflicting commit: nothing is lost, and the next stage tries again.
            return

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa

        if not rows:
            return

        def sentence(cause: str) -> ProviderError:
            return ProviderError(
                f"{len(rows):,} answers could not be written to the ledger {self.uri}: {cause}. Make room "
                "there or make the folder writable, and run again; answers written before are kept."
            )

        with lance_explained(sentence):
            table = self._open_or_create()
            added = [{**row, CHECKSUM: _checksum(row)} for row in rows]
            table.add(pa.Table.from_pylist(added, schema=_schema()))

    def _journals(self) -> list[Record]:
        # Read before the table: what is folded meanwhile is seen twice rather than not at all.
        return [record for _, record in read_all(self.uri)]

    def _of(self, hashes: Collection[str] | None, where: str) -> list[dict[str, Any]]:
        """Rows of the table that are what was written."""
        import pyarrow as pa
        import pyarrow.compute as pc

        rows = self._rows(where)
        if rows is None:
            return []
        if hashes is not None:
            rows = rows.filter(pc.is_in(rows["request_hash"], value_set=pa.array(list(hashes), pa.string())))
        return [row for row in rows.to_pylist() if row.pop(CHECKSUM) == _checksum(row)]

    def _rows(self, where: str, columns: list[str] | None = None) -> "pa.Table | None":
        with lance_explained(self._unreadable):
            table = self._open()
            if table is None:
                return None
            return table.search().where(where).select(columns or table.schema.names).limit(None).to_arrow()

    def _unreadable(self, cause: str) -> ProviderError:
        return ProviderError(
            f"The ledger of paid answers {self.uri / TABLE}.lance cannot be read: {cause}. Restore it from a copy of "
            "the results folder; without one, remove that folder, and what is still needed is asked, and paid, again."
        )

    def _open(self) -> Any | None:
        import lancedb

        if not has_version(self.uri / f"{TABLE}.lance"):
            return None
        return lancedb.connect(str(self.uri)).open_table(TABLE)

    def _open_or_create(self) -> Any:
        known = self._open()
        if known is not None:
            return known
        # Lance lets two processes create one table, and the second overwrites what was added to the first's.
        with locked(self._locks / TABLE):
            import lancedb

            known = self._open()
            if known is not None:
                return known
            self.uri.mkdir(parents=True, exist_ok=True)
            return lancedb.connect(str(self.uri)).create_table(TABLE, schema=_schema(), exist_ok=True)


def written(value: Any) -> str | None:
    """A parsed answer as the ledger keeps it."""
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def total(costs: Iterable[float | None]) -> Spent:
    """What some answers cost together, whenever they were paid; the same sum in any order."""
    counted = list(costs)
    known = [cost for cost in counted if cost is not None]
    return Spent(len(counted), round(sum(sorted(known)), 9), len(counted) - len(known))


def as_row(entry: Entry) -> dict[str, Any]:
    """An entry as the table and the journals hold it."""
    row = dict(vars(entry))
    usage = row.pop("usage")
    return {**row, "input_tokens": usage.input, "cached_tokens": usage.cached, "output_tokens": usage.output}


def _busy(seconds: np.ndarray, created: np.ndarray) -> float:
    """Seconds in which at least one request was under way, of requests that took `seconds` and ended at `created`."""
    ended = (created - created.min()) / 1e9
    order = np.argsort(ended - seconds, kind="stable")
    began, latest = (ended - seconds)[order], np.maximum.accumulate(ended[order])
    return float(np.maximum(latest - np.maximum(began, np.r_[-np.inf, latest[:-1]]), 0.0).sum())


def _entry(row: Mapping[str, Any]) -> Entry:
    names = ("input", "cached", "output")
    fields = {key: value for key, value in row.items() if key not in {f"{name}_tokens" for name in names}}
    return Entry(usage=Usage(*(row[f"{name}_tokens"] for name in names)), **fields)


def _unusable(entry: Entry) -> bool:
    return entry.reason is not None and not readable_now(entry.reason, entry.answer)


def _unwritable(place: Path, error: OSError) -> ProviderError:
    return ProviderError(
        f"The ledger cannot be written at {place}: {error.strerror or error}. Make room there or make the folder "
        "writable, and run again; answers written before are kept."
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _checksum(row: Mapping[str, Any]) -> str:
    return hash_json(dict(row))


def _schema() -> "pa.Schema":
    import pyarrow as pa

    text, count, real = pa.string(), pa.int64(), pa.float64()
    fields = {
        "request_hash": text,
        "kind": text,
        "dataset": text,
        "stage": text,
        "run_id": text,
        "server": text,
        "model": text,
        "prompt_hash": text,
        "sent_bytes": count,
        "answer": text,
        "parsed": text,
        "reason": text,
        "input_tokens": count,
        "cached_tokens": count,
        "output_tokens": count,
        "cost_usd": real,
        "tier": text,
        "model_echo": text,
        "request_id": text,
        "seconds": real,
        "created": count,
        CHECKSUM: text,
    }
    return pa.schema(list(fields.items()))
