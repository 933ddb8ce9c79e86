"""Batches under way: what was submitted for whom, until it is collected.

Belongs here: the record of each batch, one small file. Does not belong here: talking to the server (`openai_batch`,
`openai_batch_creation`) or the answers (`ledger`).

A record is written before its batch is created, without the server's name for it, and removed after its answers are in
the ledger, so a process that dies in between loses neither batch nor answers.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hsae_dagster.errors import ProviderError
from hsae_dagster.whole_files import sealed, unsealed, write_atomically


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was submitted, or is about to be.

    Attributes:
        batch_id: the server's name for it; None from before it is created until its creation is known.
        dataset, stage, run_id: on whose account.
        server, model, prompt_hash: as in the ledger.
        sizes: bytes of each request, by its hash.
        worst_usd: the most that it can cost.
        selection: assets of the run that submitted it, or None for all.
        collected: its answers are in the ledger; the record stays for `failures`.
        failures: why requests got no answer, by hash; asked again only after a run has taken note.
        input_file_id: the server's name for the uploaded requests; no other batch has it.
        name: of the record's own file. Records of before this field are named by their batch.
        intended_at: seconds since 1970 by this machine's clock, before the batch was created.
    """

    batch_id: str | None
    dataset: str
    stage: str
    run_id: str
    server: str
    model: str
    prompt_hash: str | None
    sizes: Mapping[str, int]
    worst_usd: float
    selection: tuple[str, ...] | None = None
    collected: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)
    input_file_id: str = ""
    name: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}")
    intended_at: float = field(default_factory=time.time)


class BatchRegister:
    """The records under one results folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "batches"

    def all(self, dataset: str | None = None) -> list[BatchRecord]:
        """Records, of one dataset or of all, oldest name first.

        Raises:
            ProviderError: a record is damaged.
        """
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                fields = unsealed(path)
                fields.setdefault("name", path.stem)
                fields["selection"] = None if fields["selection"] is None else tuple(fields["selection"])
                found.append(BatchRecord(**fields))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ProviderError(
                    f"The record {path} of a batch under way cannot be read ({error}). Restore it from a copy; without "
                    "one, remove it, and what the batch was asked is asked, and paid, again."
                ) from error
        return [record for record in found if dataset in (None, record.dataset)]

    def write(self, record: BatchRecord) -> None:
        """Add or replace a record, whole or not at all."""
        write_atomically(self.path(record), sealed(asdict(record)))

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch whose answers are kept."""
        self.path(record).unlink(missing_ok=True)

    def path(self, record: BatchRecord) -> Path:
        """Where a record lies."""
        return self.folder / f"{record.name}.json"
