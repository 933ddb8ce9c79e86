"""Runs whose process died without saying so, and the GPU slots they would keep for ever.

Belongs here: the sensor that finds and ends them. Does not belong here: how a process is named (`workers`).

Dagster's own run monitoring does not do this on one machine: its default launcher has no health check, a run started
from a terminal has no launcher at all, and a slot outlives its run.
"""

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.events import JobFailureData, RunFailureReason

from hsae_dagster.workers import Worker

UNDER_WAY = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs failed whose process on this machine is gone, and frees what ended runs hold of a pool.",
)
def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Marks runs failed whose process on this machine is gone, and frees the GPU slots of ended runs. Costs nothing."""
    lost = end_lost_runs(context.instance)
    freed = free_slots(context.instance)
    for run_id in lost:
        context.log.warning(f"run {run_id} is marked as failed: its process is gone")
    for run_id in freed:
        context.log.warning(f"freed what run {run_id} held of a pool")
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
