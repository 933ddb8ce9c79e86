"""Claims are found where they were planted, and nowhere else."""

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.choice import Learned, Limits, Path, Vocabulary, best_of, choose_claims
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


def test_the_path_that_is_told_is_the_one_that_claims_come_from() -> None:
    # The first has the best fit, though what one standard error leaves of it fits less than the second's.
    paths = [Path(1.0, np.array([0.0, 0.1, 0.3]), 1), Path(2.0, np.array([0.0, 0.2, 0.2]), 1)]
    assert best_of(paths).price == 1.0
