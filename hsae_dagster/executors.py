"""How the steps of a run are executed, chosen by one setting: HSAE_EXECUTOR.

Belongs here: executor definitions and their limits. Does not belong here: which steps need a GPU (`op_tags`).

Every executor is wrapped, so that a run names the process that executes it (`workers`). The libraries of Ray and
Kubernetes are extras, imported only when chosen.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.execution.retries import RetryMode

from hsae_dagster.errors import HsaeError
from hsae_dagster.op_tags import DEVICE_TAG, GPU_OP_TAGS
from hsae_dagster.workers import Worker

# Imported once in the fork server, so that each step starts in milliseconds instead of seconds. LanceDB is not
# fork-safe and torch must not touch CUDA before the fork, so neither is in this list.
PRELOADED_MODULES = ["hsae_dagster.definitions", "numpy", "scipy.sparse", "polars"]

# What a step elsewhere must know. Names without a value here are left out.
PASSED_ON = [
    "DAGSTER_HOME",
    "HSAE_HOME",
    "HSAE_DATA_DIR",
    "HSAE_RESULTS_DIR",
    "HSAE_EXECUTOR",
    "HSAE_UI_URL",
    "HSAE_DAGSTER_URL",
    "HSAE_REPORTS_URL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
]


def choose_executor() -> dg.ExecutorDefinition:
    """The executor named by HSAE_EXECUTOR: `multiprocess` (default), `in_process`, `ray` or `k8s`.

    Raises:
        HsaeError: the variable names another, or the library of the one it names is not installed.
    """
    name = os.environ.get("HSAE_EXECUTOR", "multiprocess")
    makers: dict[str, Callable[[], dg.ExecutorDefinition]] = {
        "multiprocess": _multiprocess,
        "in_process": lambda: _wrapped(dg.in_process_executor),
        "ray": _ray,
        "k8s": _k8s,
    }
    if name not in makers:
        known = ", ".join(f"`{known}`" for known in makers)
        raise HsaeError(f"HSAE_EXECUTOR is `{name}`. Set it to one of {known}, or leave it out.")
    try:
        return makers[name]()
    except ModuleNotFoundError as error:
        raise HsaeError(
            f"HSAE_EXECUTOR is `{name}`, but {error.name} is not installed. "
            f"Install it with `pip install -e '.[{name}]'` here and on every worker."
        ) from error


def terminal_executor() -> dg.ExecutorDefinition:
    """Steps in the process of a command: whoever presses Ctrl-C there has cancelled the run."""
    return _wrapped(dg.in_process_executor, terminal=True)


def _multiprocess() -> dg.ExecutorDefinition:
    return _wrapped(dg.multiprocess_executor).configured(
        {
            "max_concurrent": 2,
            "start_method": {"forkserver": {"preload_modules": PRELOADED_MODULES}},
            "tag_concurrency_limits": [{"key": DEVICE_TAG, "value": GPU_OP_TAGS[DEVICE_TAG], "limit": 1}],
        }
    )


def _ray() -> dg.ExecutorDefinition:
    from dagster_ray import ray_executor

    # No num_cpus, num_gpus or resources here: an executor's own would win over each step's tags.
    config: dict[str, Any] = {"env_vars": [name for name in PASSED_ON if os.environ.get(name)]}
    if os.environ.get("RAY_ADDRESS"):
        config["address"] = os.environ["RAY_ADDRESS"]
    return _wrapped(ray_executor).configured({"ray": config})


def _k8s() -> dg.ExecutorDefinition:
    from dagster_k8s import k8s_job_executor

    return _wrapped(k8s_job_executor)


def _wrapped(definition: dg.ExecutorDefinition, *, terminal: bool = False) -> dg.ExecutorDefinition:
    """The same executor with our attention to it."""
    here = definition is dg.in_process_executor

    def create(init_context: dg.InitExecutorContext) -> dg.Executor:
        make = definition.executor_creation_fn
        assert make is not None
        return _Attended(make(init_context), here=here, terminal=terminal)

    return dg.ExecutorDefinition(
        name=definition.name,
        config_schema=definition.config_schema,  # type: ignore[arg-type]
        requirements=definition._requirements_fn,
        executor_creation_fn=create,
        description=definition.description,
    )


class _Attended(dg.Executor):
    """Runs another executor: names the process beforehand, and heeds interrupts meanwhile."""

    def __init__(self, inner: dg.Executor, *, here: bool = False, terminal: bool = False) -> None:
        self._inner, self._here, self._terminal = inner, here, terminal

    @property
    def retries(self) -> RetryMode:
        return self._inner.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, Worker.here().tags(plan_context.run_id))
        events = self._inner.execute(plan_context, execution_plan)
        try:
            yield from _interruptible(events) if self._here else events
        except DagsterExecutionInterruptedError:
            if self._terminal:  # or Dagster would call it a failure, and try it again
                plan_context.instance.report_run_canceling(plan_context.dagster_run)
            raise


def is_blocked(event: dg.DagsterEvent) -> bool:
    """Whether a step waits for a slot of its pool."""
    return event.is_engine_event and "blocked by limit for pool" in (event.message or "")


def _interruptible(events: Iterator[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    """The same events; while a step waits for its pool, an interrupt is heeded at once.

    Dagster's in-process executor heeds interrupts within steps only, and is deaf as long as none can start.
    """
    waits = False
    while True:
        with raise_execution_interrupts() if waits else nullcontext():
            event = next(events, None)
        if event is None:
            return
        waits = is_blocked(event)
        yield event
