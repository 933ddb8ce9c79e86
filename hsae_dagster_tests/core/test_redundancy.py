"""Families of near-duplicates: made from annotations and words, led by the first, never by chains."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from hsae_dagster.core.inference.joint_fit import families, words_shared
from hsae_dagster.core.inference.joint_fit import phi_where_given as phi


def noisy(rng, base, wrong):
    return np.where(rng.random(len(base)) < wrong, 1 - base, base).astype(np.int8)


def test_phi_is_the_correlation_and_leaves_missing_answers_out():
    rng = np.random.default_rng(0)
    a = (rng.random(500) < 0.3).astype(np.int8)
    b = noisy(rng, a, 0.1)
    assert phi(a, b) == pytest.approx(matthews_corrcoef(a, b))
    gaps = b.copy()
    gaps[:200] = -1
    assert phi(a, gaps) == pytest.approx(matthews_corrcoef(a[200:], b[200:]))
    assert phi(a, np.ones(500, np.int8)) == 0.0


def test_near_duplicates_and_opposites_join_the_first_and_others_stay():
    rng = np.random.default_rng(1)
    a = (rng.random(1000) < 0.4).astype(np.int8)
    other = (rng.random(1000) < 0.2).astype(np.int8)
    answers = np.column_stack([a, other, noisy(rng, a, 0.03), 1 - noisy(rng, a, 0.03)])
    found = families(answers, ["w", "x", "y", "z"], 0.8)
    assert list(found) == [0, 1]
    assert [member.position for member in found[0]] == [2, 3]
    assert found[0][0].phi > 0.8 > -0.8 > found[0][1].phi


def test_families_do_not_grow_by_chains():
    rng = np.random.default_rng(2)
    chain = [(rng.random(4000) < 0.5).astype(np.int8)]
    for _ in range(3):
        chain.append(noisy(rng, chain[-1], 0.08))
    found = families(np.column_stack(chain), list("abcd"), 0.8)
    assert len(found) >= 2
    for leader, members in found.items():
        assert all(phi(chain[leader], chain[member.position]) >= 0.8 for member in members)


def test_nearly_the_same_words_need_less_agreement():
    rng = np.random.default_rng(3)
    a = (rng.random(1000) < 0.4).astype(np.int8)
    answers = np.column_stack([a, noisy(rng, a, 0.15)])
    assert 0.5 < phi(answers[:, 0], answers[:, 1]) < 0.8
    same = ["uses words such as “slow”, “boring”, “long”", "uses words such as “slow”, “long”, “boring”, “dull”"]
    assert list(families(answers, same, 0.8)) == [0]
    assert list(families(answers, ["is slow", "praises the cast"], 0.8)) == [0, 1]
    assert list(families(answers, same, 1.1)) == [0, 1]


def test_the_frame_of_a_claim_is_not_what_two_claims_share():
    assert words_shared("uses words such as “slow”", "uses words such as “fast”") == 0.0
    assert words_shared("", "") == 0.0
