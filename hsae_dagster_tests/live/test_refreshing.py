"""A live `dg dev`: what arrives is found, what changed is run, and nothing else."""

from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.partitions import DATASETS
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.live.dagster_ui import DagsterUI, dagster_ui
from hsae_dagster_tests.live.processes import wait_for

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
        expected.update([("kept", ALL), ("edited", ALL)])
        assert live.stages(finished(live, 2)) == expected

        workspace.declare("edited", tiny_texts(115))
        workspace.declare("added", tiny_texts(105))
        broken = workspace.declare("broken", tiny_texts(100), selection={"m": 3})
        expected.update([("edited", ALL), ("added", ALL)])
        assert live.stages(settled(live, 4)) == expected
        (said, *_) = wait_for("the broken dataset is the sensor's error", lambda: live.errors("dataset_arrivals"))
        assert str(broken / "dataset.yaml") in said
        assert "`selection.m` is not a field" in said
        assert "broken" not in live.instance.get_dynamic_partitions(DATASETS)

        # The code of a stage changed: it and what reads it, of every dataset.
        raised = tmp_path / "dg" / "live_project" / "raised.json"
        raised.write_text('{"annotation_matrix": "raised"}', encoding="utf-8")
        live.reload()
        after = frozenset(NAMES[NAMES.index("annotation_matrix") :])
        expected.update((name, after) for name in ("kept", "edited", "added"))
        assert live.stages(finished(live, 7)) == expected

        # By hand over many datasets: a run each, and equal content asks for nothing more.
        live.backfill(["corpus"], ["kept", "edited", "added"])
        expected.update((name, frozenset(["corpus"])) for name in ("kept", "edited", "added"))
        assert live.stages(settled(live, 10)) == expected
