"""The rule that turns figures into a word."""

import numpy as np
import pytest

from hsae_dagster.core.hypothesis import verdict

SURE = {
    "p_holm": 0.01,
    "q_value": 0.005,
    "alpha": 0.05,
    "estimate": 0.2,
    "expected_sign": 0.1,
    "untestable": None,
}


@pytest.mark.parametrize(
    ("changed", "badge"),
    [
        ({}, "confirmed"),
        ({"expected_sign": 0.0}, "confirmed"),
        ({"estimate": -0.2, "expected_sign": -0.1}, "confirmed"),
        ({"estimate": -0.2}, "invalid"),
        ({"reversed_by_controls": True}, "suggestive"),
        ({"p_holm": 0.05}, "suggestive"),
        ({"p_holm": 0.9, "p_against": 0.01}, "invalid"),
        ({"overturned": True}, "suggestive"),
        ({"judge": "unchecked"}, "confirmed, judge unchecked"),
        ({"judge": "gold"}, "confirmed"),
        ({"judge": "unchecked", "p_holm": 0.2, "q_value": 0.9}, "not supported"),
        ({"p_holm": 0.2, "q_value": 0.04}, "suggestive"),
        ({"p_holm": 0.2, "q_value": 0.04, "estimate": -0.2}, "not supported"),
        ({"p_holm": 0.2, "q_value": 0.05}, "not supported"),
        ({"p_holm": np.nan}, "invalid"),
        ({"untestable": "only 3 holdout observations have the concept"}, "invalid"),
    ],
)
def test_badge(changed, badge):
    assert verdict(**{**SURE, **changed}).badge == badge


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({}, "Holm"),
        ({"estimate": -0.2, "reversed_by_controls": True}, "direction"),
        ({"reversed_by_controls": True}, "controls"),
        ({"p_holm": 0.2, "q_value": 0.04}, "false discovery rate"),
        ({"p_holm": 0.2, "q_value": 0.4}, "no evidence"),
        ({"untestable": "too rare"}, "not testable"),
        ({"overturned": True}, "missing answers"),
        ({"judge": "unchecked"}, "judge unchecked"),
    ],
)
def test_the_deciding_rule_has_a_name_and_only_holm_confirms(changed, rule):
    decided = verdict(**{**SURE, **changed})
    assert decided.rule == rule
    assert (decided.badge == "confirmed") == (rule == "Holm")


def test_reason_says_the_figure():
    assert "Holm-corrected p = 0.010 is below 0.05" in verdict(**SURE).reason
    assert "q = 0.040" in verdict(**{**SURE, "p_holm": 0.2, "q_value": 0.04}).reason
    assert "p = 0.200 is not below" in verdict(**{**SURE, "p_holm": 0.2, "q_value": 0.9}).reason
    assert verdict(**{**SURE, "untestable": "too rare"}).reason == "too rare"


def test_only_a_first_look_is_at_texts_never_used_before():
    assert "never tested on before" in verdict(**SURE).reason
    later = verdict(**SURE, first_look=False).reason
    assert "never tested on before" not in later and "an earlier look" in later


@pytest.mark.parametrize("changed", [{}, {"reversed_by_controls": True}])
def test_tiny_p_is_below_not_equal_to_below(changed):
    reason = verdict(**{**SURE, **changed, "p_holm": 1e-9}).reason
    assert "p < 0.001" in reason
    assert "= <" not in reason


def test_tiny_q_is_below_too():
    reason = verdict(**{**SURE, "alpha": 0.0005, "p_holm": 0.01, "q_value": 1e-5}).reason
    assert "q < 0.001" in reason


def test_an_effect_that_turned_round_is_said_to_have_done_so():
    weak = {**SURE, "p_holm": 1.0, "q_value": 1.0}
    assert "points the other way" in verdict(**{**weak, "estimate": -weak["estimate"]}).reason
    assert "points the other way" not in verdict(**weak).reason
