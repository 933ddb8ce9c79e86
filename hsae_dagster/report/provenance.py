"""The lineage of a hypothesis, for a terminal and as PROV-JSON.

Belongs here: putting a record into lines and into the terms of W3C PROV (https://www.w3.org/TR/prov-dm/, serialised as
https://www.w3.org/submissions/prov-json/). Does not belong here: keeping records (`storage.lineage`), Dagster's cards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hsae_dagster.core.comparison import Standing
from hsae_dagster.core.lineage import FILES, EvaluationRecord, Origin
from hsae_dagster.report.changes import standing_effect
from hsae_dagster.report.links import when
from hsae_dagster.report.wording import capitalised, one_line, plural

_Row = Mapping[str, Any]
_PREFIX = {"hsae": "urn:hsae:"}
# What a record keeps of a text beside a hypothesis: (role, text_id, text).
Quoted = tuple[str, str, str]


def lineage_lines(
    record: EvaluationRecord, hypothesis_id: str, history: Sequence[EvaluationRecord], quoted: Sequence[Quoted]
) -> Iterator[str]:
    """A hypothesis and everything it came from, from the claim down to the files; one line each.

    Args:
        record: the evaluation to walk.
        hypothesis_id: of one of its hypotheses.
        history: every evaluation that had it, oldest first.
        quoted: the texts on its card.
    """
    row = record.hypothesis(hypothesis_id)
    assert row is not None  # the caller found the record by it
    task = str(record.summary["task"])
    yield f"{hypothesis_id}  {capitalised(one_line(row['claim']))}"
    yield f"  {row['badge']}: {one_line(row['reason'])}"
    yield f"  effect {standing_effect(Standing.of(row), task)}, on {one_line(str(record.summary['outcome']))}"
    yield f"  concept {row['concept_id']}, neuron {row['sae_id']}/{row['sae_column']}, rank {row['rank'] + 1}"
    yield ""
    yield f"{record.dataset}, evaluation {record.number}, published {when(record.published)}, rests on:"
    for origin in (record.evaluation, *reversed(record.origins)):
        made = ", ".join(origin.upstream) or FILES
        yield (
            f"  {origin.asset:<18} {origin.data_version[:12]}  code {origin.code_version:<3} {when(origin.created)}  "
            f"run {origin.run_id[:8]}  from {made}"
        )
    yield f"  {FILES:<18} {record.files[:12]}"
    for sentence in record.mixed:
        yield f"  beware: {sentence}"
    if quoted:
        yield ""
        yield f"{plural(len(quoted), 'text')} on its card (see them with `hsae text <id>`):"
        for role, text_id, _ in quoted:
            yield f"  {role:<9} {text_id}"
    yield ""
    yield "Its evaluations:"
    for past in history:
        standing = Standing.of(past.hypothesis(hypothesis_id) or row)
        effect = standing_effect(standing, task)
        yield f"  {past.number:>3}  {when(past.published)}  {standing.badge:<13} {effect}  (report {past.key})"


def prov_document(
    record: EvaluationRecord, hypothesis_id: str, quoted: Sequence[Quoted], version: str
) -> dict[str, Any]:
    """The same as a PROV-JSON document; every name that it uses is declared in it.

    Args:
        record: the evaluation to walk.
        hypothesis_id: of one of its hypotheses.
        quoted: the texts on its card; their words do not enter, their keys do.
        version: of this package, the agent of every step.
    """
    row = record.hypothesis(hypothesis_id)
    assert row is not None
    document = _Prov(version)
    files = document.entity(
        f"files/{record.dataset}/{record.files}", {"prov:type": FILES, "hsae:dataset": record.dataset}
    )
    known = {origin.asset: document.result(origin) for origin in (*record.origins, record.evaluation)}
    for origin in (*record.origins, record.evaluation):
        used = [known[name] for name in origin.upstream if name in known] or [files]
        document.step(origin, known[origin.asset], used)
    general = document.entity(f"hypothesis/{hypothesis_id}", {"prov:type": "hypothesis"})
    found = document.entity(
        f"hypothesis/{hypothesis_id}/{record.key}",
        {
            "prov:type": "hypothesis as evaluated",
            "prov:label": one_line(row["claim"]),
            "hsae:badge": row["badge"],
            **{f"hsae:{name}": row[name] for name in ("concept_id", "sae_id", "sae_column", "rank")},
            **{
                f"hsae:{name}": row[name]
                for name in ("effect_estimate", "effect_low", "effect_high")
                if row[name] is not None
            },
        },
    )
    document.relate("specializationOf", {"prov:specificEntity": found, "prov:generalEntity": general})
    document.relate(
        "wasDerivedFrom", {"prov:generatedEntity": found, "prov:usedEntity": known[record.evaluation.asset]}
    )
    for role, text_id, _ in quoted:
        text = document.entity(f"text/{text_id}", {"prov:type": "text"})
        document.relate("wasDerivedFrom", {"prov:generatedEntity": text, "prov:usedEntity": known["corpus"]})
        document.relate("wasInfluencedBy", {"prov:influencee": found, "prov:influencer": text, "prov:role": role})
    return document.content


class _Prov:
    """A document that grows."""

    def __init__(self, version: str) -> None:
        self.content: dict[str, Any] = {"prefix": dict(_PREFIX), "entity": {}, "activity": {}, "agent": {}}
        self.agent = "hsae:software"
        self.content["agent"][self.agent] = {"prov:type": "prov:SoftwareAgent", "prov:label": f"hsae_dagster {version}"}

    def entity(self, name: str, facts: Mapping[str, Any]) -> str:
        self.content["entity"].setdefault(f"hsae:{name}", dict(facts))
        return f"hsae:{name}"

    def result(self, origin: Origin) -> str:
        return self.entity(
            f"result/{origin.asset}/{origin.data_version}",
            {"prov:type": origin.asset, "hsae:dataVersion": origin.data_version, "hsae:place": origin.place},
        )

    def step(self, origin: Origin, made: str, used: Sequence[str]) -> None:
        activity = f"hsae:run/{origin.run_id}/{origin.asset}"
        self.content["activity"][activity] = {
            "prov:type": origin.asset,
            "hsae:codeVersion": origin.code_version,
            "prov:endTime": origin.created,
        }
        self.relate("wasGeneratedBy", {"prov:entity": made, "prov:activity": activity, "prov:time": origin.created})
        self.relate("wasAssociatedWith", {"prov:activity": activity, "prov:agent": self.agent})
        for source in used:
            self.relate("used", {"prov:activity": activity, "prov:entity": source})
            self.relate("wasDerivedFrom", {"prov:generatedEntity": made, "prov:usedEntity": source})

    def relate(self, kind: str, fields: Mapping[str, Any]) -> None:
        known = self.content.setdefault(kind, {})
        known[f"_:{kind}{len(known) + 1}"] = dict(fields)
