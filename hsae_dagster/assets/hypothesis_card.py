"""`hypothesis_card`: one partition per dataset and rank, written by `evaluation_report`'s own step."""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from hsae_dagster.assets.stage import GROUP
from hsae_dagster.partitions import card_partition, cards
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject

NAME = "hypothesis_card"

with warnings.catch_warnings():
    # The mapping is marked beta; the constraints file pins the version it was tried on.
    warnings.simplefilter("ignore", dg.BetaWarning)
    _FROM_EVALUATION = dg.AssetDep(
        "evaluation_report", partition_mapping=dg.MultiToSingleDimensionPartitionMapping("dataset")
    )

hypothesis_card = dg.AssetSpec(
    NAME,
    deps=[_FROM_EVALUATION],
    partitions_def=cards,
    group_name=GROUP,
    kinds={"report"},
    description="The claim, its evidence, its verdict and its keys: one card per hypothesis. "
    "Written when `evaluation_report` is materialized; a rank no longer used is shown as retired.",
)


def card_events(
    context: dg.AssetExecutionContext, stored: StoredObject, upstream: dict[str, StoredObject]
) -> Iterator[dg.AssetMaterialization]:
    """One event per hypothesis, and one per rank that had a card and has none now."""
    dataset = context.partition_key
    markdown = stored.json("_cards.json")
    used = set()
    for row in read_frame(stored.file("hypotheses.parquet")).iter_rows(named=True):
        partition = card_partition(dataset, row["rank"])
        used.add(str(partition))
        yield dg.AssetMaterialization(
            NAME,
            partition=partition,
            metadata=_metadata(row, markdown[row["hypothesis_id"]], stored, upstream),
            tags={"dagster/data_version": row["hypothesis_id"]},
        )
    written = context.instance.get_materialized_partitions(dg.AssetKey(NAME))
    for key in sorted(written):
        old = cards.get_partition_key_from_str(key)
        if old.keys_by_dimension["dataset"] == dataset and str(old) not in used:
            yield dg.AssetMaterialization(
                NAME, partition=old, metadata={"badge": "retired", "why": "the last evaluation has no such rank"}
            )


def _metadata(
    row: dict[str, Any], markdown: str, stored: StoredObject, upstream: dict[str, StoredObject]
) -> dict[str, Any]:
    # NaN is not JSON; what could not be estimated is left out.
    figures = {
        "effect": row["effect_estimate"],
        "effect low": row["effect_low"],
        "effect high": row["effect_high"],
        "Holm p": row["p_holm"],
        "fidelity F1": row["fidelity_f1"],
        "prevalence": row["prevalence"],
    }
    return {
        "claim": row["claim"],
        "badge": row["badge"],
        "card": dg.MetadataValue.md(markdown),
        **{name: float(f"{value:.4g}") for name, value in figures.items() if value == value},
        "hypothesis id": row["hypothesis_id"],
        "neuron": f"{row['sae_id']}/{row['sae_column']}",
        "evaluation": dg.MetadataValue.asset(dg.AssetKey("evaluation_report")),
        "autoencoders": dg.MetadataValue.asset(dg.AssetKey("sae_checkpoints")),
        "evaluation data version": stored.data_version,
        "upstream data versions": dg.MetadataValue.json({name: s.data_version for name, s in upstream.items()}),
    }
