"""Which holdout texts stand beside a claim."""

import numpy as np
import polars as pl
import pytest
from hsae_dagster.core.lexicon import Lexicon

from hsae_dagster.core.evidence import gather_evidence

TEXTS = pl.DataFrame({"text_id": [f"t{i}" for i in range(8)], "text": [f"text number {i}" for i in range(8)]})
#                         0    1    2    3    4    5    6    7
ANSWERS = np.array([1, 1, 1, 1, 0, 0, -1, 0], dtype=np.int8)
ACTIVATION = np.array([0.5, 2.0, 0.0, 1.0, 3.0, 0.4, 9.0, 2.5])
OUTCOME = np.array([5.0, 4.0, 1.0, 2.0, 3.0, 3.0, 0.0, 6.0])  # mean 3


def shown(examples):
    return [example.text_id for example in examples]


def gather(effect=1.0, strong=2.0, answers=ANSWERS, activation=ACTIVATION, outcome=OUTCOME, definition=None):
    return gather_evidence(definition, TEXTS, answers, activation, strong, outcome, effect)


def test_supporting_have_the_concept_and_fire_strongest_first():
    assert shown(gather()[0].supporting) == ["t1", "t3", "t0"]


def test_near_misses_fire_strongly_but_are_judged_without():
    assert shown(gather()[0].near_misses) == ["t4", "t7"]
    assert shown(gather(strong=np.inf)[0].near_misses) == []
    # A threshold of zero does not make silent texts fire.
    assert shown(gather(strong=0.0, activation=np.where(np.arange(8) == 4, 0.0, ACTIVATION))[0].near_misses) == [
        "t7",
        "t5",
    ]


def test_counterexamples_lie_on_the_other_side_of_the_mean_furthest_first():
    assert shown(gather(effect=1.0)[0].counterexamples) == ["t2", "t3"]
    assert shown(gather(effect=-1.0)[0].counterexamples) == ["t0", "t1"]
    assert gather(effect=np.nan)[0].counterexamples == gather(effect=1.0)[0].counterexamples


def test_missing_answers_and_outcomes_are_no_evidence():
    evidence = gather()[0]
    everything = [*evidence.supporting, *evidence.near_misses, *evidence.counterexamples]
    assert "t6" not in shown(everything)
    outcome = OUTCOME.copy()
    outcome[2] = np.nan
    assert "t2" not in shown(gather(outcome=outcome)[0].counterexamples)


def test_ties_keep_the_order_of_texts_and_at_most_three_are_shown():
    evidence = gather(answers=np.ones(8, dtype=np.int8), activation=np.ones(8))[0]
    assert shown(evidence.supporting) == ["t0", "t1", "t2"]


def test_the_same_twice_and_inputs_left_alone():
    before = [array.copy() for array in (ANSWERS, ACTIVATION, OUTCOME)]
    assert gather() == gather()
    for array, copy in zip((ANSWERS, ACTIVATION, OUTCOME), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_examples_carry_what_is_known_of_the_text():
    example = gather()[0].supporting[0]
    assert (example.text, example.outcome, example.activation) == ("text number 1", 4.0, 2.0)
    assert example.because == ()


def test_a_lexicon_says_why_and_only_terms_that_speak_for_it():
    lexicon = Lexicon(terms=("number", "text", "absent"), weights=(2.0, -1.0, 0.5), intercept=-1.0, threshold=0.0)
    evidence, pairs = gather(definition=lexicon.as_definition())
    assert pairs == (("number", 2.0), ("text", -1.0), ("absent", 0.5))
    assert evidence.supporting[0].because == ("number",)
    assert gather()[1] == ()


@pytest.mark.parametrize("answer", [0, 1])
def test_nothing_to_show_is_an_empty_list(answer):
    evidence = gather(answers=np.full(8, answer, dtype=np.int8), activation=np.zeros(8), outcome=np.full(8, 2.0))[0]
    assert evidence.supporting == evidence.near_misses == evidence.counterexamples == ()
