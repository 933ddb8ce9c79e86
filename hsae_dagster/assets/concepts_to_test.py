"""What a holdout is asked: the concepts that were found, and the hypotheses that dataset.yaml brings.

Belongs here: putting both into one list of records, in the order of their ranks. Does not belong here: judging
(`annotation_matrix`) or testing (`evaluation`).

A hypothesis of the user's own has no neuron, hence no fidelity and no evidence from training texts; its direction is
the declared one, or none. Judged by a language model it is its claim; judged by the lexical annotator it is its terms,
any of which is enough.
"""

from typing import Any

import numpy as np

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import Fidelity
from hsae_dagster.core.lexicon import Lexicon
from hsae_dagster.core.terms import STYLE_CUES, text_terms
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import OwnHypothesis
from hsae_dagster.errors import DatasetError
from hsae_dagster.storage.objects import StoredObject

AUTHOR = "you"
_DIRECTIONS = {"positive": 1.0, "negative": -1.0, None: 0.0}


def concepts_to_test(dataset: Dataset, interpretations: StoredObject) -> list[dict[str, Any]]:
    """Records of all concepts to judge and test, found ones first; `source` tells which are the user's.

    Raises:
        DatasetError: a term of a hypothesis of the user's that the lexical annotator cannot look for.
    """
    found = [{**record, "source": "found"} for record in chosen_concepts(interpretations)]
    first = len(interpretations.json("concepts.json"))
    return [*found, *(_own(dataset, own, first + i) for i, own in enumerate(dataset.spec.hypotheses))]


def chosen_concepts(interpretations: StoredObject) -> list[dict[str, Any]]:
    """Records of the neurons with a readable concept (under `concept`), in rank order.

    Two neurons may share a concept: its judgement is made once, and the first of them stands for it.
    """
    records, seen = [], set()
    for record in interpretations.json("concepts.json"):
        if record["concept"] and record["concept"]["concept_id"] not in seen:
            seen.add(record["concept"]["concept_id"])
            records.append(record)
    return records


def is_own(record: dict[str, Any]) -> bool:
    """Whether a record is a hypothesis of the user's."""
    return bool(record["source"] == "yours")


def no_fidelity() -> Fidelity:
    """The fidelity of a concept without a neuron: nothing was measured."""
    nan, interval = float("nan"), (float("nan"), float("nan"))
    measures = dict.fromkeys(("recall", "false_positive_rate", "precision", "f1", "legacy_f1", "correlation"), nan)
    natural = dict.fromkeys(("natural_precision", "natural_recall", "natural_f1"), nan)
    counts = dict.fromkeys(("n_strong", "n_silent", "n_firing", "n_missing"), 0)
    intervals = {"recall_interval": interval, "false_positive_interval": interval}
    return Fidelity(**counts, **measures, **natural, **intervals)  # type: ignore[arg-type]


def _own(dataset: Dataset, own: OwnHypothesis, rank: int) -> dict[str, Any]:
    lexical = dataset.spec.annotation.model == "lexical"
    definition = _lexicon(dataset.name, own).as_definition() if lexical else None
    concept = Concept(own.claim, AUTHOR, definition)
    return {
        "rank": rank,
        "column": None,
        "sae_id": "",
        "sae_column": -1,
        "score": float("nan"),
        "train_separation": _DIRECTIONS[own.direction],
        "bounds": [0.5, None],
        "concept": {
            "concept_id": concept.concept_id,
            "predicate": concept.predicate,
            "author": concept.author,
            "definition": definition,
            "details": {},
        },
        "fidelity": None,
        "source": "yours",
    }


def _lexicon(dataset: str, own: OwnHypothesis) -> Lexicon:
    """A lexicon that any of the terms matches."""
    terms = tuple(dict.fromkeys(_term(dataset, own.claim, term) for term in own.terms))
    return Lexicon(terms, tuple(float(x) for x in np.ones(len(terms))), intercept=0.0, threshold=0.5)


def _term(dataset: str, claim: str, term: str) -> str:
    """The term as the annotator finds it: a content word, two neighbouring ones, or a style cue."""
    if term in STYLE_CUES:
        return f"<{term}>"
    seen = [found for found in text_terms(term) if not found.startswith("<")]
    words = [found for found in seen if " " not in found]
    if len(words) in (1, 2):
        return seen[-1]
    why = "has no content word" if not words else f"has {len(words)} content words"
    raise DatasetError(
        f"Dataset `{dataset}`: hypotheses, “{claim}”: the term `{term}` {why}, and the lexical annotator looks for one "
        f"word or two neighbouring ones, or a style ({', '.join(STYLE_CUES)}). Change the term."
    )
