"""All texts and claims, read.

Belongs here: which kind of claim is read how, and likeness of sentences. Does not belong here: the forms of claims
(`claim`), terms (`words`), cues (`cues`).
"""

from collections.abc import Callable, Sequence

import numpy as np

from hsae_dagster_tests.reader.claim import Exemplars, Listed, parse
from hsae_dagster_tests.reader.cues import shows
from hsae_dagster_tests.reader.words import occurring, stretches

Embed = Callable[[list[str]], np.ndarray]  # n texts -> (n, dimensions)


def annotate(
    claims: Sequence[str],
    texts: Sequence[str],
    units: Sequence[Sequence[str]] | None = None,
    embed: Embed | None = None,
) -> np.ndarray:
    """Which texts have which claims, (texts, claims) bool.

    Args:
        claims: as printed on their cards.
        texts: as the corpus holds them.
        units: the units of each text; only claims with quoted sentences need them.
        embed: the dataset's embedder; only claims with quoted sentences need it.

    Raises:
        NotUnderstoodError: a claim cannot be read.
        ValueError: a claim quotes sentences, and units or embedder are not given.
    """
    read = [parse(claim) for claim in claims]
    quoting = [one for one in read if isinstance(one, Exemplars)]
    likeness = _likeness(quoting, units, embed, len(texts)) if quoting else {}
    worded = [stretches(text) for text in texts]  # once, whatever the number of claims
    columns = []
    for one in read:
        if isinstance(one, Exemplars):
            columns.append(np.array([value >= one.least for value in likeness[one]]))
        elif isinstance(one, Listed):
            columns.append(np.array([bool(occurring(one.terms, words)) for words in worded]))
        else:
            columns.append(np.array([shows(one.name, text) for text in texts]))
    return np.column_stack(columns).astype(bool)


def _likeness(
    quoting: Sequence[Exemplars], units: Sequence[Sequence[str]] | None, embed: Embed | None, n_texts: int
) -> dict[Exemplars, list[float]]:
    """Of each claim, the largest cosine of a unit of each text with one of the quoted sentences; -1 without units."""
    if units is None or embed is None:
        raise ValueError("A claim quotes sentences; give the units of each text and the embedder to read it.")
    if len(units) != n_texts:
        raise ValueError(f"There are {n_texts} texts and units of {len(units)}; give the units of each text.")
    every = sorted({unit for own in units for unit in own} | {s for one in quoting for s in one.sentences})
    place = {text: i for i, text in enumerate(every)}
    vectors = np.asarray(embed(every), dtype=np.float64)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = {}
    for one in quoting:
        cosine = (vectors @ vectors[[place[sentence] for sentence in one.sentences]].T).max(axis=1)
        found[one] = [max((float(cosine[place[unit]]) for unit in own), default=-1.0) for own in units]
    return found
