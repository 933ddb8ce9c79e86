"""The evaluation of HypotheSAEs on the same annotations, beside ours.

Belongs here: making `core.reference_table` from the design that our own tests read. Does not belong here: its figures
(core) or showing them (`report.reference`).
"""

from collections.abc import Sequence

from hsae_dagster.core.inference import HoldoutDesign
from hsae_dagster.core.reference_table import reference_table
from hsae_dagster.errors import MethodError
from hsae_dagster.report.content import ReferenceEvaluation


def evaluate_as_reference(design: HoldoutDesign, hypothesis_ids: Sequence[str]) -> ReferenceEvaluation:
    """The table, or why there is none: a comparison that cannot be made must not end the evaluation."""
    keys = tuple(hypothesis_ids)
    if not keys:
        return ReferenceEvaluation(keys, None, "no claim was tested.")
    try:
        return ReferenceEvaluation(keys, reference_table(design.concepts, design.outcome, design.task))
    except MethodError as error:
        return ReferenceEvaluation(keys, None, str(error))
