"""What a report shows, before it is drawn.

Belongs here: the one record from which the page, its figures and the demo's table are made. Does not belong here:
computing any of it (core) or drawing it (`figures`, `page`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsae_dagster.core.analysis_plan import Look
from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.joint_fit import Fit
from hsae_dagster.core.negative_controls import NegativeControl


@dataclass(frozen=True)
class SplitCount:
    """Size of one split."""

    split: str
    observations: int
    texts: int
    clusters: int


@dataclass(frozen=True)
class SizeChoice:
    """What `saes: auto` tried and took.

    Attributes:
        sizes: (m, k) of the candidates, rising.
        m: neurons of the one taken.
        k: its neurons that may fire per unit.
        reason: why it was taken, in words.
    """

    sizes: tuple[tuple[int, int], ...]
    m: int
    k: int
    reason: str


@dataclass(frozen=True)
class Guided:
    """How the label guided an autoencoder.

    Attributes:
        weight: of predicting the label; 0 is unguided.
        neurons: how many of its neurons, the first ones, predict the label.
        m: its neurons in all.
    """

    weight: float
    neurons: int
    m: int

    @property
    def by_few(self) -> bool:
        """Whether some of its neurons predict the label and others only rebuild texts."""
        return self.weight > 0 and self.neurons < self.m


@dataclass(frozen=True)
class ReportContent:
    """Everything on the report of one evaluation of one dataset.

    Attributes:
        dataset: name (partition key).
        description: one line from dataset.yaml, may be empty.
        task: regression, classification or pairwise.
        outcome: the outcome in words, with its unit.
        cluster: name of the cluster column, or None when every text stands for itself.
        outcome_mean: mean outcome on the holdout.
        splits: sizes, in order train, validation, fidelity, holdout; or of half A and half B.
        dropped: rows left out, by reason.
        hypotheses: tested ones, in the order to show: by badge, then by size of effect.
        unreadable: selected neurons that no claim speaks for: (rank, sae_id, sae_column, reason); not tested.
        fits: ladder of joint fit, ceiling first: embeddings, TF-IDF, all neurons, selected neurons, concepts, controls.
        floor: mean and 95th percentile of the concepts' fit to permuted outcomes.
        guidance: by sae_id, how the label guided its training.
        alpha: family-wise error rate of this report.
        round: 1 for the first holdout, k + 1 for the fresh reserve of the k-th refresh.
        bonferroni: hypotheses below alpha / H, for comparison.
        settings: what dataset.yaml declared, defaults filled in (JSON-like).
        versions: data version of each upstream asset.
        run_id: of the evaluation.
        look: which look at the holdout this is.
        family: tests that the correction counts, those of earlier looks included.
        negative_controls: discoveries where there is nothing, or nothing special, to discover; may be empty.
        sizes: what `saes: auto` tried and took; None where sizes were declared or could not be measured.
    """

    dataset: str
    description: str
    task: str
    outcome: str
    cluster: str | None
    outcome_mean: float
    splits: tuple[SplitCount, ...]
    dropped: Mapping[str, int]
    hypotheses: tuple[Hypothesis, ...]
    unreadable: tuple[tuple[int, str, int, str], ...]
    fits: tuple[Fit, ...]
    floor: tuple[float, float]
    guidance: Mapping[str, Guided]
    alpha: float
    bonferroni: int
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    run_id: str
    look: Look | None = None
    family: int = 0
    negative_controls: tuple[NegativeControl, ...] = ()
    sizes: SizeChoice | None = None
    round: int = 1

    @property
    def halves(self) -> bool:
        """Whether each half of the texts tests what the other found."""
        return any(split.split.startswith("half ") for split in self.splits)

    def tested_on(self, half: str) -> SplitCount | None:
        """Size of what tests claims found in a half (`a`, `b`), or of all that tests; None where it is unknown."""
        testing = {"holdout", "half A", "half B"} - {f"half {half.upper()}"}
        parts = [split for split in self.splits if split.split in testing]
        if len(parts) < 2:
            return parts[0] if parts else None
        sums = (sum(getattr(part, name) for part in parts) for name in ("observations", "texts", "clusters"))
        return SplitCount("both halves", *sums)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the declared controls."""
        return tuple((self.settings.get("columns") or {}).get("controls") or ())

    @property
    def confirmed(self) -> int:
        """Number of confirmed hypotheses."""
        return sum(hypothesis.badge == "confirmed" for hypothesis in self.hypotheses)
