"""Terminal and UI are one: a run of `hsae run` is the UI's own, and Ctrl-C ends it at once."""

import os
import signal
import time
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.orchestration.executors import GPU_POOL
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.live.dagster_ui import LOCATION, dagster_ui
from hsae_dagster_tests.live.processes import make_home, processes, wait_for

RUN = ("-m", "hsae_dagster", "run", "ratings")


def environment_of(workspace: Workspace, home: Path) -> dict[str, str]:
    return {"HSAE_HOME": str(workspace.root), "DAGSTER_HOME": str(home), "HSAE_EXECUTOR": "in_process"}


@pytest.mark.slow
def test_a_run_of_the_terminal_is_on_the_timeline_has_its_job_and_is_run_again_from_the_ui(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.declare("ratings", tiny_texts())
    with dagster_ui(tmp_path, workspace) as live:
        done = live.running.python("hsae", *RUN, **environment_of(workspace, tmp_path / "home"))
        assert done.wait(timeout=240) == 0, live.running.log("hsae")
        (run,) = live.runs()
        # What the timeline asks for: runs of a job of a repository of a location.
        label = {".dagster/repository": f"__repository__@{LOCATION}"}
        assert [each.run_id for each in live.instance.get_runs(dg.RunsFilter(tags=label))] == [run.run_id]
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { jobName status hasReExecutePermission
            repositoryOrigin { repositoryName repositoryLocationName } assetSelection { path } } } }"""
        seen = live.ask(query, id=run.run_id)["runOrError"]
        assert seen["repositoryOrigin"] == {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
        assert (seen["jobName"], seen["status"]) == ("analyse_dataset", "SUCCESS")
        assert {key["path"][-1] for key in seen["assetSelection"]} == set(NAMES)
        again = """mutation($p: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $p) {
            __typename ... on PythonError { message } ... on LaunchRunSuccess { run { runId } } } }"""
        answer = live.ask(again, p={"parentRunId": run.run_id, "strategy": "ALL_STEPS"})["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        wait_for("the run is run again", lambda: live.finished(2))
        assert [each.status for each in live.runs()] == [dg.DagsterRunStatus.SUCCESS] * 2
        assert {each.root_run_id for each in live.runs()} == {None, run.run_id}


@pytest.mark.slow
def test_ctrl_c_ends_a_wait_for_the_gpu_at_once_and_in_a_sentence(tmp_path: Path) -> None:
    workspace, home = Workspace(tmp_path / "project"), make_home(tmp_path / "home")
    workspace.declare("ratings", tiny_texts())
    # The pool of an executor that has a GPU somewhere; the command's steps run in its own process all the same.
    environment = environment_of(workspace, home) | {"HSAE_EXECUTOR": "ray"}
    with processes(tmp_path / "logs", **environment) as running, dg.DagsterInstance.from_config(str(home)) as instance:

        @dg.job
        def training() -> None: ...

        other = instance.create_run_for_job(training, tags={"dagster/partition": "headlines"})
        instance.event_log_storage.initialize_concurrency_limit_to_default(GPU_POOL)
        instance.event_log_storage.claim_concurrency_slot(GPU_POOL, other.run_id, "train")
        command = running.python("hsae", *RUN)
        said = f"waiting for another training step, run {other.run_id[:8]} of `headlines`"
        wait_for("it says what it waits for", lambda: said in running.log("hsae") or command.poll() is not None)
        assert command.poll() is None, running.log("hsae")
        pressed = time.monotonic()
        os.kill(command.pid, signal.SIGINT)
        assert command.wait(timeout=20) == 130
        assert time.monotonic() - pressed < 5
        log = running.log("hsae")
        assert log.rstrip().endswith("Stopped. Finished stages are kept; the same command goes on from there.")
        assert "Traceback" not in log and "Error" not in log
        (run,) = instance.get_runs(dg.RunsFilter(job_name="analyse_dataset"))
        assert run.status is dg.DagsterRunStatus.CANCELED
        pending = instance.event_log_storage.get_concurrency_info(GPU_POOL)
        assert pending.active_run_ids == {other.run_id} and not pending.pending_run_ids
