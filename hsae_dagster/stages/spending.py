"""What a stage may spend, will spend and has spent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import column
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.base import AnnotationTask, Annotator, InterpretationRequest, Interpreter, Labelled
from hsae_dagster.providers.spending import Account, Estimate, Ledger, total
from hsae_dagster.stages.judging import Split, examination, sample_to_read, second_judge, second_rows

ORDINARY = "mentions something that many texts of this kind mention, number {}"


def open_account(
    project: Project, dataset: Dataset, asset: str, run_id: str, selection: tuple[str, ...] | None = None
) -> Account:
    """The account on which a stage of a dataset asks paid models."""
    spending = dataset.spec.spending
    return Account(
        Ledger(project.results),
        dataset.name,
        asset,
        run_id,
        budget_usd=spending.budget_usd,
        budget_calls=spending.budget_calls,
        tier=spending.tier,
        selection=selection,
        environment=project.model_server.environment,
    )


def account_of(stage: Stage) -> Account:
    """The account of a stage at work."""
    selected = stage.context.job_def.asset_layer.selected_asset_keys
    names = tuple(sorted(key.to_user_string() for key in selected))
    return open_account(stage.project, stage.dataset, stage.asset, stage.context.run.run_id, names)


def asks_a_server(model: str) -> bool:
    """Whether a model of dataset.yaml is at a server, where it may be paid for and shared."""
    return model.startswith("openai:")


def announce(stage: Stage, account: Account, estimate: Estimate) -> None:
    """Say before the first request what the stage will take, and whether its budget allows it."""
    if not estimate.calls and not estimate.known:
        return
    stage.report(f"the whole stage will take {estimate}")
    spent = account.ledger.spent(account.dataset)
    short = []
    if account.budget_calls is not None and spent.calls + estimate.calls > account.budget_calls:
        short.append(f"budget_calls {account.budget_calls:,} ({spent.calls:,} made)")
    if account.budget_usd is not None and estimate.usd is not None and spent.usd + estimate.usd > account.budget_usd:
        short.append(f"budget_usd ${account.budget_usd:,.2f} (${spent.usd:,.4f} spent)")
    if short:
        stage.report(f"that is more than is left of {' and '.join(short)}: the stage will stop before passing it")


def account_summary(account: Account, estimate: Estimate) -> dict[str, Any]:
    """What a stage's answers were estimated to take, took in this run, and took in all."""
    totals, rests_on = account.totals, total(account.totals.costs.values())
    return {
        "estimated calls": estimate.calls,
        "estimated cost USD": None if estimate.usd is None else round(estimate.usd, 6),
        "estimated minutes": round(estimate.minutes, 1),
        "paid calls": totals.calls,
        "calls at their worst price": totals.uncounted,
        "failed calls": totals.failed,
        "answers from the ledger": max(rests_on.calls - totals.calls + totals.failed, 0),
        "tokens in": totals.usage.input,
        "tokens out": totals.usage.output,
        "cost USD": round(totals.usd, 6) if not rests_on.unpriced else None,
        "cost USD whenever paid": rests_on.usd if not rests_on.unpriced else None,
    }


def estimate_interpretation(
    interpreter: Interpreter,
    annotator: Annotator,
    request: InterpretationRequest,
    splits: Mapping[str, Split],
    spec: DatasetSpec,
) -> Estimate:
    """Writing candidates, revising and scoring them, the judge examined before each; of training texts and others."""
    settings = spec.interpretation
    estimate = interpreter.estimate(request)
    if settings.revisions:
        estimate += interpreter.estimate_revisions(request).scaled(settings.revisions)
    if annotator.free:
        return estimate
    judged = [("validation", settings.candidates, 0), ("fidelity", 1, 0)]
    judged += [(name, 1, 1 + n) for n in range(settings.revisions) for name in ("train", "validation")]
    for name, concepts, draw in judged:
        split = splits[name]
        rows = [
            sample_to_read(settings, split, j, column(split.codes, j), bounds, draw if name == "train" else 0).rows
            for j, bounds in enumerate(request.bounds)
        ]
        tasks = [
            # Two neurons hardly ever have the same concept, and only equal requests are asked once.
            AnnotationTask(ordinary(concepts, of=f"{name} {j} {draw}"), [split.texts[i] for i in picked])
            for j, picked in enumerate(rows)
        ]
        estimate += annotator.estimate(tasks)
        estimate += _examination(annotator, [text for task in tasks for text in task.texts], spec)
    return estimate


def _examination(annotator: Annotator, texts: Sequence[str], spec: DatasetSpec) -> Estimate:
    if annotator.free or not texts or not spec.judge.texts:
        return Estimate()
    return annotator.estimate([examination(texts, spec.judge.texts)[1]])


def estimate_annotation(
    annotator: Annotator,
    concepts: Sequence[Concept],
    texts: Sequence[str],
    spec: DatasetSpec,
    account: Account,
    examples: Labelled | None = None,
) -> Estimate:
    """The judge examined, judging concepts on texts, the same by a second model, and stacked beside single ones."""
    from hsae_dagster.providers.registry import make_annotator

    settings, second = spec.annotation, second_judge(spec)
    estimate = annotator.estimate([AnnotationTask(concepts, texts)])
    if concepts:
        estimate += _examination(annotator, texts, spec)
    if second is not None and texts:
        task = AnnotationTask(concepts, [texts[row] for row in second_rows(spec, len(texts))])
        estimate += make_annotator(second, account, asks=False, examples=examples).estimate([task])
    if annotator.free or min(settings.concepts_per_call, len(concepts)) < 2 or not texts:
        return estimate
    pairs = min(settings.calibration, len(texts) * len(concepts))
    rows = np.random.default_rng([settings.seed, 1]).integers(len(texts), size=pairs)
    alone = settings.model_copy(update={"concepts_per_call": 1})
    single = make_annotator(alone, account, asks=False, examples=examples)
    return estimate + single.estimate([AnnotationTask(ordinary(1), [texts[row]]) for row in set(rows.tolist())]).scaled(
        pairs / max(len(set(rows.tolist())), 1)
    )


def ordinary(count: int, of: str = "all") -> list[Concept]:
    """As many concepts as may come, of ordinary length."""
    return [Concept(ORDINARY.format(f"{number} of {of}"), "estimate") for number in range(count)]
