"""The ladder in words: every loss has its own remedy, and nothing is blamed without a measurement."""

import math

import pytest

from hsae_dagster.core.inference.joint_fit import RUNGS, read_ladder
from hsae_dagster.report.cards import card_markdown
from hsae_dagster.report.content import SizeChoice
from hsae_dagster.report.page import ladder_sentences, render_report
from hsae_dagster_tests.core.test_ladder import fits, losing_most
from hsae_dagster_tests.report.make_content import make_content, make_hypotheses

KNOBS = dict(zip(RUNGS[1:], ("label_weight", "selection.n", "Lower k", "interpretation.model"), strict=True))


@pytest.mark.parametrize("below", RUNGS[1:])
def test_the_weakest_step_comes_with_the_knob_that_moves_it(below):
    shares, advice = ladder_sentences(read_ladder(losing_most(below), (0.0, 0.01)))
    assert shares.startswith("Of what the embeddings predict beyond chance, all neurons keep ")
    assert advice.startswith("Most is lost between ")
    assert KNOBS[below] in advice
    assert sum(sentence in advice for sentence in KNOBS.values()) <= 2


@pytest.mark.parametrize("below", RUNGS[1:])
def test_what_was_chosen_by_measurement_is_not_advised_but_told(below):
    sizes = SizeChoice(((64, 4), (128, 4)), 64, 4, "its claims fit best")
    _, advice = ladder_sentences(read_ladder(losing_most(below), (0.0, 0.01)), sizes)
    for advised in ("Let the size be chosen", "guide it by the label", "guide the autoencoder"):
        assert advised not in advice
    told = "raced 2 autoencoders (m/k 64/4, 128/4) by the fit of their claims on validation clusters"
    assert (told in advice) == (below != RUNGS[-1])
    assert ("took 64/4: its claims fit best." in advice) == (below != RUNGS[-1])


def test_nothing_is_blamed_without_a_measurement():
    (said,) = ladder_sentences(read_ladder([], (0.0, 0.0)))
    assert "could not be measured" in said
    (said,) = ladder_sentences(read_ladder(fits(0.01, 0.3), (0.0, 0.02)))
    assert "no better than chance" in said
    said = " ".join(ladder_sentences(read_ladder(fits(0.4, math.nan, 0.39, 0.4, 0.41), (0.0, 0.02))))
    assert "the selected neurons keep" in said
    assert "No single step loses much." in said


def test_page_and_cards_say_whether_neurons_were_guided():
    guided = make_content(hypotheses=make_hypotheses(7))
    card = card_markdown(guided.hypotheses[0], guided)
    assert r"from the texts and the outcome of training texts \(label weight 0.1\)" in card
    assert "with weight 0.1, to predict the outcome of the training texts" in render_report(guided)
    plain = make_content(hypotheses=guided.hypotheses, guidance={"5ae0" * 4: 0.0})
    assert "| Neuron learned | from the texts alone |" in card_markdown(plain.hypotheses[0], plain)
    assert "never saw the outcome" in render_report(plain)
    both = {"5ae0" * 4: 0.0, "other": 0.3}
    mixed = make_content(hypotheses=guided.hypotheses, guidance=both)
    assert "each card says whether its own" in render_report(mixed)
    assert "| Neuron learned | from the texts alone |" in card_markdown(mixed.hypotheses[0], mixed)


def test_the_page_reads_the_ladder():
    page = render_report(make_content())
    assert "Most is lost between the embeddings and the neurons" in page
