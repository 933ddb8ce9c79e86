"""`hypothesis_card`: one partition per numbered hypothesis of a dataset, written by `evaluation_report`'s own step."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from hsae_dagster.core.evaluations import FILES, EvaluationRecord, Origin, Standing, compare
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import RETIRED, STATUS
from hsae_dagster.report import wording
from hsae_dagster.report.cards import escape_markdown
from hsae_dagster.report.page import asset_address, card_partition, dataset_of_card, link, run_address
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.outputs import StoredEvaluation, StoredInterpretations, StoredMatrix, StoredSelection

NAME = "hypothesis_card"

hypothesis_card = dg.AssetSpec(
    NAME,
    # Of all of them, as far as Dagster's graph can say; which evaluation a card is from stands on the card.
    deps=[dg.AssetDep("evaluation_report", partition_mapping=dg.AllPartitionMapping())],
    partitions_def=dg.DynamicPartitionsDefinition(name="hypotheses"),
    kinds={"report"},
    description="The claim, its evidence, its verdict and everything it came from: one card per hypothesis. Written "
    "when `evaluation_report` is materialized, marked *stale* when something it depends on changes without the "
    "rest. When an evaluation has fewer hypotheses, the surplus cards are *retired* and their partitions "
    "removed.",
)


def card_events(
    context: dg.AssetExecutionContext,
    project: Project,
    evaluation: StoredEvaluation,
    record: EvaluationRecord,
    status: str,
) -> Iterator[dg.AssetMaterialization]:
    """One event per hypothesis, and one per number that had a card and has none now; their partitions follow."""
    told, instance = evaluation.cards, context.instance
    shared = _Shared(instance, project, record, status)
    numbered = {card_partition(record.dataset, place): (place, row) for place, row in enumerate(record.hypotheses, 1)}
    keys = instance.get_dynamic_partitions(project.cards_name)
    present = {key for key in keys if dataset_of_card(key) == record.dataset}
    instance.add_dynamic_partitions(project.cards_name, list(numbered))
    for partition, (place, row) in numbered.items():
        yield dg.AssetMaterialization(
            project.key(NAME),
            partition=partition,
            metadata={"number": place, **_metadata(row, told[row["hypothesis_id"]], shared)},
            tags={"dagster/data_version": f"{row['hypothesis_id']}-{record.key}"},
        )
    for old in sorted(present - set(numbered)):
        yield dg.AssetMaterialization(project.key(NAME), partition=old, metadata=_retired(project, record))
        instance.delete_dynamic_partition(project.cards_name, old)


def card_links(project: Project, record: EvaluationRecord) -> dg.MarkdownMetadataValue:
    """A table of an evaluation's hypotheses, each claim a link to its card."""
    task = str(record.summary["task"])
    lines = ["| no. | claim | effect | Holm p | badge |", "|---|---|---|---|---|"]
    for place, row in enumerate(record.hypotheses, 1):
        address = _address(project, NAME, card_partition(record.dataset, place))
        effect = escape_markdown(wording.standing_effect(Standing.of(row), task))
        claim = link(wording.capitalised(wording.one_line(row["claim"])), address)
        p = wording.p_value(float("nan") if row["p_holm"] is None else row["p_holm"])
        lines.append(f"| {place} | {claim} | {effect} | {escape_markdown(p)} | {row['badge']} |")
    return dg.MetadataValue.md("\n".join(lines) if record.hypotheses else "There is no hypothesis.")


def _address(project: Project, asset: str, partition: str) -> str:
    return asset_address(project.key(asset).to_user_string(), partition)


def _retired(project: Project, record: EvaluationRecord) -> dict[str, Any]:
    return {
        STATUS: RETIRED,
        "badge": RETIRED,
        "why": "The last evaluation has no hypothesis of this number; earlier cards are in the event history.",
        "evaluation": dg.MetadataValue.md(
            link("the last evaluation", _address(project, "evaluation_report", record.dataset))
        ),
    }


