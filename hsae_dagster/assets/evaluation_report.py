"""`evaluation_report`: effects, intervals, corrected tests, joint fit; as tables, figures and one page.

The same step writes the `hypothesis_card` events, one per hypothesis, so cards cost no runs of their own.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from hsae_dagster.assets.hypothesis_card import card_events, card_links
from hsae_dagster.core.concepts.fidelity import Fidelity
from hsae_dagster.core.hypothesis import Hypothesis, Twin
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.cluster_robust import Effect
from hsae_dagster.core.inference.joint_fit import read_ladder
from hsae_dagster.core.inference.plan import AnalysisPlan, Look
from hsae_dagster.core.selection.methods import METHODS
from hsae_dagster.core.selection.stability import rows_that_test
from hsae_dagster.dataset.discovery import files_fingerprint
from hsae_dagster.extensions import own_sources
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import (
    Stage,
    check_result,
    declared,
    explained,
    picture,
    sound,
    status_words,
    table,
)
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.page import OWN_SECTIONS, ladder_sentences, report_address
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.evaluation import UPSTREAM, Upstream, evaluate
from hsae_dagster.stages.gold import gold_hash
from hsae_dagster.stages.holdout import concepts_to_test, keep_look, open_look
from hsae_dagster.stages.publishing import Identity, exported_annotations, identify, publish
from hsae_dagster.storage.lineage import LineageLog, staleness
from hsae_dagster.storage.outputs import StoredEvaluation

NAME = "evaluation_report"
CODE_VERSION = "32"
# Of a twin, beside whether it agrees.
_TWIN_TEXTS, _TWIN_FIGURES = ("claim", "concept_id", "half", "test_key", "badge"), ("phi", "p_holm", "p_one_sided")
_ENDS = ("estimate", "low", "high")


@dg.asset(**declared(NAME, CODE_VERSION), deps=[kind.asset for kind in UPSTREAM], kinds={"statsmodels", "html"})
def evaluation_report(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Each hypothesis tested once on held-out clusters, and how much of the outcome they predict together."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        # Which results are current decides whether there is anything to do; the large ones are read only if there is.
        upstream = Upstream.current(stage)
        testing = concepts_to_test(stage.dataset, upstream.interpretations)
        plan, look = open_look(stage, upstream.corpus, testing, upstream.matrix)
        log = LineageLog(project.store)
        # What both halves found is one hypothesis.
        concepts = list({concept.concept_id: concept for concept in reversed(testing)}.values())[::-1]
        identities = identify(log, stage.dataset.name, concepts, upstream.matrix)
        config = {
            "dataset": stage.dataset.name,
            **spec.model_dump(mode="json"),
            "look": look.record,
            "identities": {concept: identity.hypothesis_id for concept, identity in identities.items()},
            "gold": gold_hash(stage.dataset.folder),
            # Labels are permuted and neurons selected again by the same method.
            **own_sources(spec, METHODS, OWN_SECTIONS),
        }
        found = stage.build(
            StoredEvaluation,
            config,
            upstream.outputs,
            lambda folder: _make(stage, upstream, plan, look, identities, folder),
        )
        keep_look(stage, plan, found)
        summary = found.summary
        verdicts = _check(found.hypotheses, upstream.matrix.observations)
        page = project.results / "reports" / f"{stage.dataset.name}.html"
        described = _describe(found, page)
        if sound(verdicts):
            record, page = publish(log, stage.dataset, found, identities, project.key(NAME).to_user_string())
            stage.report(f"{summary['confirmed']} of {summary['tested']} hypotheses confirmed; report: {page}")
            reasons = staleness(project.store, record, files_fingerprint(stage.dataset))
            for event in card_events(context, project, found, record, status_words(reasons)):
                context.log_event(event)
            first = {
                "open the report": dg.MetadataValue.url(report_address(stage.dataset.name)),
                "cards": card_links(project, record),
            }
            described = first | described
            described["all evaluations"] = dg.MetadataValue.path(str(page.with_suffix("") / "index.html"))
        return stage.finish(found, described, verdicts)


def _make(
    stage: Stage,
    upstream: Upstream,
    plan: AnalysisPlan,
    look: Look,
    identities: Mapping[str, Identity],
    folder: Path,
) -> None:
    from hsae_dagster.report.cards import card_record, hypotheses_table
    from hsae_dagster.report.content import report_tables
    from hsae_dagster.report.page import Drawn, render_report

    for unread in (upstream.embeddings, upstream.checkpoints, upstream.activations, upstream.selected):
        stage.verify(unread)
    content = evaluate(stage, upstream, stage.context.run.run_id, plan, look, identities)
    annotations = exported_annotations(
        stage.dataset,
        upstream.corpus,
        upstream.interpretations,
        upstream.matrix,
        content.hypotheses,
        UnitCloseness.of(stage, upstream.corpus),
    )
    drawn = Drawn.of(content)
    StoredEvaluation.write(
        folder,
        plan={"fingerprint": plan.fingerprint, **plan.record},
        hypotheses=pl.DataFrame([_row(h) for h in content.hypotheses], schema=_schema()),
        fits=pl.DataFrame([asdict(fit) for fit in content.fits]),
        summary=_summarise(content),
        examples={h.hypothesis_id: asdict(h.evidence) for h in content.hypotheses},
        cards={h.hypothesis_id: card_record(h, content) for h in content.hypotheses},
        tables=report_tables(content),
        annotations=annotations,
        rows=hypotheses_table(content),
        forest=(drawn.forest.png, drawn.forest.alt),
        ladder=(drawn.ladder.png, drawn.ladder.alt),
        page=render_report(content, drawn).encode(),
    )


def _row(h: Hypothesis) -> dict[str, Any]:
    """Every figure and key."""
    test = h.test
    parts: dict[str, Any] = {"effect": test.separation, "fidelity": h.fidelity}
    parts |= {name: getattr(test, name) for name in ("adjusted", "partial", "plain", "rank", "worst")}
    return {
        **{f"{prefix}_{name}": value for prefix, part in parts.items() for name, value in vars(part).items()},
        **vars(test),
        **vars(h),
        **_twin_columns(h.twin),
        **_error_columns(h.annotation_error),
        "variance_inflation": test.inflation,
        "duplicates": [duplicate.concept_id for duplicate in h.duplicates],
        "flags": [flag.sentence for flag in test.flags],
        "flag_names": [flag.name for flag in test.flags],
    }


def _schema() -> dict[str, Any]:
    """Columns of the hypotheses, which a report without claims has, too; of a row nothing else is kept."""
    twin = [f"twin_{name}" for name in (*_TWIN_TEXTS, *_TWIN_FIGURES, *(f"effect_{end}" for end in _ENDS), "agrees")]
    named: tuple[tuple[Any, str], ...] = (
        (pl.String, "hypothesis_id claim badge reason concept_id sae_id decided_by half rule source test_key"),
        (pl.String, " ".join(twin[: len(_TWIN_TEXTS)])),
        (pl.Boolean, twin[-1]),
        (pl.List(pl.String), "duplicates flags flag_names"),
        (pl.Float64, "selection_score train_separation missing p_one_sided p_holm q_value detectable stability"),
        (pl.Float64, "rank_estimate rank_low rank_high rank_p_value worst_estimate worst_p_value variance_inflation"),
        (pl.Float64, f"prevalence {' '.join(_error_columns(None))} {' '.join(twin[len(_TWIN_TEXTS) : -1])}"),
        (pl.Int64, "rank sae_column gold_labels n n_with n_clusters"),
    )
    schema = {name: kind for kind, names in named for name in names.split()}
    types: dict[Any, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String}
    groups = [(prefix, Effect) for prefix in ("effect", "adjusted", "partial", "plain")] + [("fidelity", Fidelity)]
    for prefix, kind in groups:
        schema |= {f"{prefix}_{part.name}": types[part.type] for part in fields(kind) if part.type in types}
    return schema


def _twin_columns(twin: Twin | None) -> dict[str, str | float | bool | None]:
    """What came of the other half's claim of the same meaning; empty where there is none."""
    columns: dict[str, str | float | bool | None] = {f"twin_{k}": getattr(twin, k) if twin else "" for k in _TWIN_TEXTS}
    columns |= {f"twin_{k}": getattr(twin, k) if twin else None for k in (*_TWIN_FIGURES, "agrees")}
    return columns | {f"twin_effect_{k}": getattr(twin.effect, k) if twin else None for k in _ENDS}


