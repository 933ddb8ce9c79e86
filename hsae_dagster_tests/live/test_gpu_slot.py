"""The GPU slot, with real runs in real processes: one holder at a time, and free again after `kill -9`."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import TagType, get_tag_type
from dagster._core.utils import make_new_run_id

from hsae_dagster.orchestration.executors import GPU_POOL, Worker, end_lost_runs, free_slots, lost_runs
from hsae_dagster_tests.live.processes import is_alive, lines, make_home, processes, wait_for


@pytest.mark.slow
def test_two_runs_never_hold_the_slot_together_and_a_killed_run_gives_it_back(tmp_path: Path) -> None:
    home, folder = make_home(tmp_path / "home"), tmp_path / "slot"
    folder.mkdir()

    def got(name: str) -> int:
        """Process of the step that has the slot, if it is this run's."""
        told = [line.split()[2] for line in lines(folder / "held") if line.startswith(f"got {name} ")]
        return int(told[0]) if told else 0

    environment = {"DAGSTER_HOME": str(home), "SLOT_FOLDER": str(folder)}
    with processes(folder, **environment) as running, dg.DagsterInstance.from_config(str(home)) as instance:

        def run_of(name: str) -> dg.DagsterRun:
            (run,) = instance.get_runs(dg.RunsFilter(tags={"name": name}))
            return run

        job = "-m", "hsae_dagster_tests.live.slot_job"
        first = running.python("first", *job, "first")
        step = wait_for("the first run has the slot", lambda: got("first"))
        assert step != first.pid  # the step has a process of its own, which must not outlive the run's
        others = {name: running.python(name, *job, name) for name in ("second", "third")}
        wait_for(
            "the others wait for the slot",
            lambda: all("blocked by limit for pool gpu" in running.log(name) for name in others),
        )
        assert not any(map(got, others))
        assert end_lost_runs(instance) == free_slots(instance) == []  # a living run is left alone

        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        wait_for("the killed run's step is gone too", lambda: not is_alive(step), ceiling=60)
        assert run_of("first").status is dg.DagsterRunStatus.STARTED  # nobody told Dagster
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_run_ids == {run_of("first").run_id}
        with dg.build_sensor_context(instance=instance) as context:
            lost_runs(context)  # what runs every 15 seconds
        assert run_of("first").status is dg.DagsterRunStatus.FAILURE

        # Both others waited from the start: now one has the slot, and the other only after it.
        winner = wait_for("another run has the slot", lambda: next((n for n in others if got(n)), ""))
        loser = next(name for name in others if name != winner)
        (folder / f"release {winner}").touch()
        wait_for("the last run has the slot", lambda: got(loser))
        (folder / f"release {loser}").touch()
        assert [others[name].wait(timeout=120) for name in others] == [0, 0]
        assert [line.rsplit(" ", 1)[0] for line in lines(folder / "held")] == [
            "got first",
            f"got {winner}",
            f"gave {winner}",
            f"got {loser}",
            f"gave {loser}",
        ]
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_run_ids == set()


def unfinished_run(instance: dg.DagsterInstance, worker: Worker | None, of_run: str = "") -> dg.DagsterRun:
    @dg.job
    def nothing() -> None: ...

    run_id = make_new_run_id()
    tags = worker.tags(of_run or run_id) if worker else {}
    run = instance.create_run_for_job(nothing, tags=tags, run_id=run_id)
    instance.report_dagster_event(
        dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name), run.run_id
    )
    return run


def test_only_runs_whose_process_is_certainly_gone_are_ended() -> None:
    here = Worker.here()
    ended = Worker(here.host, here.pid, here.started - 60)  # an earlier process of the same number
    elsewhere = Worker("another-machine", 1, 1.0)
    with dg.instance_for_test() as instance:
        runs = {
            name: unfinished_run(instance, *worker)
            for name, worker in {
                "ours": (here,),
                "ended": (ended,),
                "elsewhere": (elsewhere,),
                "unnamed": (None,),
                # Tried again: it has the tags of the run before it, whose process is gone.
                "inherited": (ended, make_new_run_id()),
            }.items()
        }
        assert end_lost_runs(instance) == [runs["ended"].run_id]
        for name, run in runs.items():
            known = instance.get_run_by_id(run.run_id)
            assert known is not None
            expected = dg.DagsterRunStatus.FAILURE if name == "ended" else dg.DagsterRunStatus.STARTED
            assert known.status is expected, name
        (told,) = [e for e in instance.all_logs(runs["ended"].run_id) if "was killed or crashed" in e.message]
        assert f"pid {here.pid}" in told.message


def test_a_worker_is_read_back_from_its_tag_which_the_ui_does_not_show() -> None:
    here = Worker.here()
    with dg.instance_for_test() as instance:
        run = unfinished_run(instance, here)
        known = Worker.of(run)
        assert known is not None
        assert (known.host, known.pid) == (here.host, here.pid)
        assert not known.is_gone()
        assert Worker.of(unfinished_run(instance, None)) is None
        (ours,) = [tag for tag in run.tags if "hsae" in tag]
        assert get_tag_type(ours) is TagType.HIDDEN
