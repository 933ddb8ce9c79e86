"""A GPU step that no worker takes: said in the run's log and by a check, instead of silence for ever.

Belongs here: noticing such steps while a run is executed on Ray, Celery or Kubernetes. Does not belong here: which
steps need a GPU (`op_tags`), or waiting for a slot of the GPU pool, which Dagster logs itself.
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from hsae_dagster import checks
from hsae_dagster.errors import HsaeError
from hsae_dagster.op_tags import DEVICE_TAG

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

CHECK = "a_worker_took_it"
_LOOK_SECONDS = 2.0


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
    keys = [key for key in plan.step_keys_to_execute if (plan.get_step_by_key(key).tags or {}).get(DEVICE_TAG) == "gpu"]
    done = threading.Event()

    def watch() -> None:
        waiting, limit = set(keys), patience()
        while waiting and not done.wait(min(_LOOK_SECONDS, limit)):
            submitted, started = _progress(context.instance, context.run_id)
            waiting -= started
            now = time.time()
            for key in sorted(key for key in waiting if now - submitted.get(key, now) >= limit):
                _report(context, key, now - submitted[key], executor, remedy)
                waiting.discard(key)

    thread = threading.Thread(target=watch, name="gpu wait", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)


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
    verdict = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(key),
        check_name=CHECK,
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence,
        blocking=False,
        metadata={"seconds waited": round(waited, 1), "executor": executor, "dataset": dataset or ""},
    )
    # As an event of the run, so that the step's own verdict replaces it when a worker comes.
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=context.job_name,
        step_key=key,
        event_specific_data=verdict,
        message=f"Asset check '{CHECK}' on '{key}' did not pass.",
    )
    context.instance.report_dagster_event(event, context.run_id, log_level=logging.WARNING)


def taken(asset: str, device: str) -> dg.AssetCheckResult:
    """The check's verdict by the step itself, which runs and so has a worker."""
    where = {"device": device, "visible GPUs": os.environ.get("CUDA_VISIBLE_DEVICES", "all"), "host": platform.node()}
    return checks.result(asset, CHECK, True, where)
