"""The ladder in words: what is kept at each rung, where most is lost, and what to change.

Belongs here: sentences about a `core.ladder.Reading`. Does not belong here: finding the weakest step (core) or the
chart (`figures.fit_ladder`).
"""

from collections.abc import Iterator

from hsae_dagster.core.ladder import ALL_NEURONS, CONCEPTS, EMBEDDINGS, FIRED, SELECTED, Reading
from hsae_dagster.report.content import SizeChoice
from hsae_dagster.report.wording import percent, plural

_NAMES = {
    ALL_NEURONS: "all neurons",
    SELECTED: "the selected neurons",
    FIRED: "the selected neurons as active or not",
    CONCEPTS: "the claims",
}
_BETWEEN = {
    ALL_NEURONS: "between the embeddings and the neurons",
    SELECTED: "between all neurons and the selected ones",
    FIRED: "between how active neurons are and whether they are active",
    CONCEPTS: "between the neurons and the claims",
}
_REMEDIES = {
    ALL_NEURONS: "The autoencoder reconstructs texts without keeping what predicts the outcome. Let the size be chosen "
    "(`saes: auto`), guide it by the label (`label_weight`, 0.1 to begin with), or try a smaller m with a larger k.",
    SELECTED: "What predicts is spread over more neurons than were selected. Raise `selection.n`, use a smaller m, or "
    "guide the autoencoder by the label (`label_weight`), which gathers it in fewer neurons.",
    FIRED: "How strongly a neuron fires says much that firing alone does not. Lower k, so that neurons fire only where "
    "they have something to say, or use more and narrower neurons (a larger m).",
    CONCEPTS: "What the neurons know cannot be said in a few short claims. Let more claims be chosen (`selection.n`), "
    "let a language model write and judge them (`interpretation.model`, `annotation.model`), or bring more texts.",
}
# The same where the size was chosen by measurement, so that advice to do so would lead nowhere.
_LEFT = {
    ALL_NEURONS: "The autoencoder reconstructs texts without keeping what predicts the outcome. {tried} What is left "
    "to try are more texts, or sizes that were not among these, listed in `saes`.",
    SELECTED: "What predicts is spread over more neurons than were selected. Raise `selection.n`. {tried}",
    FIRED: "How strongly a neuron fires says much that firing alone does not. {tried} What is left to try are sizes "
    "with a lower k or a larger m than these, listed in `saes`.",
}


def ladder_sentences(reading: Reading, sizes: SizeChoice | None = None) -> Iterator[str]:
    """What the ladder says, most important first; never empty.

    Args:
        reading: of the ladder.
        sizes: what was chosen by measurement, if sizes were.
    """
    if reading.state == "not measured":
        yield "How much each step keeps of what the embeddings predict could not be measured."
        return
    if reading.state == "no signal":
        yield (
            "The embeddings themselves predict the outcome no better than chance might, so there is nothing for "
            "neurons and claims to keep. Another embedding model or more texts may help; or the texts do not tell."
        )
        return
    shares = [(_NAMES[name], percent(max(share, 0.0))) for name, share in reading.kept if name != EMBEDDINGS]
    first, *others = shares
    said = ", ".join([f"{first[0]} keep {first[1]}", *(f"{name} {share}" for name, share in others)])
    yield f"Of what the embeddings predict beyond chance, {said}."
    worst = reading.weakest
    if worst is None:
        yield "No single step loses much."
        return
    yield f"Most is lost {_BETWEEN[worst.below]} ({percent(worst.lost)} of the whole). {_remedy(worst.below, sizes)}"


def _remedy(rung: str, sizes: SizeChoice | None) -> str:
    if sizes is None or rung not in _LEFT:
        return _REMEDIES[rung]
    return _LEFT[rung].format(tried=_tried(sizes))


def _tried(sizes: SizeChoice) -> str:
    """What was measured and taken, as a sentence."""
    shapes = ", ".join(f"{m}/{k}" for m, k in sizes.sizes)
    return (
        f"`saes: auto` raced {plural(len(sizes.sizes), 'autoencoder')} (m/k {shapes}) by what can be said with them on "
        f"validation clusters, and took {sizes.m}/{sizes.k}: {sizes.reason}."
    )
