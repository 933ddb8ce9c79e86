"""A GPU step that no worker takes: said in the run's log and by a check, instead of silence for ever.

Belongs here: noticing such steps while a run is executed on Ray, Celery or Kubernetes. Does not belong here: which
steps need a GPU (`op_tags`), or waiting for a slot of the GPU pool, which Dagster logs itself.
"""

import logging
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from hsae_dagster import checks
from hsae_dagster.errors import HsaeError
from hsae_dagster.op_tags import DEVICE_TAG

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

CHECK = "a_worker_took_it"
_LOOK_SECONDS = 10.0


def patience() -> float:
    """Seconds after which a submitted GPU step without a worker is reported: HSAE_GPU_WAIT, else 120.

    Raises:
        HsaeError: the variable is no positive number.
    """
    value = os.environ.get("HSAE_GPU_WAIT", "120")
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise HsaeError(f"HSAE_GPU_WAIT is `{value}`. Set it to a number of seconds, or leave it out for 120.")
    return seconds


@contextmanager
def watching(context: "PlanOrchestrationContext", plan: "ExecutionPlan", executor: str, remedy: str) -> Iterator[None]:
    """While the block runs, report each GPU step that was submitted and is not started within `patience()` seconds."""
    planned = {key for key in plan.step_keys_to_execute if _asks_for_gpu(plan.get_step_by_key(key))}
    done = threading.Event()

    def watch() -> None:
        told: set[str] = set()
        limit = patience()
        while planned and not done.wait(min(_LOOK_SECONDS, limit / 4)):
            submitted, started = _progress(context.instance, context.run_id)
            now = time.time()
            for key in sorted(submitted.keys() - started - told):
                waited = now - submitted[key]
                if _as_planned(key) in planned and waited >= limit:
                    _report(context, key, waited, executor, remedy)
                    told.add(key)

    thread = threading.Thread(target=watch, name="gpu wait", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)


def _asks_for_gpu(step: Any) -> bool:
    return bool((step.tags or {}).get(DEVICE_TAG) == "gpu")


def _as_planned(key: str) -> str:
    """One of several steps, `sae_checkpoints.train[sae1_m64_k16]`, is planned as `sae_checkpoints.train[?]`."""
    return re.sub(r"\[.*\]$", "[?]", key)


def _asset_key(context: "PlanOrchestrationContext | dg.OpExecutionContext", step: str) -> dg.AssetKey:
    """The key, whatever its prefix, of the asset that a step belongs to."""
    job = context.job_def if isinstance(context, dg.OpExecutionContext) else context.job.get_definition()
    name = step.split(".")[0]
    return next(key for key in job.asset_layer.executable_asset_keys if key.path[-1] == name)


def _progress(instance: dg.DagsterInstance, run_id: str) -> tuple[dict[str, float], set[str]]:
    """When each step was handed to the executor's workers (by step), and the steps that one of them started."""
    kinds = {dg.DagsterEventType.STEP_WORKER_STARTING, dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.STEP_START}
    submitted: dict[str, float] = {}
    started = set()
    for entry in instance.all_logs(run_id, of_type=kinds):
        event, key = entry.dagster_event, entry.step_key
        if event is None or key is None:
            continue
        if event.event_type is dg.DagsterEventType.STEP_START:
            started.add(key)
        elif event.event_type is dg.DagsterEventType.STEP_WORKER_STARTING or "Submitting celery task" in entry.message:
            submitted.setdefault(key, entry.timestamp)
    return submitted, started


def _report(context: "PlanOrchestrationContext", key: str, waited: float, executor: str, remedy: str) -> None:
    dataset = context.dagster_run.tags.get("dagster/partition")
    sentence = (
        f"`{key}` of dataset `{dataset}` needs a GPU and was given to {executor} {waited:.0f} s ago, but no worker has "
        f"taken it. {remedy} It starts by itself as soon as there is one."
    )
    context.log.warning(sentence)
    where = {"seconds waited": round(waited, 1), "executor": executor, "dataset": dataset or ""}
    _say(context, key, passed=False, metadata=where, description=sentence)


def taken(context: dg.OpExecutionContext, device: str) -> None:
    """Says that a worker has this step, and where: the check's verdict by the step itself, as soon as it runs."""
    where = {"device": device, "visible GPUs": os.environ.get("CUDA_VISIBLE_DEVICES", "all"), "host": platform.node()}
    _say(context, context.get_step_execution_context().step.key, passed=True, metadata=where)


def _say(
    context: "PlanOrchestrationContext | dg.OpExecutionContext",
    step: str,
    *,
    passed: bool,
    metadata: dict[str, Any],
    description: str | None = None,
) -> None:
    """The check's verdict as an event of the run, so that a step's own replaces the warning when a worker comes."""
    verdict = dg.AssetCheckEvaluation(
        asset_key=_asset_key(context, step),
        check_name=CHECK,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        blocking=False,
        metadata=metadata,
    )
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=context.job_name,
        step_key=step,
        event_specific_data=verdict,
        message=f"Asset check '{CHECK}' on '{step}' {'passed' if passed else 'did not pass'}.",
    )
    context.instance.report_dagster_event(event, context.run_id, log_level=logging.INFO if passed else logging.WARNING)


def were_taken(context: dg.OpExecutionContext, asset: str) -> dg.AssetCheckResult:
    """The check's last verdict in a run, when all of the asset's GPU steps are over: where they ran."""
    found: dict[str, list[str]] = {}
    for entry in context.instance.all_logs(context.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        verdict = entry.dagster_event.event_specific_data if entry.dagster_event else None
        if not isinstance(verdict, dg.AssetCheckEvaluation) or not verdict.passed or verdict.check_name != CHECK:
            continue
        for name, value in verdict.metadata.items():
            found.setdefault(name, []).append(str(value.value))
    where = {name: ", ".join(sorted(set(values))) for name, values in found.items()}
    return checks.result(asset, CHECK, True, where or {"device": "none: every autoencoder was there already"})
