"""Which holdout texts stand beside a claim."""

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Sentences, WordGroup, definition_of
from hsae_dagster.core.hypothesis import gather_evidence

TEXTS = pl.DataFrame(
    {
        "text_id": [f"t{i}" for i in range(8)],
        "text": [f"text number {i}" for i in range(8)],
        "n_words": [3] * 8,
    }
)
#                         0    1    2    3    4    5    6    7
ANSWERS = np.array([1, 1, 1, 1, 0, 0, -1, 0], dtype=np.int8)
ACTIVATION = np.array([0.5, 2.0, 0.0, 1.0, 3.0, 0.4, 9.0, 2.5])
OUTCOME = np.array([5.0, 4.0, 1.0, 2.0, 3.0, 3.0, 0.0, 6.0])  # mean 3


def shown(examples):
    return [example.text_id for example in examples]


def gather(effect=1.0, strong=2.0, answers=ANSWERS, activation=ACTIVATION, outcome=OUTCOME, texts=TEXTS, **more):
    return gather_evidence(more.pop("definition", None), texts, answers, activation, strong, outcome, effect, **more)


def test_supporting_have_the_concept_and_fire_strongest_first():
    assert shown(gather().supporting) == ["t1", "t3", "t0"]


def test_near_misses_fire_strongly_but_are_judged_without():
    assert shown(gather().near_misses) == ["t4", "t7"]
    assert shown(gather(strong=np.inf).near_misses) == []
    # A threshold of zero does not make silent texts fire.
    assert shown(gather(strong=0.0, activation=np.where(np.arange(8) == 4, 0.0, ACTIVATION)).near_misses) == [
        "t7",
        "t5",
    ]


def test_counterexamples_lie_on_the_other_side_of_the_mean_furthest_first():
    assert shown(gather(effect=1.0).counterexamples) == ["t2", "t3"]
    assert shown(gather(effect=-1.0).counterexamples) == ["t0", "t1"]
    assert gather(effect=np.nan).counterexamples == gather(effect=1.0).counterexamples


def test_missing_answers_and_outcomes_are_no_evidence():
    evidence = gather()
    everything = [*evidence.supporting, *evidence.near_misses, *evidence.counterexamples]
    assert "t6" not in shown(everything)
    outcome = OUTCOME.copy()
    outcome[2] = np.nan
    assert "t2" not in shown(gather(outcome=outcome).counterexamples)


def test_ties_keep_the_order_of_texts_and_at_most_three_are_shown():
    evidence = gather(answers=np.ones(8, dtype=np.int8), activation=np.ones(8))
    assert shown(evidence.supporting) == ["t0", "t1", "t2"]


def test_the_same_twice_and_inputs_left_alone():
    before = [array.copy() for array in (ANSWERS, ACTIVATION, OUTCOME)]
    assert gather() == gather()
    for array, copy in zip((ANSWERS, ACTIVATION, OUTCOME), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_examples_carry_what_is_known_of_the_text():
    example = gather().supporting[0]
    assert (example.text, example.outcome, example.activation) == ("text number 1", 4.0, 2.0)
    assert example.because == ()


def test_words_say_why_and_the_unit_is_the_one_that_fires_most():
    definition = definition_of(WordGroup(("number", "absent", "text")))
    evidence = gather(definition=definition, unit_of=lambda row: f"unit {row}")
    assert evidence.supporting[0].because == ("number", "text")
    assert evidence.near_misses[0].unit == "unit 4"


def test_a_quoted_sentence_is_shown_by_the_unit_that_is_close_to_it():
    definition = definition_of(Sentences(("a number",), 0.5, "set"))

    def closeness(texts, sentences):
        return np.array([[0.7] if "3" in text else [0.4] for text in texts]), [[f"of {text}"] for text in texts]

    because = {e.text_id: e.because for e in gather(definition=definition, closeness=closeness).supporting}
    assert because == {"t1": (), "t3": ("of text number 3",), "t0": ()}


def test_short_texts_come_first_where_activations_are_equal():
    words = TEXTS.with_columns(n_words=pl.Series([9, 8, 7, 1, 1, 1, 1, 1]))
    assert shown(gather(texts=words, activation=np.ones(8)).supporting) == ["t3", "t2", "t1"]


def test_nothing_to_show_is_an_empty_list():
    nothing = {"activation": np.zeros(8), "outcome": np.full(8, 2.0)}
    evidence = gather(answers=np.zeros(8, dtype=np.int8), **nothing)
    assert evidence.supporting == evidence.near_misses == evidence.counterexamples == ()
    # A claim that needs no neuron is shown by the texts that it holds for.
    evidence = gather(answers=np.ones(8, dtype=np.int8), **nothing)
    assert shown(evidence.supporting) == ["t0", "t1", "t2"]
    assert evidence.near_misses == evidence.counterexamples == ()
