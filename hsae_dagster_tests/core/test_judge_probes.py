"""Questions with known answers: each rule is true where it says, and only real judges pass."""

import numpy as np
import pytest

from hsae_dagster.core.concepts.fidelity import RULES, Rule, examine, make_probes
from hsae_dagster_tests.assets.workspace import tiny_texts

TEXTS = [
    *tiny_texts()["text"].to_list()[:40],
    "On 3 May we saw a red door!",
    "See www.x.org?",
    "It may be so, see x.com",
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.predicate)
def test_a_planted_sentence_makes_its_own_rule_true_and_no_other(rule: Rule) -> None:
    assert [other.predicate for other in RULES if other.truth(rule.planted)] == [rule.predicate]


def test_half_of_the_texts_have_each_rule_planted_and_doubtful_ones_do_not_count() -> None:
    probes = make_probes(TEXTS, 40, np.random.default_rng(0))
    assert probes.truth.shape == (40, len(RULES))
    assert ((probes.truth == 1).sum(axis=0) >= 20).all()
    assert ((probes.truth == 0).sum(axis=0) >= 10).all()
    for text, row in zip(probes.texts, probes.truth, strict=True):
        for rule, truth in zip(RULES, row, strict=True):
            assert truth in (-1, int(rule.truth(text)))
    month = next(rule for rule in RULES if "month" in rule.predicate)
    assert not month.clear("It may be so")
    again = make_probes(TEXTS, 40, np.random.default_rng(0))
    assert again.texts == probes.texts


def test_whoever_always_says_the_same_has_half_and_missing_answers_are_wrong() -> None:
    truth = make_probes(TEXTS, 30, np.random.default_rng(1)).truth
    for said in (0, 1):
        assert examine(truth, np.full_like(truth, said)).accuracy == 0.5
    assert examine(truth, truth).accuracy == 1.0
    assert examine(truth, np.full_like(truth, -1)).accuracy == 0.0
    one_wrong = truth.copy()
    one_wrong[:, 2] = np.where(truth[:, 2] == -1, -1, 1 - truth[:, 2])
    found = examine(truth, one_wrong)
    assert found.worst == (RULES[2].predicate, 0.0)
    assert found.right == found.asked - (truth[:, 2] != -1).sum()


def test_texts_may_be_few_or_long() -> None:
    probes = make_probes(["word " * 500], 16, np.random.default_rng(0))
    assert len(probes.texts) == 1
    assert len(probes.texts[0].split()) <= 100
