"""How the steps of a run are executed, chosen by one setting (HSAE_EXECUTOR); runs that died without saying so."""

import multiprocessing
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.retries import RetryMode

from hsae_dagster.errors import HsaeError

GPU_POOL = "gpu"
LLM_POOL = "llm"
DEVICE_TAG = "hsae/device"

GPU_OP_TAGS: dict[str, Any] = {
    DEVICE_TAG: "gpu",
    "dagster-ray/config": '{"num_gpus": 1, "num_cpus": 1}',
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
}

# Told by the driver, without torch, which takes seconds to import: NVIDIA, and AMD.
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def gpu_pool() -> str | None:
    """The pool of steps that train, or None where steps run on this machine and it has no GPU to wait for."""
    elsewhere = os.environ.get("HSAE_EXECUTOR", "") in ("ray", "k8s")
    return GPU_POOL if elsewhere or _has_gpu() else None


def llm_pool() -> str | None:
    """The pool of steps that may ask a model, or None where no server is named that could be asked too often."""
    return LLM_POOL if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL") else None


def _has_gpu() -> bool:
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return not hidden and any(path.exists() for path in _GPU_DEVICES)


# Below `.dagster/`, where Dagster keeps its own bookkeeping, which the UI does not show.
WORKER_TAG = ".dagster/hsae_worker"
# A process' start is known to the clock tick, and clocks are adjusted.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class Worker:
    """A process, named so that a later one with the same number is told from it."""

    host: str
    pid: int
    started: float

    @staticmethod
    def here() -> "Worker":
        """This process."""
        return Worker(platform.node(), os.getpid(), psutil.Process().create_time())

    @staticmethod
    def of(run: dg.DagsterRun) -> "Worker | None":
        """The process that a run's tags name; None without, or where a run tried again inherits those of the first."""
        try:
            run_id, host, pid, started = run.tags.get(WORKER_TAG, "").split(" ", 3)
            return Worker(host, int(pid), float(started)) if run_id == run.run_id else None
        except ValueError:
            return None

    def tags(self, run_id: str) -> dict[str, str]:
        """The tag that names this process as the one of a run."""
        return {WORKER_TAG: f"{run_id} {self.host} {self.pid} {self.started:.2f}"}

    @property
    def is_local(self) -> bool:
        """Whether it runs, or ran, on this machine; of other machines nothing can be said here."""
        return self.host == platform.node()

    def is_gone(self) -> bool:
        """Whether it was a process of this machine and has ended."""
        if not self.is_local:
            return False
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return ended or abs(process.create_time() - self.started) > _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return True


def end_with_worker(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let this step process end as soon as the process of its run does.

    Without it a step goes on after `kill -9` of its run, on a GPU that another run is given meanwhile. Steps that run
    in the run's own process, or on another machine, are left alone. What the step had finished is kept.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    # Asked of the records: the step's own copy of the run may be older than the tag.
    run = instance.get_run_by_id(run_id)
    worker = Worker.of(run) if run else None
    if worker is None or not worker.is_local or parent.pid != worker.pid:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)  # no clean-up that could hang: everything is written aside and published whole

    threading.Thread(target=wait, name="end with worker", daemon=True).start()


# Imported once in the fork server, so that each step starts in milliseconds instead of seconds. LanceDB is not
# fork-safe and torch must not touch CUDA before the fork, so neither is in this list.
PRELOADED_MODULES = ["hsae_dagster.definitions", "numpy", "scipy.sparse", "polars"]