def _error_columns(error: AnnotationError | None) -> dict[str, float | int | None]:
    """Naive and corrected side by side: what labels by people made of the effect."""
    found = error.corrected if error else None
    low, high = error.band if error else (None, None)
    columns: dict[str, float | int | None] = {"band_low": low, "band_high": high}
    for name in ("estimate", "standard_error", "low", "high", "p_value"):
        columns[f"corrected_{name}"] = getattr(found.corrected, name) if found else None
    for prefix, own, judged in (("gold", found, "labels"), ("probe", error.distilled if error else None, "judged")):
        columns[f"{prefix}_{judged}"] = own.n_gold if own else None
        for name in ("omega", "sensitivity", "false_positive_rate", "kappa"):
            columns[f"{prefix}_{name}"] = getattr(own, name) if own else None
    return columns


def _summarise(content: ReportContent) -> dict[str, Any]:
    fits = {fit.name: fit.value for fit in content.fits}
    return {
        "tested": len(content.hypotheses),
        "confirmed": content.confirmed,
        "bonferroni": content.bonferroni,
        "unreadable": len(content.unreadable),
        "metric": content.fits[0].metric,
        "fits": fits,
        "floor": list(content.floor),
        "reading": " ".join(ladder_sentences(read_ladder(content.fits, content.floor), content.sizes)),
        "outcome": content.outcome,
        "task": content.task,
        "alpha": content.alpha,
        "versions": dict(content.versions),
        "look": content.look.number,
        "round": content.round,
        "family": content.family,
        "plan": content.look.plan,
        "negative_controls": [
            {name: value for name, value in asdict(control).items() if name != "any_in_run"}
            for control in content.negative_controls
        ],
    }


