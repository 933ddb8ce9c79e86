"""Having unusable answers asked again, after a server or a model was mended.

Belongs here: taking such answers of a dataset back and marking the results that lack them as unfinished. Does not
belong here: the ledger's table (`providers.ledger`) or asking (the stages do, when they run next).
"""

from collections import Counter
from dataclasses import dataclass

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.errors import StorageError
from hsae_dagster.providers.known_servers import forget_all
from hsae_dagster.providers.ledger import Entry, Ledger
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import write_json
from hsae_dagster.storage.objects import INCOMPLETE

STAGES = ("interpretations", "annotation_matrix")


@dataclass(frozen=True)
class TakenBack:
    """What will be asked again.

    Attributes:
        reasons: why answers were unusable, and how many; commonest first.
        stages: results that will be made again with the new answers.
    """

    reasons: dict[str, int]
    stages: tuple[str, ...]


def ask_again(project: Project, dataset: Dataset, *, refusals: bool = False) -> TakenBack:
    """Take back what no one could use of a dataset's answers, and forget what its servers refused to take.

    Args:
        project: where the ledger is.
        dataset: whose answers; those that it shares with the dataset it extends are among them.
        refusals: also what a model refused or a content filter withheld, which seldom changes.

    Raises:
        ProviderError: the ledger cannot be read or written.
    """
    ledger = Ledger(project.results)
    ledger.take_in()
    names = dict.fromkeys((dataset.name, dataset.origin))
    entries = [entry for name in names for entry in ledger.unusable(name) if refusals or not entry.refused]
    ledger.take_back(entries)
    forget_all(project.results)
    reasons = Counter(str(entry.reason) for entry in entries)
    stages = tuple(stage for stage in STAGES if _unfinish(project, dataset, stage, entries))
    return TakenBack(dict(reasons.most_common()), stages)


def _unfinish(project: Project, dataset: Dataset, stage: str, entries: list[Entry]) -> bool:
    lacking = sum(entry.stage == stage for entry in entries)
    if not lacking:
        return False
    try:
        stored = project.store.pointed(dataset.name, stage)
    except StorageError:
        return False
    write_json(stored.file(INCOMPLETE), {"answers that asking again may bring": lacking})
    return True
