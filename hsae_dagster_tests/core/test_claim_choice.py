"""Claims are found where they were planted, and nowhere else."""

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.choice import Learned, Limits, Vocabulary, choose_claims
from hsae_dagster.core.concepts.terms import supported_terms

FILLER = [f"filler{chr(97 + i)}{chr(97 + j)}" for i in range(20) for j in range(10)]


def _texts(rng: np.random.Generator, n: int, words: dict[str, float]) -> list[str]:
    found = []
    for _ in range(n):
        chosen = list(rng.choice(FILLER, 12))
        chosen += [word for word, share in words.items() if rng.random() < share]
        found.append(" ".join(rng.permutation(chosen)))
    return found


def _learned(outcome: np.ndarray, clusters: np.ndarray) -> Learned:
    n = len(outcome)
    return Learned(outcome, np.ones((n, 1)), clusters, sp.eye_array(n, format="csr"), "regression")


def _vocabulary(texts: list[str], clusters: np.ndarray) -> Vocabulary:
    table = supported_terms(texts, clusters)
    # Every family far from every other, but for the two planted words, which mean the same.
    vectors = np.eye(len(table.families), dtype=np.float32)
    names = [family.name for family in table.families]
    vectors[names.index("minutes")] = vectors[names.index("wait")]
    return Vocabulary(table, vectors)


def test_a_planted_group_is_found_whole_and_first() -> None:
    rng = np.random.default_rng(0)
    texts = _texts(rng, 1200, {"wait": 0.1, "minutes": 0.1})
    clusters = np.arange(1200) // 4
    has = np.array(["wait" in text.split() or "minutes" in text.split() for text in texts])
    outcome = rng.normal(size=1200) - 0.8 * has
    picks, _ = choose_claims(
        _learned(outcome, clusters),
        sp.csc_matrix((len(texts), 0), dtype=np.float32),
        _vocabulary(texts, clusters),
        Limits(20, 20),
    )
    vocabulary = _vocabulary(texts, clusters)
    assert picks[0].group is not None
    assert set(picks[0].group.terms(vocabulary.table)) == {"wait", "minutes"}
    assert picks[0].sign == -1
    assert np.array_equal(picks[0].holds, has)


def test_little_is_taken_where_nothing_is_there() -> None:
    taken = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        texts = _texts(rng, 600, {"wait": 0.1, "minutes": 0.1})
        clusters = np.arange(600) // 4
        outcome = rng.normal(size=600)
        picks, paths = choose_claims(
            _learned(outcome, clusters),
            sp.csc_matrix((len(texts), 0), dtype=np.float32),
            _vocabulary(texts, clusters),
            Limits(20, 20),
        )
        taken.append(len(picks))
        assert all(path.scores[0] == 0 for path in paths)
    assert np.median(taken) <= 2, taken


def test_a_claim_that_says_nothing_alone_is_not_taken_for_what_it_completes() -> None:
    """Three topics, one good, one bad and one neither, which in one word says the rest of what the bad one leaves."""
    rng = np.random.default_rng(1)
    topic = rng.permutation(np.arange(900) % 3)
    words = [(rng.choice(["cook", "bake", "fry"]), "boat", "moon")[t] for t in topic]
    texts = [" ".join(rng.permutation([*rng.choice(FILLER, 12), word])) for word in words]
    clusters = np.arange(900) // 4
    outcome = np.array([1.0, -1.0, -0.05])[topic] + rng.normal(0, 0.4, 900)
    vocabulary = _vocabulary_apart(texts, clusters)
    none = sp.csc_matrix((len(texts), 0), dtype=np.float32)
    picks, _ = choose_claims(_learned(outcome, clusters), none, vocabulary, Limits(4, 20))
    said = {term for pick in picks if pick.group for term in pick.group.terms(vocabulary.table)}
    assert said == {"boat", "cook", "bake", "fry"}


def _vocabulary_apart(texts: list[str], clusters: np.ndarray) -> Vocabulary:
    table = supported_terms(texts, clusters)
    return Vocabulary(table, np.eye(len(table.families), dtype=np.float32))