def _describe(found: StoredEvaluation, page: Path) -> dict[str, Any]:
    summary = found.summary
    fits = [{"predictors": name, summary["metric"]: round(value, 4)} for name, value in summary["fits"].items()]
    return {
        "confirmed": summary["confirmed"],
        "below Bonferroni": summary["bonferroni"],
        "without a readable concept": summary["unreadable"],
        "look at this holdout": summary["look"],
        "round": summary["round"],
        "family-wise error of this report": summary["alpha"],
        "tests in the family": summary["family"],
        "analysis plan": summary["plan"],
        **{
            f"false discoveries, {c['name']}": c["discoveries"]
            for c in summary["negative_controls"]
            if "permuted" in c["name"]
        },
        "report": dg.MetadataValue.path(str(page)),
        "hypotheses": table(found.rows),
        "effects": picture(*found.forest),
        "joint fit": table(
            [*fits, {"predictors": "floor (permuted)", summary["metric"]: round(summary["floor"][0], 4)}]
        ),
        "fit ladder": picture(*found.ladder),
        "where the signal is lost": summary["reading"],
    }


def _check(frame: pl.DataFrame, rows: pl.DataFrame) -> list[dg.AssetCheckResult]:
    held_out = {half: rows_that_test(rows, half).height for half in frame["half"].unique()}
    outside = sum(max(n - held_out[half], 0) for half, n in frame["half", "n"].iter_rows())
    untested = frame["effect_p_value"].is_nan().sum()
    confirmed = frame.filter(pl.col("badge") == "confirmed")
    conflicts = confirmed.filter(pl.col("effect_estimate") * pl.col("partial_estimate") < 0).height
    return [
        check_result(NAME, "tests_only_holdout", outside == 0, {"observations from other splits": outside}),
        check_result(NAME, "effects_estimable", untested == 0, {"could not be tested": int(untested)}),
        check_result(NAME, "signs_agree", conflicts == 0, {"confirmed with opposite signs": conflicts}),
    ]
