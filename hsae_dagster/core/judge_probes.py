"""Questions whose answers are known by rule, put to a judge before it is paid for.

Belongs here: the rules, texts on which each of them holds or does not, and how well a judge did. Does not belong here:
asking (`assets.judge_check`).

Half of the texts have a sentence planted before them for each rule, so that yes and no are equally often right whatever
the collection is about. A judge that says no, or yes, to everything gets half of them right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.fidelity import MISSING

MOST_WORDS = 60
_MONTHS = r"\b(january|february|april|june|july|august|september|october|november|december)\b"
_COLOURS = r"\b(red|blue|green|yellow|purple|pink|brown|white|black|grey|gray|orange)\b"


@dataclass(frozen=True)
class Rule:
    """A concept that a pattern decides.

    Attributes:
        predicate: completes "The text …".
        holds: pattern of texts for which it holds.
        planted: a sentence for which it does, and no other rule.
        doubtful: pattern of texts for which a careful reader may disagree with `holds`; they are not used.
    """

    predicate: str
    holds: str
    planted: str
    doubtful: str = r"(?!)"

    def truth(self, text: str) -> bool:
        """Whether the rule holds for a text."""
        return re.search(self.holds, text, re.IGNORECASE) is not None

    def clear(self, text: str) -> bool:
        """Whether its truth is beyond doubt."""
        return self.truth(text) or re.search(self.doubtful, text, re.IGNORECASE) is None


RULES = (
    Rule("contains a number written in digits", r"\d", "This is item 47 of the list.", r"[①-⓿]|\b[ivx]{2,}\b"),
    Rule("contains a question mark", r"[?？]", "Who would have thought so?", r"¿|؟"),
    Rule("names a month of the year", _MONTHS, "That was at the end of October.", r"\b(may|march|jan|feb|sept?|oct)\b"),
    Rule("contains an exclamation mark", "[!！]", "What a day that was!", "¡"),
    Rule("mentions a colour by its name", _COLOURS, "The door was painted blue.", r"colou?r|rot\b|bl[ae]u|gr[üu]n"),
    Rule(
        "contains a web address", r"https?:|www\.", "More of it is on www.example.org today.", r"\.(com|org|net|de)\b"
    ),
)


@dataclass(frozen=True)
class Probes:
    """Texts, and which rules hold for them.

    Attributes:
        texts: n.
        truth: (n, rules) int8: 1 yes, 0 no, -1 not to be counted.
    """

    texts: tuple[str, ...]
    truth: np.ndarray


@dataclass(frozen=True)
class Examination:
    """How a judge did.

    Attributes:
        asked: answers counted, missing ones among them.
        right: of these.
        sensitivity: share of yes among those that are yes.
        specificity: share of no among those that are no.
        worst: the rule that it got wrong most often, and the share it got right.
    """

    asked: int
    right: int
    sensitivity: float
    specificity: float
    worst: tuple[str, float]

    @property
    def accuracy(self) -> float:
        """Mean of both: 0.5 for whoever always says the same."""
        return (self.sensitivity + self.specificity) / 2


def make_probes(texts: Sequence[str], count: int, rng: np.random.Generator) -> Probes:
    """Draw `count` texts (all, if there are fewer) and plant every rule in half of them.

    Args:
        texts: of the collection; their first 60 words are used.
        count: how many.
        rng: random stream.
    """
    rows = np.sort(rng.permutation(len(texts))[:count])
    planted = np.zeros((len(rows), len(RULES)), dtype=bool)
    for column in range(len(RULES)):
        planted[rng.permutation(len(rows))[: len(rows) // 2], column] = True
    made, truth = [], np.full(planted.shape, MISSING, dtype=np.int8)
    for n, row in enumerate(rows):
        start = " ".join(texts[row].split()[:MOST_WORDS])
        sentences = [rule.planted for rule, is_planted in zip(RULES, planted[n], strict=True) if is_planted]
        made.append(" ".join([*sentences, start]))
        for column, rule in enumerate(RULES):
            if rule.clear(start) or planted[n, column]:
                truth[n, column] = rule.truth(made[-1])
    return Probes(tuple(made), truth)


def examine(truth: np.ndarray, answers: np.ndarray) -> Examination:
    """Compare answers with the truth; a missing answer is a wrong one.

    Args:
        truth: (texts, rules) int8, as of `Probes`.
        answers: (texts, rules) int8: 1 yes, 0 no, -1 missing.
    """
    counted, right = truth != MISSING, truth == answers
    said_yes, said_no = (float(right[truth == said].mean()) if (truth == said).any() else 1.0 for said in (1, 0))
    by_rule = [float(right[counted[:, j], j].mean()) if counted[:, j].any() else 1.0 for j in range(truth.shape[1])]
    worst = int(np.argmin(by_rule))
    return Examination(
        asked=int(counted.sum()),
        right=int((counted & right).sum()),
        sensitivity=said_yes,
        specificity=said_no,
        worst=(RULES[worst].predicate, by_rule[worst]),
    )
