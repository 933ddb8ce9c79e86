"""Texts with known concepts and known effects: the truth that the pipeline is measured against (`planted`)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import yaml

from hsae_dagster.errors import MethodError

if TYPE_CHECKING:
    import polars as pl

Pick = Callable[[int], int]  # pick(n) -> one of 0 .. n-1


@dataclass(frozen=True)
class Action:
    """Verbs that take any of the objects, which any of the adjectives may describe."""

    verbs: str
    adjectives: str
    objects: str


@dataclass(frozen=True)
class Topic:
    """What sentences about one topic are made of."""

    actions: tuple[Action, ...]
    places: tuple[str, ...]


_MADE_OF: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("planted.yaml").read_text(encoding="utf-8"))
# What sentences of every kind are held together by, and the people who act in topics of every kind.
FUNCTION_WORDS = frozenset(_MADE_OF["function_words"])
TOPICS = {
    name: Topic(tuple(Action(**action) for action in rules["actions"]), tuple(rules["places"]))
    for name, rules in _MADE_OF["topics"].items()
}
_SUBJECTS, _PATTERNS, _PEOPLE, _SAID, _SMALL, _WENT, _HOW = (
    tuple(_MADE_OF[part]) for part in ("subjects", "patterns", "people", "said", "small", "went", "how")
)
# Most sentences have neither.
_OPENERS, _TAILS = (*_MADE_OF["openers"], *("",) * 18), (*_MADE_OF["tails"], *("",) * 12)


def topic_sentence(topic: str, pick: Pick) -> str:
    """A sentence about `topic`; `pick` makes each choice."""
    rules = TOPICS[topic]

    def one(choices: tuple[str, ...] | str, but: str | None = None) -> str:
        options = choices.split() if isinstance(choices, str) else choices
        options = [option for option in options if option != but]
        return options[pick(len(options))]

    first, second = (rules.actions[pick(len(rules.actions))] for _ in range(2))
    pattern = one(_PATTERNS)
    slots = {"s": one(_SUBJECTS), "v": one(first.verbs), "a": one(first.adjectives), "o": one(first.objects)}
    slots |= {"s2": one(_SUBJECTS), "v2": one(second.verbs, slots["v"]), "a2": one(second.adjectives)}
    slots["o2"] = one(second.objects, slots["o"])
    return _capital(pattern.format(**slots, p=one(rules.places)))


def filler_sentence(pick: Pick) -> str:
    """A sentence about nothing in particular; `pick` makes each choice."""
    who, said, small = (part[pick(len(part))] for part in (_PEOPLE, _SAID, _SMALL))
    went, how = (part[pick(len(part))] for part in (_WENT, _HOW))
    opener, tail = (part[pick(len(part))] for part in (_OPENERS, _TAILS))
    core = f"{who} {said} {small}" if pick(6) else f"{went} {how}"
    return _capital(" ".join(f"{opener} {core} {tail}".split()) + ".")


def words(text: str) -> set[str]:
    """Lower-cased words of a text."""
    return set(re.findall(r"[a-z]+", text.lower()))


def topic_words(topic: str) -> frozenset[str]:
    """The words that only `topic` has."""
    rules = TOPICS[topic]
    parts = [f"{a.verbs} {a.adjectives} {a.objects}" for a in rules.actions]
    return frozenset(words(" ".join((*parts, *rules.places))) - FUNCTION_WORDS)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


Task = Literal["regression", "classification", "pairwise"]

# In units of the outcome's standard deviation; 0 for the topics that have nothing to do with it.
EFFECTS = {"cooking": 0.9, "sailing": -0.9, "astronomy": 0.6, "football": -0.6} | {
    topic: 0.0 for topic in TOPICS if topic not in ("cooking", "sailing", "astronomy", "football")
}
# Log odds carry less information than a measured outcome, so effects on them are larger.
LOG_ODDS_PER_UNIT = 2.0
PREVALENCE = 0.3
PREVALENCE_CONCENTRATION = 7.0  # a + b of the Beta; the intraclass correlation of presence is 1 / (1 + a + b)
MAX_AUTHORS = 150
AUTHOR_VARIANCE = 0.1017
NOISE_VARIANCE = 0.4069  # with the concepts' 0.4914 and the authors' share this makes 1


@dataclass(frozen=True)
class PlantedConcept:
    """A concept that texts have or lack.

    Attributes:
        name: the topic, a column of the truth frame.
        effect: on the outcome, in standard deviations (regression) or log odds (classification, pairwise); 0 = none.
        words: the words by which it shows, which no other concept and no filler uses.
    """

    name: str
    effect: float
    words: frozenset[str]


@dataclass(frozen=True)
class Planted:
    """A generated dataset and its truth.

    Attributes:
        task: which kind of outcome.
        rows: text str (or text_a, text_b), outcome f64 (regression) or i8, author str.
        truth: text str and an i8 column (1 = present) per concept; one row per text, A before B.
        concepts: all of them, planted or not.
    """

    task: Task
    rows: "pl.DataFrame"
    truth: "pl.DataFrame"
    concepts: tuple[PlantedConcept, ...]


def generate_planted(n_texts: int = 3000, *, task: Task = "regression", seed: int = 0, null: bool = False) -> Planted:
    """Generate `n_texts` distinct texts (pairwise: `n_texts` / 2 pairs) of about `n_texts` / 20 authors, at most 150.

    Equal arguments give equal frames. `null` sets every effect to 0 and leaves the texts and authors as they are.

    Raises:
        MethodError: an unknown task, or fewer than 20 texts.
    """
    import polars as pl

    if task not in get_args(Task):
        raise MethodError(f"There is no task `{task}` for planted texts; use one of {', '.join(get_args(Task))}.")
    if n_texts < 20:
        raise MethodError(f"n_texts is {n_texts}; planted texts need at least 20 to have authors and outcomes.")
    sides = 2 if task == "pairwise" else 1
    n_rows = n_texts // sides
    # Two streams, so that texts do not depend on what is drawn for the outcome.
    rng = np.random.default_rng((seed, 0))
    n_authors = min(MAX_AUTHORS, max(4, n_texts // 20))
    author = rng.integers(n_authors, size=n_rows)
    mentions = rng.beta(
        PREVALENCE * PREVALENCE_CONCENTRATION, (1 - PREVALENCE) * PREVALENCE_CONCENTRATION, (n_authors, len(TOPICS))
    )
    by_text = np.repeat(author, sides)
    present = rng.random((n_rows * sides, len(TOPICS))) < mentions[by_text]
    texts = _write_texts(present, rng)

    concepts = _concepts(task, null)
    score = present @ np.array([concept.effect for concept in concepts])
    outcome = _outcome(task, score, author, n_authors, np.random.default_rng((seed, 1)))
    columns = {"text_a": texts[0::2], "text_b": texts[1::2]} if task == "pairwise" else {"text": texts}
    names = np.array([f"author_{i:03d}" for i in range(n_authors)])
    return Planted(
        task=task,
        rows=pl.DataFrame({**columns, "outcome": outcome, "author": names[author]}),
        truth=pl.DataFrame({"text": texts} | {c.name: present[:, j].astype(np.int8) for j, c in enumerate(concepts)}),
        concepts=concepts,
    )


def write_planted(
    folder: Path, n_texts: int = 3000, *, task: Task = "regression", seed: int = 0, null: bool = False
) -> tuple[Path, Path]:
    """Write planted.parquet (rows) and truth.parquet under `folder`; return both paths. Arguments as in generating."""
    from hsae_dagster.sample_data.fetch import write_table

    made = generate_planted(n_texts, task=task, seed=seed, null=null)
    rows, truth = folder / "planted.parquet", folder / "truth.parquet"
    write_table(truth, made.truth)
    write_table(rows, made.rows)
    return rows, truth


def _concepts(task: Task, null: bool) -> tuple[PlantedConcept, ...]:
    unit = 0.0 if null else 1.0 if task == "regression" else LOG_ODDS_PER_UNIT
    return tuple(PlantedConcept(name, EFFECTS[name] * unit, topic_words(name)) for name in TOPICS)


def _outcome(task: Task, score: np.ndarray, author: np.ndarray, n_authors: int, rng: np.random.Generator) -> np.ndarray:
    """The outcome of each row from the score of each text; see the module's docstring for the model."""
    intercept = rng.normal(0.0, np.sqrt(AUTHOR_VARIANCE), n_authors)[author]
    if task == "regression":
        return score + intercept + rng.normal(0.0, np.sqrt(NOISE_VARIANCE), score.size)
    log_odds = score[0::2] - score[1::2] if task == "pairwise" else score + LOG_ODDS_PER_UNIT * intercept
    return (rng.random(log_odds.size) < 1.0 / (1.0 + np.exp(-log_odds))).astype(np.int8)


def _write_texts(present: np.ndarray, rng: np.random.Generator) -> list[str]:
    """A distinct text for each row of `present` (texts, topics)."""
    pick = _picker(rng)
    written: set[str] = set()
    texts = []
    for row in present:
        text = _write_text(row, pick)
        while text in written:
            text = _write_text(row, pick)
        written.add(text)
        texts.append(text)
    return texts


def _write_text(present: np.ndarray, pick: Pick) -> str:
    slots = [
        topic_sentence(topic, pick) if here else filler_sentence(pick)
        for topic, here in zip(TOPICS, present, strict=True)
    ]
    for last in range(len(slots) - 1, 0, -1):  # Fisher-Yates, from the same stream of choices
        other = pick(last + 1)
        slots[last], slots[other] = slots[other], slots[last]
    return " ".join(slots)


def _picker(rng: np.random.Generator) -> Pick:
    """Choices from a stream drawn in blocks: one draw per choice would take most of the time."""
    block: list[float] = []

    def pick(n: int) -> int:
        nonlocal block
        if not block:
            block = rng.random(1 << 16).tolist()
        return int(block.pop() * n)

    return pick
