"""The ledger: every answer of a paid model, kept for ever, by the hash of what was asked.

Belongs here: the append-only table and how it is read. Does not belong here: asking (`openai_client`), what may be
spent (`account`), vectors (`storage.vectors`): of an embeddings request only the usage is kept.

The first answer to a request wins, whoever asked and for whichever dataset, so nothing is paid twice. A request that
failed is not an answer and is asked again by the next run; a refusal is one and is not. Writers only append, which
LanceDB lets several processes do at once. Lance does not check what it reads from disk, so every row has a checksum; an
answer that is not what was written counts as absent, and its request is asked again.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_json
from hsae_dagster.lance_tables import has_version, lance_explained
from hsae_dagster.providers.model_table import Usage
from hsae_dagster.whole_files import locked

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = "llm_calls"
CHECKSUM = "checksum"
# Each flush adds a fragment; reading slows down with hundreds of them.
MOST_FRAGMENTS = 100


@dataclass(frozen=True)
class Entry:
    """One answer.

    Attributes:
        request_hash: of the whole body and the server (`openai_client.request_hash`).
        kind: `chat` or `embeddings`.
        dataset, stage, run_id: on whose account it was asked first.
        server: host, port and path.
        model: as asked.
        prompt_hash: of the prompt file, or None.
        sent_bytes: size of the request.
        answer: what the model wrote, None for vectors.
        parsed: the JSON object in it, as JSON, or None.
        reason: why it holds none (refused, empty, cut off, not JSON), or None.
        usage: tokens.
        cost_usd: at the prices of that day, None where no price was known.
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


@dataclass(frozen=True)
class Spent:
    """What answers have cost: calls, USD of those with a known price, and calls without one."""

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0


@dataclass(frozen=True)
class Experience:
    """What earlier answers of one model to one prompt teach: tokens per byte sent, output tokens and seconds a call."""

    tokens_per_byte: float
    output_tokens: float
    seconds: float


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
        import pyarrow as pa

        rows = [{**{k: v for k, v in asdict(e).items() if k != "usage"}, **_flat(e.usage)} for e in entries]

        def sentence(cause: str) -> ProviderError:
            return ProviderError(
                f"{len(entries):,} answers could not be written to the ledger {self.uri}: {cause}. Make room "
                "there or make the folder writable, and run again; answers written before are kept."
            )

        with lance_explained(sentence):
            table = self._open_or_create()
            # A table from before there were checksums has none, and gets none.
            checked = CHECKSUM in table.schema.names
            rows = [{**row, CHECKSUM: _checksum(row)} for row in rows] if checked else rows
            table.add(pa.Table.from_pylist(rows, schema=_schema(checked=checked)))

    def find(self, hashes: Collection[str], server: str, model: str) -> dict[str, Entry]:
        """First chat answers to the given requests, by hash.

        Raises:
            ProviderError: the table is damaged.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        where = f"kind = 'chat' AND server = {_quoted(server)} AND model = {_quoted(model)}"
        rows = self._rows(where) if hashes else None
        if rows is None:
            return {}
        wanted = rows.filter(pc.is_in(rows["request_hash"], value_set=pa.array(list(hashes), pa.string())))
        found: dict[str, Entry] = {}
        for row in wanted.sort_by("created").to_pylist():
            checksum = row.pop(CHECKSUM, None)
            if checksum is not None and checksum != _checksum(row):
                continue
            usage = Usage(*(row.pop(f"{name}_tokens") for name in ("input", "cached", "output")))
            found.setdefault(row["request_hash"], Entry(usage=usage, **row))
        return found

    def spent(self, dataset: str) -> Spent:
        """What a dataset has cost so far, in every run."""
        rows = self._rows(f"dataset = {_quoted(dataset)}", ["cost_usd"])
        if rows is None:
            return Spent()
        costs = rows["cost_usd"].to_pylist()
        known = [cost for cost in costs if cost is not None]
        return Spent(len(costs), sum(known), len(costs) - len(known))

    def turn(self, dataset: str) -> Path:
        """The lock file of a dataset whose runs share a budget."""
        return self._locks / f"budget-{hash_json(dataset)}"

    def experience(self, server: str, model: str, prompt_hash: str | None) -> Experience | None:
        """What answers of this model to this prompt (or embeddings, without one) teach; None without any."""
        asked = "prompt_hash IS NULL" if prompt_hash is None else f"prompt_hash = {_quoted(prompt_hash)}"
        where = f"server = {_quoted(server)} AND model = {_quoted(model)} AND {asked} AND input_tokens > 0"
        rows = self._rows(where, ["sent_bytes", "input_tokens", "output_tokens", "seconds"])
        if rows is None or not rows.num_rows:
            return None
        sums = {name: sum(rows[name].to_pylist()) for name in rows.column_names}
        n = rows.num_rows
        return Experience(sums["input_tokens"] / sums["sent_bytes"], sums["output_tokens"] / n, sums["seconds"] / n)

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


def _flat(usage: Usage) -> dict[str, int]:
    return {f"{name}_tokens": tokens for name, tokens in asdict(usage).items()}


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _checksum(row: Mapping[str, Any]) -> str:
    return hash_json(dict(row))


def _schema(*, checked: bool = True) -> "pa.Schema":
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
        **({CHECKSUM: text} if checked else {}),
    }
    return pa.schema(list(fields.items()))
