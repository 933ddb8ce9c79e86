"""`analyse`: a frame becomes a dataset of the project, its run the project's own, and mistakes are sentences."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.api import write_dataset
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.orchestration.project import prepare_home
from hsae_dagster_tests.assets.workspace import NAMES, declaration, tiny_texts
from hsae_dagster_tests.conftest import CHECKOUT

COLUMNS = {"text": "text", "label": "score", "cluster_by": "author"}

# As a notebook has it: a pandas frame, the same analysis twice, then a column that is not there.
NOTEBOOK = """
import json, sys
import pandas as pd
from hsae_dagster import analyse
from hsae_dagster.errors import HsaeError

frame, fields = pd.read_parquet(sys.argv[1]), json.loads(sys.argv[2])
found = analyse(frame, "scores", **fields)
again = analyse(frame, "scores", **fields)
try:
    analyse(frame, "wrong", task="regression", columns={"text": "text", "label": "stars"})
except HsaeError as error:
    refused = str(error)
html = found._repr_html_()
print(json.dumps({
    "printed": str(found), "html": html, "refused": refused, "same": found.claims.equals(again.claims),
    "claims": found.claims["claim"].to_list(), "held out": found.annotations.height, "report": str(found.report),
}))
"""


def test_a_frame_is_analysed_in_one_call_and_the_project_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_texts().write_parquet(tmp_path / "given.parquet")
    fields = {name: value for name, value in declaration().items() if name != "files"}
    home = tmp_path / "project"
    monkeypatch.setenv("HSAE_HOME", str(home))
    for name in ("DAGSTER_HOME", "HSAE_DATA_DIR", "HSAE_RESULTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path / "given.parquet"), json.dumps(fields)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(last)
    assert any(line.startswith("evaluation_report") for line in lines)
    assert told["claims"]
    assert all(claim.split("“")[1].split("”")[0] in told["printed"] for claim in told["claims"])
    assert f"Report: {told['report']}" in told["printed"]
    assert "<table" in told["html"]
    assert Path(told["report"]).is_file()
    assert told["held out"] == pl.read_csv(home / "results" / "reports" / "scores" / "annotations.csv").height > 0
    assert told["same"]
    assert "no column `stars`" in told["refused"]
    with dg.DagsterInstance.from_config(str(prepare_home(home))) as instance:
        runs = instance.get_runs()
        assert {run.tags["dagster/partition"] for run in runs} == {"scores", "wrong"}
        assert {run.job_name for run in runs} == {"analyse_dataset"}
        assert {key.path[-1] for key in runs[-1].asset_selection or ()} == set(NAMES)


def test_an_earlier_frame_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    for rows in (40, 30):
        write_dataset(tiny_texts(rows), folder, {"task": "regression", "columns": COLUMNS})
    assert load_dataset(tmp_path, "scores").spec.columns.cluster_by == "author"
    assert pl.read_parquet(folder / "texts.parquet").height == 30
    assert (folder / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_a_folder_that_somebody_else_made_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "dataset.yaml").write_text("task: regression\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="was not made by `analyse`"):
        write_dataset(tiny_texts(30), tmp_path / "scores", {"task": "regression", "columns": COLUMNS})
    assert (tmp_path / "scores" / "dataset.yaml").read_text(encoding="utf-8") == "task: regression\n"


@pytest.mark.parametrize(
    ("frame", "fields", "said"),
    [
        (tiny_texts(30), {"task": "regression", "columns": COLUMNS, "files": "a.csv"}, "`files` is the frame here"),
        (tiny_texts(30), {"task": "regression", "columns": COLUMNS, "labels": 1}, "`labels` is not a field"),
        (tiny_texts(30), {"columns": COLUMNS}, "task"),
        (pl.DataFrame({"text": [object(), object()]}), {"task": "regression", "columns": COLUMNS}, "as Parquet"),
        (3, {"task": "regression", "columns": COLUMNS}, "as Parquet"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    frame: Any, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=said):
        write_dataset(frame, tmp_path / "scores", fields)
    write_dataset(tiny_texts(30), tmp_path / "scores", {"task": "regression", "columns": COLUMNS})
