"""What makes claims hold, for many texts at once.

Belongs here: words and units by text and claim, as `claims.because` gives them for one. Does not belong here: judging
(`claims.judge`): a reason is told only where a claim was judged to hold.
"""

from collections.abc import Sequence

import numpy as np

from hsae_dagster.core.concepts.claims import Closeness, Meaning, Sentences, terms_of
from hsae_dagster.core.concepts.terms import occurrences


def reasons(
    meanings: Sequence[Meaning | None], texts: Sequence[str], holds: np.ndarray, closeness: Closeness | None = None
) -> list[list[tuple[str, ...]]]:
    """For each text and claim, the words that were found or the unit that is closest; empty where it does not hold.

    Args:
        meanings: the claims; None for a phrase, which only a reader can explain.
        texts: n texts.
        holds: (n, claims) bool.
        closeness: of units with quoted sentences; without it, sentences are not explained.

    Returns:
        n lists of as many tuples as there are claims; a cue of signs or a length is explained by its own name.
    """
    found: list[list[tuple[str, ...]]] = [[()] * len(meanings) for _ in texts]
    terms = sorted({term for meaning in meanings for term in terms_of(meaning)})
    place = {term: j for j, term in enumerate(terms)}
    where = occurrences(texts, terms)
    present = [set(where.indices[where.indptr[i] : where.indptr[i + 1]].tolist()) for i in range(len(texts))]
    for j, meaning in enumerate(meanings):
        own = terms_of(meaning)
        for i in np.flatnonzero(holds[:, j]):
            if own:
                found[i][j] = tuple(term for term in own if place[term] in present[i])
            elif meaning is not None and not isinstance(meaning, Sentences):
                found[i][j] = (meaning.claim,)
    _closest_units(found, meanings, texts, holds, closeness)
    return found


def _closest_units(
    found: list[list[tuple[str, ...]]],
    meanings: Sequence[Meaning | None],
    texts: Sequence[str],
    holds: np.ndarray,
    closeness: Closeness | None,
) -> None:
    for j, meaning in enumerate(meanings):
        rows = np.flatnonzero(holds[:, j]).tolist()
        if closeness is None or not isinstance(meaning, Sentences) or not rows:
            continue
        likeness, units = closeness([texts[i] for i in rows], meaning.sentences)
        for i, best, own in zip(rows, likeness.argmax(axis=1), units, strict=True):
            found[i][j] = (own[int(best)],)
