"""`analyse`: a frame becomes a dataset of the project, its run the project's own, and mistakes are sentences."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which the processes of a test work for."""
    home = tmp_path / "project"
    home.mkdir()
    monkeypatch.setenv("HSAE_HOME", str(home))
    for name in ("DAGSTER_HOME", "HSAE_DATA_DIR", "HSAE_RESULTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    return home


def ask(script: str, project: Path) -> "subprocess.CompletedProcess[str]":
    """What a process says that is given tiny texts and the fields of their declaration."""
    given = project.with_name("given.parquet")
    tiny_texts().write_parquet(given)
    fields = {name: value for name, value in declaration().items() if name != "files"}
    # A shell's background has SIGINT ignored.
    return subprocess.run(
        [sys.executable, "-c", script, str(given), json.dumps(fields)],
        capture_output=True,
        text=True,
        cwd=project,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_a_frame_is_analysed_in_one_call_and_the_project_knows_it(project: Path) -> None:
    home, done = project, ask(NOTEBOOK, project)
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


INTERRUPTED = """
import json, logging, signal, sys
import polars as pl
from hsae_dagster import analyse

class Presses(logging.Handler):
    def emit(self, record):
        signal.raise_signal(signal.SIGINT)

logging.getLogger("hsae_dagster.progress").addHandler(Presses())
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    analyse(pl.read_parquet(sys.argv[1]), "scores", **json.loads(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
"""


def test_an_interrupted_analysis_is_interrupted_and_no_failure(project: Path) -> None:
    done = ask(INTERRUPTED, project)
    assert done.stdout.splitlines()[-1] == "interrupted True", done.stdout + done.stderr
    with dg.DagsterInstance.from_config(str(prepare_home(project))) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED


def test_a_process_works_for_one_project(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    begins = f"""
import os
import hsae_dagster.definitions
os.environ["HSAE_HOME"] = {str(elsewhere)!r}
"""
    done = ask(begins + INTERRUPTED, project)
    assert f"the project with the data in {project / 'data'}, not {elsewhere / 'data'}" in done.stderr
    assert not (elsewhere / "data").exists()


def test_an_earlier_frame_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    for rows in (40, 30):  # numbers as numpy has them
        fields = {"task": "regression", "columns": COLUMNS, "selection": {"n": np.int64(rows // 10)}}
        write_dataset(tiny_texts(rows), folder, fields)
    assert load_dataset(tmp_path, "scores").spec.columns.cluster_by == "author"
    assert load_dataset(tmp_path, "scores").spec.selection.n == 3
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
        (tiny_texts(30), {"task": "regression", "columns": COLUMNS, "files": "a.csv"}, "Leave `files` out"),
        (tiny_texts(30), {"task": "regression", "columns": COLUMNS, "labels": 1}, "`labels` is not a field"),
        (tiny_texts(30), {"columns": COLUMNS}, "task"),
        (pl.DataFrame({"text": [object(), object()]}), {"task": "regression", "columns": COLUMNS}, "as Parquet"),
        (3, {"task": "regression", "columns": COLUMNS}, "as Parquet"),
        (tiny_texts(30), {"task": "regression", "columns": COLUMNS, "extends": "others"}, "Leave `extends` out"),
        (pd.DataFrame({"text": [1j]}), {"task": "regression", "columns": COLUMNS}, "as Parquet"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    frame: Any, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=said):
        write_dataset(frame, tmp_path / "scores", fields)
    write_dataset(tiny_texts(30), tmp_path / "scores", {"task": "regression", "columns": COLUMNS})
