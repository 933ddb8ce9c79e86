"""`hypothesis_card`: one partition per dataset and rank, written by `evaluation_report`'s own step."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from hsae_dagster.assets.card_status import RETIRED, STATUS, card_metadata
from hsae_dagster.assets.stage import GROUP
from hsae_dagster.core.comparison import Standing, compare
from hsae_dagster.core.lineage import FILES, EvaluationRecord, Origin
from hsae_dagster.partitions import card_partition, cards
from hsae_dagster.report.cards import escape_markdown
from hsae_dagster.report.changes import change_words, standing_effect
from hsae_dagster.report.links import asset_address, link, run_address, when
from hsae_dagster.report.wording import capitalised, count, number, one_line, percent
from hsae_dagster.storage.lineage import LineageLog
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
    description="The claim, its evidence, its verdict and everything it came from: one card per hypothesis. "
    "Written when `evaluation_report` is materialized, marked *stale* when something it rests on changes without the "
    "rest; a rank no longer used is shown as *retired*.",
)


def card_events(
    context: dg.AssetExecutionContext, stored: StoredObject, log: LineageLog, record: EvaluationRecord, status: str
) -> Iterator[dg.AssetMaterialization]:
    """One event per hypothesis, and one per rank that had a card and has none now."""
    told = stored.json("_cards.json")
    shared = _Shared(context.instance, log, record, status)
    used = set()
    for row in record.hypotheses:
        partition = card_partition(record.dataset, row["rank"])
        used.add(str(partition))
        yield dg.AssetMaterialization(
            NAME,
            partition=partition,
            metadata=_metadata(row, told[row["hypothesis_id"]], shared),
            tags={"dagster/data_version": f"{row['hypothesis_id']}-{record.key}"},
        )
    for key in sorted(context.instance.get_materialized_partitions(dg.AssetKey(NAME))):
        old = cards.get_partition_key_from_str(key)
        if old.keys_by_dimension["dataset"] != record.dataset or str(old) in used:
            continue
        # Told once: a rank that is retired already stays so.
        if card_metadata(context.instance, old).get("badge") != RETIRED:
            yield dg.AssetMaterialization(NAME, partition=old, metadata=_retired(record))


def card_links(record: EvaluationRecord) -> dg.MarkdownMetadataValue:
    """A list of an evaluation's hypotheses, each a link to its card."""
    task = str(record.summary["task"])
    lines = []
    for row in record.hypotheses:
        address = asset_address(NAME, str(card_partition(record.dataset, row["rank"])))
        effect = escape_markdown(standing_effect(Standing.of(row), task))
        lines.append(f"- {link(capitalised(one_line(row['claim'])), address)}: {row['badge']}, {effect}")
    return dg.MetadataValue.md("\n".join(lines) or "There is no hypothesis.")


def _retired(record: EvaluationRecord) -> dict[str, Any]:
    return {
        STATUS: RETIRED,
        "badge": RETIRED,
        "why": "The last evaluation has no hypothesis of this rank; its earlier cards are among the historical events.",
        "evaluation": dg.MetadataValue.md(
            link("the last evaluation", asset_address("evaluation_report", record.dataset))
        ),
    }


class _Shared:
    """What all cards of an evaluation have in common, looked up once."""

    def __init__(self, instance: dg.DagsterInstance, log: LineageLog, record: EvaluationRecord, status: str) -> None:
        self.record, self.status = record, status
        self.runs = {o.run_id: instance.has_run(o.run_id) for o in (*record.origins, record.evaluation)}
        self.task = str(record.summary["task"])
        self.previous = log.previous(record)
        before = [Standing.of(row) for row in self.previous.hypotheses] if self.previous else []
        changes = compare(before, [Standing.of(row) for row in record.hypotheses])
        self.changes = {change.standing.hypothesis_id: change for change in changes}
        self.concepts: dict[str, Mapping[str, Any]] = {}
        if origin := record.origin("interpretations"):
            for concept in log.store.at(origin.place).json("concepts.json"):
                if concept["concept"]:
                    self.concepts.setdefault(concept["concept"]["concept_id"], concept)
        self.selection: Mapping[str, Any] = {}
        if origin := record.origin("selected_neurons"):
            self.selection = log.store.at(origin.place).json("selection.json")
        self.judging: Mapping[str, Any] = {}
        if origin := record.origin("annotation_matrix"):
            judged = log.store.at(origin.place)
            self.judging = judged.json("summary.json")

    def origin(self, origin: Origin) -> dg.MarkdownMetadataValue:
        """One result that the evaluation rests on, with links to where Dagster shows it."""
        run = f"run {origin.run_id[:8]}"
        # A run of other records (a moved results folder) has no page here, and a link that leads nowhere is worse.
        made = (
            link(run, run_address(origin.run_id))
            if self.runs[origin.run_id]
            else f"{escape_markdown(run)} of other records"
        )
        opened = link(f"{origin.asset} of {self.record.dataset}", asset_address(origin.asset, self.record.dataset))
        return dg.MetadataValue.md(
            f"{opened}, data version `{origin.data_version[:12]}`, code version "
            f"{escape_markdown(origin.code_version)}, made {escape_markdown(when(origin.created))} by {made}"
        )