# What a step elsewhere must know. Names without a value here are left out.
PASSED_ON = [
    "DAGSTER_HOME",
    "HSAE_HOME",
    "HSAE_DATA_DIR",
    "HSAE_RESULTS_DIR",
    "HSAE_STORE",
    "HSAE_RECORDS",
    *(f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION")),
    *(f"AWS_{name}" for name in ("ENDPOINT_URL", "ALLOW_HTTP")),
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
    try:
        if name == "multiprocess":
            return _wrapped(dg.multiprocess_executor).configured(
                {
                    "max_concurrent": 2,
                    "start_method": {"forkserver": {"preload_modules": PRELOADED_MODULES}},
                    "tag_concurrency_limits": [{"key": DEVICE_TAG, "value": GPU_OP_TAGS[DEVICE_TAG], "limit": 1}],
                }
            )
        if name == "in_process":
            return _wrapped(dg.in_process_executor)
        if name == "ray":
            from dagster_ray import ray_executor

            # No num_cpus, num_gpus or resources here: an executor's own would win over each step's tags.
            config: dict[str, Any] = {"env_vars": [name for name in PASSED_ON if os.environ.get(name)]}
            if os.environ.get("RAY_ADDRESS"):
                config["address"] = os.environ["RAY_ADDRESS"]
            return _wrapped(ray_executor).configured({"ray": config})
        if name == "k8s":
            from dagster_k8s import k8s_job_executor

            return _wrapped(k8s_job_executor)
    except ModuleNotFoundError as error:
        raise HsaeError(
            f"HSAE_EXECUTOR is `{name}`, but {error.name} is not installed. "
            f"Install it with `pip install -e '.[{name}]'` here and on every worker."
        ) from error
    known = "`multiprocess`, `in_process`, `ray`, `k8s`"
    raise HsaeError(f"HSAE_EXECUTOR is `{name}`. Set it to one of {known}, or leave it out.")


def terminal_executor() -> dg.ExecutorDefinition:
    """Steps in the process of whoever waits for them: who interrupts it has cancelled the run."""
    return _wrapped(dg.in_process_executor, terminal=True)


def _wrapped(definition: dg.ExecutorDefinition, *, terminal: bool = False) -> dg.ExecutorDefinition:
    """The same executor with our attention to it."""
    make = definition.executor_creation_fn
    assert make is not None

    def create(init_context: dg.InitExecutorContext) -> dg.Executor:
        return _Attended(make(init_context), here=definition is dg.in_process_executor, terminal=terminal)

    return dg.ExecutorDefinition(
        name=definition.name,
        config_schema=definition.config_schema,  # type: ignore[arg-type]
        requirements=definition._requirements_fn,
        executor_creation_fn=create,
        description=definition.description,
    )


class _Attended(dg.Executor):
    """Runs another executor: names the process beforehand, and heeds interrupts meanwhile."""

    def __init__(self, inner: dg.Executor, *, here: bool, terminal: bool) -> None:
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


UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs as failed if their process on this machine is gone, and frees pool slots of ended runs.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Marks runs failed whose process on this machine is gone, and frees the GPU slots of ended runs. Costs nothing."""
    lost = end_lost_runs(context.instance)
    freed = free_slots(context.instance)
    for run_id in lost:
        context.log.warning(f"run {run_id} is marked as failed: its process is gone")
    for run_id in freed:
        context.log.warning(f"freed the pool slot of run {run_id}")
    return dg.SkipReason(f"{len(lost)} lost runs ended, the slots of {len(freed)} ended runs freed")


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed every run under way whose process was on this machine and is gone; their ids.

    Runs that name no process, or one on another machine, are not touched.
    """
    lost = []
    for run in instance.get_runs(RunsFilter(statuses=UNDER_WAY)):
        worker = Worker.of(run)
        if worker is None or not worker.is_gone():
            continue
        again = instance.get_run_by_id(run.run_id)
        if again is None or again.is_finished:  # it ended between the two looks
            continue
        instance.report_run_failed(
            run,
            f"The process that executed this run (pid {worker.pid} on {worker.host}) was killed or crashed. Finished "
            "stages are kept: when the dataset is materialized again it goes on from there.",
            # By which dagster.yaml has it tried once more.
            JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION),
        )
        lost.append(run.run_id)
    return lost


def free_slots(instance: dg.DagsterInstance) -> list[str]:
    """Free the pool slots of runs that are finished or deleted; ids of those that held any."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return []
    freed = []
    for run_id in sorted(storage.get_concurrency_run_ids()):
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
            freed.append(run_id)
    return freed
