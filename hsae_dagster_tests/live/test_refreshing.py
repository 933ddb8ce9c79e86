"""A live `dg dev`: what arrives is found, what changed is run, and nothing else."""

from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.orchestration.project import DATASETS
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.live.dagster_ui import DagsterUI, dagster_ui
from hsae_dagster_tests.live.processes import wait_for
from hsae_dagster_tests.test_watching import STRICT, webhook

ALL = frozenset(NAMES)
# A change is asked for at the first tick that sees it, or one or two later when a run has just ended
# (`refresh_condition`), so what three ticks have left alone stays alone.
LOOKS = 3


def finished(live: DagsterUI, count: int) -> list[dg.DagsterRun]:
    """The runs, once there are so many and all have ended."""
    wait_for(f"{count} finished runs", lambda: live.finished(count))
    runs = live.runs()
    assert all(run.is_success for run in runs), [(run.tags["dagster/partition"], run.status) for run in runs]
    return runs


def settled(live: DagsterUI, count: int) -> list[dg.DagsterRun]:
    """The runs, once there are so many and the refresh sensor has had the time to start one too many."""

    def quiet() -> bool:
        finished(live, count)
        return live.looks_since_the_last_run("refresh") >= LOOKS

    wait_for(f"the refresh sensor looked {LOOKS} times more", quiet, every=1.0)
    return live.runs()


@pytest.mark.slow
def test_a_live_dagster_runs_what_changed_and_nothing_else(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.declare("kept", tiny_texts(120))
    workspace.declare("edited", tiny_texts(110))
    expected: Counter[tuple[str, frozenset[str]]] = Counter()
    with dagster_ui(tmp_path, workspace) as live:
        wait_for("both datasets are found", lambda: len(live.instance.get_dynamic_partitions(DATASETS)) == 2)
        assert not live.runs()  # finding costs nothing and starts nothing
        live.switch_on("refresh")
        live.backfill(NAMES, ["kept", "edited"])
        expected.update([("kept", ALL), ("edited", ALL)])
        assert live.stages(finished(live, 2)) == expected

        workspace.declare("edited", tiny_texts(115))
        workspace.declare("added", tiny_texts(105))  # which nobody asks for
        broken = workspace.declare("broken", tiny_texts(100), selection={"m": 3})
        expected.update([("edited", ALL)])
        assert live.stages(settled(live, 3)) == expected
        assert "added" in live.instance.get_dynamic_partitions(DATASETS)
        (said, *_) = wait_for("the broken dataset is the sensor's error", lambda: live.errors("dataset_arrivals"))
        assert str(broken / "dataset.yaml") in said
        assert "`selection.m` is not a field" in said
        assert "broken" not in live.instance.get_dynamic_partitions(DATASETS)

        # The code of a stage changed: it and what reads it, of every dataset.
        raised = tmp_path / "dg" / "live_project" / "raised.json"
        raised.write_text('{"annotation_matrix": "raised"}', encoding="utf-8")
        live.reload()
        after = frozenset(NAMES[NAMES.index("annotation_matrix") :])
        expected.update((name, after) for name in ("kept", "edited"))
        assert live.stages(finished(live, 5)) == expected

        # By hand over many datasets: a run each, and equal content asks for nothing more.
        live.backfill(["corpus"], ["kept", "edited"])
        expected.update((name, frozenset(["corpus"])) for name in ("kept", "edited"))
        assert live.stages(settled(live, 7)) == expected


@pytest.mark.slow
def test_a_run_cut_off_by_shutdown_is_tried_again_once_and_a_failed_one_is_not(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.declare("cut", tiny_texts())
    workspace.declare("failing", tiny_texts(120), selection={"n": 9})  # more than it has neurons
    with dagster_ui(tmp_path, workspace) as live:
        wait_for("both datasets are found", lambda: len(live.instance.get_dynamic_partitions(DATASETS)) == 2)
        failing = live.launch("failing")
        wait_for("the one fails", lambda: live.finished(1))
        cut = live.launch("cut")
        begun = dg.DagsterEventType.STEP_START
        wait_for("the other has begun", lambda: live.instance.all_logs(cut, of_type=begun))
    with dagster_ui(tmp_path, workspace) as live:
        wait_for("it is tried again", lambda: live.finished(3))
        again, first, failed = live.runs()
        assert (first.run_id, failed.run_id) == (cut, failing)
        assert again.is_success and again.parent_run_id == cut
        assert first.status is failed.status is dg.DagsterRunStatus.FAILURE
        assert failed.tags["dagster/will_retry"] == "false"
        assert workspace.current("cut", "evaluation_report").run_id == again.run_id


@pytest.mark.slow
def test_appended_rows_wait_with_the_holdout_closed_and_a_lost_confirmation_is_posted(
    tmp_path: Path,
) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.declare("one", tiny_texts())
    workspace.declare("two", tiny_texts(150, seed=1))
    with webhook() as (address, posted), dagster_ui(tmp_path, workspace, HSAE_WEBHOOK=address) as live:
        wait_for("both datasets are found", lambda: len(live.instance.get_dynamic_partitions(DATASETS)) == 2)
        live.launch("one")
        live.launch("two")  # at once
        wait_for("both are analysed", lambda: live.finished(2))
        assert all(run.is_success for run in live.runs())
        first = workspace.current("one", "embeddings").json("embeddings.json")
        wait_for("the watch has seen them", lambda: live.looks_since_the_last_run("watch"))
        told = live.version("labelled_texts", "one")
        workspace.declare("one", tiny_texts(310), inference=STRICT)
        wait_for("the change is told", lambda: live.version("labelled_texts", "one") != told)
        live.switch_on("refresh")  # after the change
        wait_for("the change is refreshed", lambda: live.finished(3))
        run = live.runs()[0]
        assert run.is_success and run.tags["dagster/partition"] == "one"
        rows = live.latest("corpus", "one").metadata["new rows"].value
        assert "wait" in str(rows) and rows != "none wait"
        # Nothing of them is embedded before they are enough to be tested on.
        assert first["texts"] == workspace.current("one", "embeddings").json("embeddings.json")["texts"] == 300
        lost = wait_for("the lost confirmation is posted", lambda: [p for p in posted if p["kind"] == "verdict"])
        assert all(each["dataset"] == "one" and "was confirmed and is" in each["text"] for each in lost)
