"""Checks on what a stage made."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

# asset -> check name -> (blocking, description)
CHECKS: dict[str, dict[str, tuple[bool, str]]] = {
    "corpus": {
        "splits_share_no_text": (True, "No text and no cluster is on two sides of a split."),
        "labels_vary": (True, "Train and holdout both have more than one label value."),
        "few_rows_dropped": (False, "Fewer than a quarter of the rows were left out."),
        "labels_balanced": (False, "No single label value makes up more than 95 % of the observations of any split."),
    },
    "embeddings": {
        "every_text_has_a_vector": (True, "Each text of the corpus has one finite vector of the declared length."),
    },
    "sae_checkpoints": {
        "weights_are_finite": (True, "No weight is NaN or infinite."),
        "few_dead_neurons": (False, "Fewer than half of the neurons never fire on training texts."),
        "explains_variance": (False, "The reconstruction explains at least a tenth of validation variance."),
        "fires_as_declared": (False, "At inference k neurons fire per text, give or take a half of k."),
        "training_converged": (
            False,
            "No training ended at saes.max_epochs while its last epochs still took 0.5 % off the loss.",
        ),
    },
    "activations": {
        "one_row_per_text": (True, "Codes have one row per text and one column per neuron, none negative."),
    },
    "selected_neurons": {
        "neurons_are_distinct": (True, "No neuron is selected twice."),
        "as_many_as_asked": (
            False,
            "As many neurons as declared; fewer where no other adds to it or holds across clusters.",
        ),
    },
    "interpretations": {
        "unseen_texts_only": (True, "Fidelity was measured on texts that no candidate was written or chosen on."),
        "most_neurons_are_readable": (False, "At least half of the selected neurons have a readable concept."),
    },
    "annotation_matrix": {
        "every_holdout_text_judged": (True, "One row per holdout text, one column per concept."),
        "few_missing": (True, "No larger share of the answers is missing than annotation.max_missing."),
        "stacked_agrees_with_single": (
            False,
            "Answers to stacked concepts agree with answers to one at a time, at least to annotation.min_agreement.",
        ),
        "two_judges_agree": (False, "A second model, if declared, agrees at least to judge.min_kappa."),
        "concepts_vary": (False, "No concept got the same answer on every text; such a concept cannot be tested."),
    },
    "evaluation_report": {
        "tests_only_holdout": (True, "Every tested observation belongs to the holdout."),
        "effects_estimable": (False, "Every hypothesis could be tested."),
        "signs_agree": (False, "Separation and partial effect agree in sign for every confirmed hypothesis."),
    },
}


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Declarations of an asset's checks."""
    return [
        dg.AssetCheckSpec(name=name, asset=asset, blocking=blocking, description=description)
        for name, (blocking, description) in CHECKS[asset].items()
    ]


def result(asset: str, name: str, passed: bool, metadata: Mapping[str, Any] | None = None) -> dg.AssetCheckResult:
    """The verdict of one check: an ERROR where it blocks, a WARN where it does not."""
    blocking = CHECKS[asset][name][0]
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        metadata=dict(metadata or {}),
    )


def sound(results: Sequence[dg.AssetCheckResult]) -> bool:
    """Whether no structural check failed, so that a result may be shown as current."""
    return all(check.passed or check.severity is dg.AssetCheckSeverity.WARN for check in results)
