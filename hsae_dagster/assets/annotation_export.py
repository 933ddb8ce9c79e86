"""The annotations of an evaluation as a table for people who compute on.

Belongs here: reading what was judged and what made it hold. Does not belong here: the table's form
(`report.annotation_table`), where it is published (`assets.publishing`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from hsae_dagster.assets.concepts_to_test import concepts_to_test
from hsae_dagster.assets.distilling import read_distilled
from hsae_dagster.core.concepts.claims import Closeness, meaning_of
from hsae_dagster.core.concepts.reasons import reasons
from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.report.annotation_table import Answers, annotation_table
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject

FILE = "annotations.parquet"


def exported_annotations(
    dataset: Dataset,
    upstream: Mapping[str, StoredObject],
    hypotheses: Sequence[Hypothesis],
    closeness: Closeness | None,
) -> pl.DataFrame:
    """One row per held-out observation, two columns per tested hypothesis, in the order of the report.

    Where a probe judged texts that the model was not asked about, `judged_by` says which those are.

    Args:
        dataset: whose evaluation it is.
        upstream: corpus, interpretations and annotation_matrix of the evaluation.
        hypotheses: as reported.
        closeness: of units with quoted sentences.
    """
    matrix = upstream["annotation_matrix"]
    judged = read_frame(matrix.file("annotations.parquet"))
    texts = read_frame(upstream["corpus"].file("texts.parquet")).select("text_id", "text")
    texts = judged.select("text_id").join(texts, on="text_id", how="left", maintain_order="left")
    definitions = {
        record["concept"]["concept_id"]: record["concept"]["definition"]
        for record in concepts_to_test(dataset, upstream["interpretations"])
    }
    keys = [h.concept_id for h in hypotheses]
    holds = np.empty((judged.height, len(keys)), dtype=np.int8)
    for j, key in enumerate(keys):
        holds[:, j] = judged[key].cast(pl.Int8).fill_null(-1).to_numpy()
    meanings = [meaning_of(definitions[key]) if definitions.get(key) else None for key in keys]
    because = reasons(meanings, texts["text"].to_list(), holds == 1, closeness)
    observations = read_frame(matrix.file("observations.parquet"))
    claims = [(h.claim, h.title or h.claim) for h in hypotheses]
    table = annotation_table(observations, Answers(texts["text_id"].to_list(), holds, because), claims)
    distilled = read_distilled(matrix)
    if distilled is None:
        return table
    who = pl.when(pl.col("probability").is_null()).then(pl.lit("probe")).otherwise(pl.lit("model"))
    judged_by = distilled.select("text_id", judged_by=who)
    return table.join(judged_by, on="text_id", how="left", maintain_order="left")
