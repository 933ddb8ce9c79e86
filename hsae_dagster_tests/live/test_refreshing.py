"""A live `dg dev`: what arrives is found, what changed is run, and nothing else."""

import os
from pathlib import Path

import pytest

from hsae_dagster.partitions import DATASETS
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.live.dagster_ui import DagsterUI, dagster_ui
from hsae_dagster_tests.live.processes import wait_for

ALL = frozenset(NAMES)


def settled(live: DagsterUI, count: int) -> None:
    """Wait for so many runs to finish, then long enough for the sensors to start one too many."""
    wait_for(f"{count} finished runs", lambda: live.finished(count))
    looks = len(live.ticks("refresh"))
    seen = looks + 3 if looks < 17 else 0

    def looked_again() -> bool:
        return seen == 0 or len(live.ticks("refresh")) >= seen

    wait_for("the refresh sensor looked three times more", looked_again)
    assert len(live.runs()) == count, live.stages(live.runs())
    assert all(run.is_success for run in live.runs())


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("HSAE_LIVE"),
    reason="three minutes of waiting for a daemon, not yet shown to be steady on a busy machine: HSAE_LIVE=1 runs it",
)
def test_a_live_dagster_runs_what_changed_and_nothing_else(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.declare("kept", tiny_texts(120))
    workspace.declare("edited", tiny_texts(110))
    with dagster_ui(tmp_path, workspace) as live:
        wait_for("both datasets are found", lambda: len(live.instance.get_dynamic_partitions(DATASETS)) == 2)
        assert not live.runs()  # finding costs nothing and starts nothing
        live.switch_on("refresh")
        settled(live, 2)
        assert live.stages(live.runs()) == {("kept", ALL): 1, ("edited", ALL): 1}
        before = {run.run_id for run in live.runs()}

        workspace.declare("edited", tiny_texts(115))
        workspace.declare("added", tiny_texts(105))
        broken = workspace.declare("broken", tiny_texts(100), selection={"m": 3})
        settled(live, 4)
        new = [run for run in live.runs() if run.run_id not in before]
        assert live.stages(new) == {("edited", ALL): 1, ("added", ALL): 1}
        (said, *_) = wait_for("the broken dataset is the sensor's error", lambda: live.errors("dataset_arrivals"))
        assert str(broken / "dataset.yaml") in said
        assert "`selection.m` is not a field" in said
        assert "broken" not in live.instance.get_dynamic_partitions(DATASETS)
        before |= {run.run_id for run in new}

        # The code of the last two stages' first changed: it and what reads it, of every dataset.
        (tmp_path / "dg" / "live_project" / "raised.json").write_text(
            '{"annotation_matrix": "raised"}', encoding="utf-8"
        )
        live.reload()
        settled(live, 7)
        new = [run for run in live.runs() if run.run_id not in before]
        after = frozenset(NAMES[NAMES.index("annotation_matrix") :])
        assert live.stages(new) == {(name, after): 1 for name in ("kept", "edited", "added")}

        live.backfill(["corpus"], ["kept", "edited", "added"])
        settled(live, 10)  # by hand over many datasets: a run each, and equal content asks for nothing more
