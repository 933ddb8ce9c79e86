"""What a holdout is asked: the concepts that were found, and the hypotheses that dataset.yaml brings.

Belongs here: putting both into one list of records, in the order of their ranks, and the texts that are asked. Does not
belong here: judging (`annotation_matrix`) or testing (`evaluation`).

A hypothesis of the user's own has no neuron, hence no fidelity and no evidence from training texts; its direction is
the declared one, or none. Judged by a language model it is its claim; judged by the lexical annotator it is its terms,
any of which is enough.
"""

from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.concepts.claims import Cue, Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.cues import SIGN_CUES, WORD_CUES
from hsae_dagster.core.concepts.words import words_of
from hsae_dagster.core.cross_fitting import rows_that_test
from hsae_dagster.core.fidelity import Fidelity
from hsae_dagster.core.observations import text_keys
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Annotation, OwnHypothesis
from hsae_dagster.errors import DatasetError
from hsae_dagster.storage.frames import read_frame
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

    Two neurons may share a concept: its judgement is made once, and the first of them stands for it. Found in both
    halves, it is tested in both.
    """
    records, seen = [], set()
    for record in interpretations.json("concepts.json"):
        # Written by a language model, a record has none.
        half = record.get("half", "")
        if record["concept"] and (half, record["concept"]["concept_id"]) not in seen:
            seen.add((half, record["concept"]["concept_id"]))
            records.append(record | {"half": half})
    return records


def holdout_texts(corpus: StoredObject, settings: Annotation) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(observations, texts) of the holdout, or of the declared sample of it; of halves, both test."""
    observations = rows_that_test(read_frame(corpus.file("observations.parquet")))
    observations = _sample_clusters(observations, settings.holdout_sample, settings.seed)
    texts = read_frame(corpus.file("texts.parquet"))
    return observations, texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))


def _sample_clusters(observations: pl.DataFrame, most: int | None, seed: int) -> pl.DataFrame:
    """Whole clusters in random order until the sample is reached; everything when none is asked for."""
    if most is None or observations.height <= most:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    total = np.cumsum(sizes["len"].to_numpy()[order])
    taken = order[: int(np.searchsorted(total, most) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].to_numpy()[taken].tolist()))


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


def check_own(dataset: Dataset) -> None:
    """Refuse, before any work, hypotheses of the user's that the annotator cannot look for.

    Raises:
        DatasetError: with the hypothesis and its term.
    """
    for own in dataset.spec.hypotheses:
        _own(dataset, own, 0)


def _own(dataset: Dataset, own: OwnHypothesis, rank: int) -> dict[str, Any]:
    lexical = dataset.spec.annotation.model == "lexical"
    definition = definition_of(_meaning(dataset.name, own)) if lexical else None
    concept = Concept(own.claim, AUTHOR, definition)
    return {
        "rank": rank,
        "half": "",
        "column": None,
        "sae_id": "",
        "sae_column": -1,
        "score": float("nan"),
        "train_separation": _DIRECTIONS[own.direction],
        "bounds": [0.5, None],
        "concept": concept.record,
        "fidelity": None,
        "source": "yours",
    }


def _meaning(dataset: str, own: OwnHypothesis) -> Meaning:
    """Any of the terms; or a style cue, where that is the one term.

    Raises:
        DatasetError: a term has no word, or a cue stands beside other terms.
    """
    cues = [term for term in own.terms if term in {**WORD_CUES, **SIGN_CUES}]
    if cues and len(own.terms) == 1:
        return Cue(cues[0])
    if cues:
        raise DatasetError(
            f"Dataset `{dataset}`: hypotheses, “{own.claim}”: the style cue `{cues[0]}` stands beside other terms, and "
            "a claim is either one cue or a list of words. Make it a hypothesis of its own."
        )
    return WordGroup(tuple(dict.fromkeys(_term(dataset, own.claim, term) for term in own.terms)))


def _term(dataset: str, claim: str, term: str) -> str:
    """The term as it is looked for: its words in lower case, which must stand in one sentence."""
    words = words_of(term)
    if words and None not in words:
        return " ".join(word for word in words if word)
    why = "reaches across a sentence's end" if words else "has no word"
    raise DatasetError(
        f"Dataset `{dataset}`: hypotheses, “{claim}”: the term `{term}` {why}, so no text can be searched for it. "
        f"Write one or several neighbouring words, or one style cue ({', '.join([*WORD_CUES, *SIGN_CUES])})."
    )
