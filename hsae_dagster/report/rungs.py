"""The ladder's rungs in the order and under the names in which they are shown, in three groups and a comparison.

Belongs here: which rung stands in which group, and its plain name. Does not belong here: measuring them
(`core.ladder`), the picture (`figures.fit_ladder`), what the ladder says (`ladder`).
"""

from collections.abc import Sequence

from hsae_dagster.core.joint_fit import Fit
from hsae_dagster.core.ladder import ALL_NEURONS, CONCEPTS, CONTROLS, EMBEDDINGS, FIRED, SELECTED, WORDS

_NAMES = {
    EMBEDDINGS: "embeddings",
    ALL_NEURONS: "all neurons",
    SELECTED: "selected neurons",
    FIRED: "selected, active or not",
    CONCEPTS: "claims",
    WORDS: "plain words (TF-IDF)",
    CONTROLS: "length and controls",
}
COMPARISON = "For comparison"
_GROUPS = (
    ("What embeddings know", (EMBEDDINGS,)),
    ("What the neurons keep", (ALL_NEURONS, SELECTED, FIRED)),
    ("What the claims say", (CONCEPTS,)),
)


def rung_name(name: str) -> str:
    """The plain name of a rung; any other name as it is."""
    return _NAMES.get(name, name)


def grouped(fits: Sequence[Fit]) -> list[tuple[str, list[Fit]]]:
    """Fits by group, groups and rungs in reading order; whatever is no rung comes last, for comparison."""
    known = {name for _, names in _GROUPS for name in names}
    by_name = {fit.name: fit for fit in fits}
    groups = [(title, [by_name[name] for name in names if name in by_name]) for title, names in _GROUPS]
    groups.append((COMPARISON, [fit for fit in fits if fit.name not in known]))
    return [(title, own) for title, own in groups if own]
