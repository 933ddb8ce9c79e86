"""How strongly a hypothesis' neuron fires on the texts it was tested on.

Belongs here: counting. Does not belong here: drawing.
"""

from dataclasses import dataclass

import numpy as np

BINS = 24


@dataclass(frozen=True)
class ActivationHistogram:
    """Counts of judged texts by activation.

    Attributes:
        edges: of the bins over firing texts, ascending, one more than there are bins; empty when none fires.
        having: firing texts that have the concept, by bin.
        lacking: firing texts without the concept (judged no, or not judged), by bin.
        silent_having: texts with the concept on which the neuron is silent.
        silent_lacking: the other silent texts.
        strong: activation from which on firing counts as strong, or None.
    """

    edges: tuple[float, ...]
    having: tuple[int, ...]
    lacking: tuple[int, ...]
    silent_having: int
    silent_lacking: int
    strong: float | None

    @property
    def firing(self) -> int:
        """Texts that fire the neuron."""
        return sum(self.having) + sum(self.lacking)

    @property
    def texts(self) -> int:
        """All texts counted."""
        return self.firing + self.silent_having + self.silent_lacking


def activation_histogram(activation: np.ndarray, answers: np.ndarray, strong: float) -> ActivationHistogram:
    """Count texts.

    Args:
        activation: (n,) of the neuron, 0 where it is silent.
        answers: (n,) int8: 1 has the concept, 0 has not, -1 missing.
        strong: lower bound of strong firing; infinite when the neuron never fired on training texts.
    """
    fires, has = activation > 0, answers == 1
    edges = np.linspace(0.0, float(activation.max()), BINS + 1) if fires.any() else np.empty(0)
    counts = [
        tuple(int(n) for n in np.histogram(activation[fires & side], edges)[0]) if fires.any() else ()
        for side in (has, ~has)
    ]
    return ActivationHistogram(
        edges=tuple(float(edge) for edge in edges),
        having=counts[0],
        lacking=counts[1],
        silent_having=int((~fires & has).sum()),
        silent_lacking=int((~fires & ~has).sum()),
        strong=float(strong) if np.isfinite(strong) else None,
    )