def _metadata(row: Mapping[str, Any], told: Mapping[str, str], shared: _Shared) -> dict[str, Any]:
    record = shared.record
    origins = {f"from {origin.asset}": shared.origin(origin) for origin in record.origins}
    return {
        "claim": told["claim"],
        "badge": row["badge"],
        "why this badge": told["reason"],
        STATUS: shared.status,
        "in words": told["words"],
        "tested on": told["tested"],
        "source": told["source"],
        "how much of its neuron it says": told["coverage"],
        "card": dg.MetadataValue.md(told["card"]),
        "since the last evaluation": _since(row, shared),
        "neuron": f"{row['sae_id']}/{row['sae_column']}" if row["sae_id"] else "none",
        "activations of the neuron": dg.MetadataValue.md(told["activations"]),
        "selected": _selected(row, shared),
        **_asked(row, shared),
        f"from {FILES}": dg.MetadataValue.md(
            f"{link(f'{FILES} of {record.dataset}', asset_address(FILES, record.dataset))}, data version "
            f"`{record.files[:12]}`"
        ),
        **origins,
        "evaluation": shared.origin(record.evaluation),
        "hypothesis id": row["hypothesis_id"],
        **_figures(row),
        "evaluation data version": record.evaluation.data_version,
        "upstream data versions": dg.MetadataValue.json(
            {FILES: record.files, **{origin.asset: origin.data_version for origin in record.origins}}
        ),
    }


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    # What could not be estimated is left out.
    figures = {
        "effect": row["effect_estimate"],
        "effect low": row["effect_low"],
        "effect high": row["effect_high"],
        "Holm p": row["p_holm"],
        "prevalence": row["prevalence"],
    }
    return {name: float(f"{value:.4g}") for name, value in figures.items() if value is not None}


def _selected(row: Mapping[str, Any], shared: _Shared) -> str:
    if "from" in (shared.concepts.get(row["concept_id"]) or {}):
        # A claim that was chosen together with others, whatever the rank of the neuron that says it.
        return f"claim {row['rank'] + 1} of those chosen together, adds {percent(row['selection_score'])} of R²"
    method = one_line(str(shared.selection.get("method", "selection")))
    score = row["selection_score"]
    scored = f", score {number(score, 4, signed=True)}" if score is not None else ""
    return f"rank {row['rank'] + 1} by {method}{scored}"


def _asked(row: Mapping[str, Any], shared: _Shared) -> dict[str, str]:
    """Who wrote the concept and who judged it, with which prompt, at what price."""
    record = shared.concepts.get(row["concept_id"]) or {}
    concept, told = record.get("concept"), {}
    if concept:
        details = {key: value for key, value in concept["details"].items() if isinstance(value, str | int | float)}
        parts = [concept["author"], *(f"{key} {value}" for key, value in details.items()), *_price(record, "")]
        told["written by"] = one_line(", ".join(parts))
        if "prompt" in details:
            told["what was asked for these words"] = f"hsae asked {row['hypothesis_id']}"
    judged = [str(shared.judging.get("model", "unknown"))]
    if prompt := shared.judging.get("prompt_hash"):
        judged.append(f"prompt {prompt}")
    told["judged by"] = one_line(", ".join([*judged, *_price(shared.judging, " for all concepts")]))
    return told


def _price(record: Mapping[str, Any], what: str) -> list[str]:
    """Calls and their price where a record tells them."""
    parts = []
    if record.get("calls") is not None:
        parts.append(f"{count(record['calls'])} paid calls{what}" if record["calls"] else "no paid call")
    if record.get("calls") and record.get("cost_usd") is not None:
        parts.append(f"{number(record['cost_usd'], 4)} USD")
    return parts


def _since(row: Mapping[str, Any], shared: _Shared) -> str:
    if shared.previous is None:
        return "This is the first evaluation."
    words = change_words(shared.changes[row["hypothesis_id"]], shared.task)
    known = row.get("known_by") or {}
    if known.get("was"):
        signs = (("correlation", "its texts agree, φ"), ("cosine", "its neuron points the same way, cosine"))
        found = [f"{sign} {number(known[name])}" for name, sign in signs if known.get(name) is not None]
        words += f" Known again though its concept changed: {'; '.join(found)}."
    return f"{words} (Evaluation {shared.record.number} against {shared.previous.number}.)"