class _Shared:
    """What all cards of an evaluation have in common, looked up once."""

    def __init__(self, instance: dg.DagsterInstance, project: Project, record: EvaluationRecord, status: str) -> None:
        self.project, self.record, self.status = project, record, status
        log = LineageLog(project.store)
        self.runs = {o.run_id: instance.has_run(o.run_id) for o in (*record.origins, record.evaluation)}
        self.task = str(record.summary["task"])
        self.previous = log.previous(record)
        before = [Standing.of(row) for row in self.previous.hypotheses] if self.previous else []
        changes = compare(before, [Standing.of(row) for row in record.hypotheses])
        self.changes = {change.standing.hypothesis_id: change for change in changes}
        places = {origin.asset: origin.place for origin in record.origins}
        readable = StoredInterpretations(log.store.at(places[StoredInterpretations.asset])).readable
        self.concepts = {concept.concept_id: concept for concept in reversed(readable)}
        self.selection: Mapping[str, Any] = StoredSelection(log.store.at(places[StoredSelection.asset])).summary
        self.judging: Mapping[str, Any] = StoredMatrix(log.store.at(places[StoredMatrix.asset])).summary

    def origin(self, origin: Origin) -> dg.MarkdownMetadataValue:
        """One result that the evaluation rests on, with links to where Dagster shows it."""
        run = f"run {origin.run_id[:8]}"
        # A run of other records (a moved results folder) has no page here, and a link that leads nowhere is worse.
        made = (
            link(run, run_address(origin.run_id))
            if self.runs[origin.run_id]
            else f"{escape_markdown(run)} of other records"
        )
        opened = link(
            f"{origin.asset} of {self.record.dataset}", _address(self.project, origin.asset, self.record.dataset)
        )
        return dg.MetadataValue.md(
            f"{opened}, data version `{origin.data_version[:12]}`, code version "
            f"{escape_markdown(origin.code_version)}, made {escape_markdown(wording.when(origin.created))} by {made}"
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
            f"{link(f'{FILES} of {record.dataset}', _address(shared.project, FILES, record.dataset))}, data version "
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
    found = shared.concepts.get(row["concept_id"])
    if found and found.made_from:
        # A claim that was chosen together with others, whatever the place of the neuron that says it.
        return f"claim {row['rank'] + 1} of those chosen together, adds {wording.percent(row['selection_score'])} of R²"
    method = wording.one_line(str(shared.selection.get("method", "selection")))
    score = row["selection_score"]
    scored = f", score {wording.number(score, 4, signed=True)}" if score is not None else ""
    return f"neuron {row['rank'] + 1} of those selected by {method}{scored}"


def _asked(row: Mapping[str, Any], shared: _Shared) -> dict[str, str]:
    """Who wrote the concept and who judged it, with which prompt, at what price."""
    found, told = shared.concepts.get(row["concept_id"]), {}
    if found:
        details = {key: value for key, value in found.said.details.items() if isinstance(value, str | int | float)}
        price = _price(found.calls, found.cost_usd, "")
        parts = [found.said.author, *(f"{key} {value}" for key, value in details.items()), *price]
        told["written by"] = wording.one_line(", ".join(parts))
        if "prompt" in details:
            told["what was asked for these words"] = f"hsae asked {row['hypothesis_id']}"
    judged = [str(shared.judging.get("model", "unknown"))]
    if prompt := shared.judging.get("prompt_hash"):
        judged.append(f"prompt {prompt}")
    told["judged by"] = wording.one_line(
        ", ".join([*judged, *_price(shared.judging.get("calls"), shared.judging.get("cost_usd"), " for all concepts")])
    )
    return told


def _price(calls: int | None, usd: float | None, what: str) -> list[str]:
    """Calls and their price where they are known."""
    if not calls:
        return [] if calls is None else ["no paid call"]
    return [f"{wording.count(calls)} paid calls{what}", *([] if usd is None else [f"{wording.number(usd, 4)} USD"])]


def _since(row: Mapping[str, Any], shared: _Shared) -> str:
    if shared.previous is None:
        return "This is the first evaluation."
    words = wording.change_words(shared.changes[row["hypothesis_id"]], shared.task)
    known = row.get("known_by") or {}
    if known.get("was"):
        words += f" Matched although its concept changed: its texts agree, φ {wording.number(known['phi'])}."
    return f"{words} (Evaluation {shared.record.number} against {shared.previous.number}.)"
