"""Where an evaluation came from, as records: what storage keeps and reports show.

Belongs here: the fields with their meaning. Does not belong here: tracing and keeping them (`storage.lineage`),
showing them (`report.provenance`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

FILES = "labelled_texts"


@dataclass(frozen=True)
class Origin:
    """One result that an evaluation rests on.

    Attributes:
        asset: the stage that made it.
        place: its folder, relative to the results folder.
        data_version: fingerprint of its content.
        code_version: of the stage that made it.
        run_id: the run that made it.
        created: when (ISO 8601, UTC).
        upstream: data version of each result that it was made from.
    """

    asset: str
    place: str
    data_version: str
    code_version: str
    run_id: str
    created: str
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationRecord:
    """One published evaluation.

    Attributes:
        dataset: partition key.
        number: from 1, in the order of publication.
        published: when it became current (ISO 8601, UTC).
        evaluation: its own result.
        files: data version of the dataset's files and declaration that its corpus was made from.
        origins: everything it rests on, in the order of the stages.
        mixed: sentences about results that were made from other versions than those the evaluation read.
        summary: figures of the whole evaluation (JSON-like).
        hypotheses: rows (JSON-like): keys, claim, badge, effect, and how the hypothesis was known again.
    """

    dataset: str
    number: int
    published: str
    evaluation: Origin
    files: str
    origins: tuple[Origin, ...]
    mixed: tuple[str, ...]
    summary: Mapping[str, Any]
    hypotheses: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        """Short name of the evaluation: what its result was made from (12 hexadecimal characters)."""
        return PurePosixPath(self.evaluation.place).name[:12]

    def origin(self, asset: str) -> Origin | None:
        """What it rests on of one asset."""
        return next((origin for origin in self.origins if origin.asset == asset), None)

    def hypothesis(self, hypothesis_id: str) -> Mapping[str, Any] | None:
        """The row of one hypothesis, or None."""
        return next((row for row in self.hypotheses if row["hypothesis_id"] == hypothesis_id), None)
