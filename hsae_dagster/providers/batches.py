"""Batches under way: what was submitted for whom, until it is collected.

Belongs here: the record of each batch, one small file. Does not belong here: talking to the server (`openai_batch`) or
the answers (`ledger`).

A record is written before its batch can be answered and removed after its answers are in the ledger, so a process that
dies in between loses neither.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hsae_dagster.errors import ProviderError
from hsae_dagster.whole_files import sealed, unsealed, write_atomically


@dataclass(frozen=True)
class BatchRecord:
    """A submitted batch.

    Attributes:
        batch_id: the server's name for it.
        dataset, stage, run_id: on whose account.
        server, model, prompt_hash: as in the ledger.
        sizes: bytes of each request, by its hash.
        worst_usd: the most that it can cost.
        selection: assets of the run that submitted it, or None for all.
        collected: its answers are in the ledger; the record stays for `failures`.
        failures: why requests got no answer, by hash; asked again only after a run has taken note.
    """

    batch_id: str
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
        write_atomically(self.folder / f"{record.batch_id}.json", sealed(asdict(record)))

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch whose answers are kept."""
        (self.folder / f"{record.batch_id}.json").unlink(missing_ok=True)
