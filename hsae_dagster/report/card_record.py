"""What Dagster shows of a hypothesis at a glance, before its card is opened.

Belongs here: short texts, each escaped for where it is shown. Does not belong here: the card itself (`cards`), lineage
(added when the card is published, since it is true of one project only).
"""

import base64

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.report.cards import card_markdown, escape_markdown, facts
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.sparks import histogram_png, histogram_words
from hsae_dagster.report.wording import capitalised, effect_words, one_line


def card_record(hypothesis: Hypothesis, content: ReportContent) -> dict[str, str]:
    """Texts by name: `card` and `activations` are markdown, the others plain."""
    told = dict(facts(hypothesis, content))
    return {
        "card": card_markdown(hypothesis, content),
        "claim": one_line(hypothesis.claim),
        "reason": one_line(hypothesis.reason),
        "words": f"{capitalised(effect_words(hypothesis.test.separation, content.task, content.outcome))}.",
        "tested": f"{told['Tested on']}; it holds for {told['Holds for']} of them",
        "source": told["Source"],
        "coverage": told["How much of its neuron it says"],
        "activations": _activations(hypothesis),
    }


def _activations(hypothesis: Hypothesis) -> str:
    histogram = hypothesis.activations
    if histogram is None:
        return "not kept"
    words = escape_markdown(histogram_words(histogram))
    if not histogram.firing:
        return words
    picture = base64.b64encode(histogram_png(histogram)).decode()
    return f"![histogram of activations](data:image/png;base64,{picture})\n\n{words}"
