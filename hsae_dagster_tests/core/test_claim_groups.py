"""Word groups mean what they list, and grow only by terms of one meaning that help."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import (
    CLOSENESS,
    MOST_FORMS,
    Grower,
    Pool,
    Residual,
    Units,
    neuron_exemplars,
    neuron_groups,
    style_pool,
)
from hsae_dagster.core.concepts.choice import MOST_ALIKE, Chooser, Learned, Limits, Vocabulary, choose_claims
from hsae_dagster.core.concepts.claims import (
    APART,
    MOST_SENTENCES,
    SIMILARITIES,
    Sentences,
    WordGroup,
    judge,
    stands_apart,
)
from hsae_dagster.core.concepts.words import TermTable, occurrences, supported_terms
from hsae_dagster.core.inference.joint_fit import phi as phi_of
from hsae_dagster.core.observations import TextUnits
from hsae_dagster_tests.reader.annotate import annotate

SAID = """wait waits waiting waited minute minutes hour hours queue queues line lines slow slowly late later staff rude
kind friendly fresh stale soup soups bread salty sweet price prices cheap dear table tables noisy quiet"""


def some_texts(rng: np.random.Generator, n: int) -> list[str]:
    marks = [" ", " ", ", ", ". "]
    return [
        "".join(f"{word}{marks[rng.integers(4)]}" for word in rng.choice(SAID.split(), 6)) + "yes?" for _ in range(n)
    ]


def vectors_of(rng: np.random.Generator, table: TermTable) -> np.ndarray:
    """In three dimensions many are close to each other by chance."""
    vectors = rng.normal(size=(len(table.families), 3))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def learned(rng: np.random.Generator, n_texts: int, *, pairs: bool, task: str | None = None) -> Learned:
    if not pairs:
        outcome = rng.normal(size=n_texts)
        if task == "classification":
            outcome = (outcome > 0).astype(np.float64)
        design = sp.eye_array(n_texts, format="csr")
        return Learned(outcome, np.ones((n_texts, 1)), np.arange(n_texts) // 3, design, task or "regression")
    n = n_texts
    sides = np.array([rng.choice(n_texts, 2, replace=False) for _ in range(n)])
    design = sp.csr_matrix((np.tile([1.0, -1.0], n), (np.repeat(np.arange(n), 2), sides.ravel())), shape=(n, n_texts))
    return Learned(rng.integers(0, 2, n) - 0.5, np.empty((n, 0)), np.arange(n) // 3, design, "pairwise")


@pytest.mark.parametrize("pairs", [False, True])
def test_a_grown_group_holds_where_one_of_its_terms_occurs(pairs: bool) -> None:
    grew = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        texts = some_texts(rng, 240)
        table = supported_terms(texts, np.arange(len(texts)))
        vectors, data = vectors_of(rng, table), learned(rng, len(texts), pairs=pairs)
        residual = Residual(data.outcome, data.held, data.clusters)
        residual.take(np.asarray(data.design @ table.matrix[:, [0]].toarray().ravel().astype(np.float64)))
        grower = Grower(table, vectors, data.design)
        for start in range(0, len(table.families), 5):
            group = grower.grow(residual, start, np.ones(len(table.families), dtype=bool), 0.0)
            terms = group.terms(table)
            found = np.asarray(occurrences(texts, terms).sum(axis=1)).ravel() > 0
            assert np.array_equal(group.holds, found)
            assert found.tolist() == annotate([WordGroup(terms).claim], texts)[:, 0].tolist()
            assert len(terms) <= MOST_FORMS
            assert group.families[0] == start
            column = np.asarray(data.design @ found.astype(np.float64))
            before = residual.values
            beside = np.column_stack([residual.basis, column])
            rest = data.outcome - beside @ np.linalg.lstsq(beside, data.outcome, rcond=None)[0]
            if group.explained:
                assert group.explained == pytest.approx(before @ before - rest @ rest, abs=1e-6)
                assert np.sign(before @ column) == group.sign
            grew += len(group.families) > 1
    assert grew > 5, "without groups that grew nothing was tested"


def test_members_joined_close_to_the_centre_and_only_those_that_may() -> None:
    rng = np.random.default_rng(1)
    texts = some_texts(rng, 240)
    table = supported_terms(texts, np.arange(len(texts)))
    vectors, data = vectors_of(rng, table), learned(rng, len(texts), pairs=False)
    residual = Residual(data.outcome, data.held, data.clusters)
    grower = Grower(table, vectors, data.design)
    able = rng.random(len(table.families)) < 0.5
    sizes = []
    for start in range(len(table.families)):
        families = grower.grow(residual, start, able, 0.0).families
        for i in range(1, len(families)):
            centre = vectors[list(families[:i])].astype(np.float64).sum(axis=0)
            assert vectors[families[i]] @ centre / np.linalg.norm(centre) >= CLOSENESS - 1e-5
            assert able[families[i]]
        sizes.append(len(families))
        assert grower.grow(residual, start, able, np.inf).families == (start,), "nothing is worth any price"
    assert max(sizes) > 1


def units_of(texts: list[str]) -> tuple[TextUnits, list[str]]:
    """Each text's two halves as its units, some shared."""
    halves = [[text[: len(text) // 2], text[len(text) // 2 :]] for text in texts]
    distinct = sorted({half for own in halves for half in own})
    place = {half: i for i, half in enumerate(distinct)}
    rows = np.array([place[half] for own in halves for half in own], dtype=np.int64)
    ids = pl.Series([f"u{i:05}" for i in range(len(distinct))])
    keys = pl.Series([f"t{i:05}" for i in range(len(texts))])
    return TextUnits(keys, ids, np.arange(len(texts) + 1) * 2, rows), distinct


def test_every_candidate_is_in_the_texts_that_it_is_judged_to_be_in() -> None:
    rng = np.random.default_rng(2)
    texts = [*some_texts(rng, 150), "“Quoted”, he said: 3 TIMES (no more)...", "why? oh!"]
    table = supported_terms(texts, np.arange(len(texts)))
    places, halves = units_of(texts)
    codes = sp.random(len(halves), 6, density=0.2, random_state=3, format="csc")
    # Sixteen things that halves say, each in its own way.
    vectors = (np.eye(24)[rng.integers(0, 16, len(halves))] + rng.normal(size=(len(halves), 24)) * 0.12).astype(
        np.float32
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    fires = sp.csc_matrix((rng.random((len(texts), 4)) < 0.3).astype(np.float32))
    pools = [
        style_pool(texts),
        neuron_groups(fires, [3, 1, 4, 0], table, vectors_of(rng, table)),
        neuron_exemplars(Units(places, halves, vectors, codes, "set"), [5, 2]),
    ]
    place = {half: i for i, half in enumerate(halves)}

    def closeness(some: list[str], sentences: list[str]) -> tuple[np.ndarray, list[list[str]]]:
        assert list(some) == texts
        quoted = vectors[[place[sentence] for sentence in sentences]]
        likeness = [
            (vectors[places.rows[places.starts[i] : places.starts[i + 1]]] @ quoted.T).max(axis=0)
            for i in range(len(texts))
        ]
        return np.array(likeness), []

    assert [len(pool.meanings) > 3 for pool in pools] == [True] * 3
    together = Pool.together([*pools, pools[1]])
    assert len(set(together.meanings)) == len(together.meanings) <= sum(len(pool.meanings) for pool in pools)
    for pool in (*pools, together):
        judged = judge(pool.meanings, texts, closeness)
        assert pool.columns.shape == judged.shape == (len(texts), len(pool.neurons))
        np.testing.assert_array_equal(pool.columns.toarray(), judged)
    assert set(pools[1].neurons) <= {3, 1, 4, 0}
    assert set(pools[2].neurons) == {5, 2}
    for meaning in pools[2].meanings:
        assert isinstance(meaning, Sentences)
        assert 1 <= len(meaning.sentences) <= MOST_SENTENCES
        quoted = vectors[[place[sentence] for sentence in meaning.sentences]]
        assert (quoted @ quoted.T).min() >= min(meaning.similarity, SIMILARITIES[0]) - 1e-5, "they are alike"


def test_a_low_similarity_is_for_sentences_that_stand_apart() -> None:
    """Of two kinds of sentences, of 40 each among 2,000, one has a hundred others that are nearly alike to it."""
    rng = np.random.default_rng(1)

    def around(centre: np.ndarray, spread: float, n: int) -> np.ndarray:
        return centre + rng.normal(size=(n, 64)) * spread

    axes = np.eye(64)
    near = around(0.68 * axes[1] + 0.73 * axes[2], 0.03, 100)
    vectors = np.vstack([around(axes[0], 0.09, 40), around(axes[1], 0.09, 40), near, rng.normal(size=(1820, 64))])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    texts = [f"a sentence of words {chr(97 + i // 26 % 26)}{chr(97 + i % 26)}{chr(97 + i // 676)}" for i in range(2000)]
    rows = np.repeat([0, 1], 40)
    codes = sp.csc_matrix((rng.uniform(1, 2, 80), (np.arange(80), rows)), shape=(2000, 2))
    places = TextUnits(
        pl.Series([f"t{i:05}" for i in range(2000)]),
        pl.Series([f"u{i:05}" for i in range(2000)]),
        np.arange(2001),
        np.arange(2000),
    )
    pool = neuron_exemplars(Units(places, texts, vectors, codes, "set"), [0, 1])
    low = [j for j, each in enumerate(pool.meanings) if isinstance(each, Sentences) and each.similarity in APART]
    assert {*pool.neurons[low]} == {0}, "the other kind has no clear border"
    assert {*pool.neurons} == {0, 1}
    for j in low:
        meaning = pool.meanings[j]
        assert isinstance(meaning, Sentences) and len(meaning.sentences) > 1
        assert pool.columns[:, [j]].toarray().ravel()[:40].mean() > 0.5
        quoted = vectors[[texts.index(sentence) for sentence in meaning.sentences]]
        assert (quoted @ quoted.T).min() >= meaning.similarity - 1e-5


def test_only_few_sentences_stand_apart_and_few_lie_just_below_them() -> None:
    likeness = np.concatenate([np.full(30, 0.7), np.full(30, 0.52), np.full(940, 0.1)])
    assert stands_apart(likeness, 0.6)
    assert not stands_apart(np.append(likeness, 0.52), 0.6), "more lie just below"
    assert stands_apart(np.append(likeness, 0.49), 0.6)
    assert not stands_apart(likeness[:599], 0.6), "no kind of its own, but much of the texts"
    assert not stands_apart(np.where(np.arange(1000) < 7, 0.7, 0.1), 0.6), "seven are too few"


@pytest.mark.parametrize(("pairs", "task"), [(False, "regression"), (False, "classification"), (True, "pairwise")])
def test_dealt_labels_take_hardly_any_claims(pairs: bool, task: str) -> None:
    taken = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        texts = some_texts(rng, 300)
        table = supported_terms(texts, np.arange(len(texts)))
        vocabulary = Vocabulary(table, vectors_of(rng, table))
        data = learned(rng, len(texts), pairs=pairs, task=task)
        picks, paths = choose_claims(data, style_pool(texts).columns, vocabulary, Limits(10, 20), seed=seed)
        taken.append(len(picks))
        assert all(path.best <= 10 for path in paths)
    assert sum(taken) <= 6, taken  # of 40


def test_claims_taken_together_are_no_near_copies_and_large_enough() -> None:
    rng = np.random.default_rng(5)
    texts = some_texts(rng, 400)
    table = supported_terms(texts, np.arange(len(texts)))
    pool, data = style_pool(texts).columns, learned(rng, len(texts), pairs=False)
    for words in (("wait", "queue"), ("rude",), ("soup", "bread", "stale")):
        holds = np.asarray(occurrences(texts, words).sum(axis=1)).ravel() > 0
        data.outcome[:] = data.outcome + 0.8 * holds
    vocabulary = Vocabulary(table, vectors_of(rng, table))
    picks = Chooser(data, pool, vocabulary, Limits(12, 30)).choose(1.0)
    assert len(picks) >= 3
    for i, pick in enumerate(picks):
        assert 30 <= pick.holds.sum() <= len(texts) - 30
        assert pick.worth > 0
        assert all(abs(phi_of(pick.holds, other.holds)) <= MOST_ALIKE for other in picks[:i])
    fewer = Chooser(data, pool, vocabulary, Limits(3, 30)).choose(1.0)
    for first, second in zip(fewer, picks, strict=False):
        np.testing.assert_array_equal(first.holds, second.holds)
