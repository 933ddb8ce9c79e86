"""A live `dg dev` on loopback, spoken to as a browser does.

Belongs here: starting it on a project of its own, asking its GraphQL, reading its runs. Does not belong here: any
expectation.
"""

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from hsae_dagster_tests.assets.workspace import Workspace, asset_key
from hsae_dagster_tests.live.processes import Processes, free_port, make_home, processes, wait_for

LOCATION = "hsae_dagster"
REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}

PYPROJECT = """
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "live_project"
code_location_target_module = "live_project.definitions"
code_location_name = "hsae_dagster"
"""

# The project's own definitions; code versions may be raised from a file, as editing a stage's module would.
CODE_LOCATION = """
import json
from pathlib import Path
import dagster as dg
from hsae_dagster import definitions as _project

_RAISED = Path(__file__).with_name("raised.json")
_raised = json.loads(_RAISED.read_text()) if _RAISED.exists() else {}

def _version(spec):
    name = spec.key.path[-1]
    return spec.replace_attributes(code_version=_raised[name]) if name in _raised else spec

defs = _project.defs.map_asset_specs(func=_version) if _raised else _project.defs
"""


@dataclass(frozen=True)
class DagsterUI:
    """A live Dagster and the project it serves."""

    workspace: Workspace
    running: Processes
    instance: dg.DagsterInstance
    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """The data that GraphQL answers; None while nobody answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply).get("data")
        return None

    def is_loaded(self) -> bool:
        query = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
            locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
        found = self.ask(query)
        entries = found["workspaceOrError"].get("locationEntries", []) if found else []
        problems = [entry["locationOrLoadError"]["message"] for entry in entries if _failed(entry)]
        assert not problems, problems
        return [(entry["name"], entry["loadStatus"]) for entry in entries] == [(LOCATION, "LOADED")]

    def reload(self) -> None:
        query = "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
        answer = self.ask(query, name=LOCATION)
        assert answer["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry", answer

    def switch_on(self, sensor: str) -> None:
        query = "mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"
        answer = self.ask(query, s={**REPOSITORY, "sensorName": sensor})
        assert answer["startSensor"]["__typename"] == "Sensor", answer

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """The sensor's ticks, newest first: status, when it began and, of a failed one, the error."""
        query = """query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState {
            ticks(limit: 500) { status timestamp error { message causes { message } } } } } } }"""
        found = self.ask(query, s={**REPOSITORY, "sensorName": sensor})
        return found["sensorOrError"]["sensorState"]["ticks"] if found else []

    def errors(self, sensor: str) -> list[str]:
        """What the sensor's failed ticks say, causes included."""
        failed = [tick["error"] for tick in self.ticks(sensor) if tick["status"] == "FAILURE"]
        return ["\n".join([e["message"], *(cause["message"] for cause in e["causes"])]) for e in failed]

    def backfill(self, assets: list[str], partitions: list[str]) -> None:
        query = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
            __typename ... on PythonError { message } } }"""
        keys = [{"path": asset_key(asset).path} for asset in assets]
        answer = self.ask(query, p={"assetSelection": keys, "partitionNames": partitions})
        assert answer["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", answer

    def launch(self, partition: str) -> str:
        """Start the job of every stage for a dataset; the run's id."""
        query = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
            __typename ... on PythonError { message } ... on LaunchRunSuccess { run { runId } } } }"""
        tags = [{"key": "dagster/partition", "value": partition}]
        selector = {**REPOSITORY, "jobName": "analyse_dataset"}
        answer = self.ask(query, p={"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}})
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer
        return str(answer["launchRun"]["run"]["runId"])

    def latest(self, asset: str, dataset: str) -> dg.AssetMaterialization:
        chosen = dg.AssetRecordsFilter(asset_key(asset), asset_partitions=[dataset])
        (record,) = self.instance.fetch_materializations(chosen, limit=1).records
        assert record.asset_materialization is not None
        return record.asset_materialization

    def version(self, asset: str, dataset: str) -> str:
        return (self.latest(asset, dataset).tags or {})["dagster/data_version"]

    def runs(self) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs())

    def finished(self, count: int) -> bool:
        """Whether there are `count` runs (or more) and all are finished."""
        runs = self.runs()
        return len(runs) >= count and all(run.is_finished for run in runs)

    def looks_since_the_last_run(self, sensor: str) -> int:
        """How many ticks of the sensor began after the last run had ended, and are over."""
        ended = [record.end_time for record in self.instance.get_run_records()]
        assert all(ended)
        last = max(float(end) for end in ended if end)
        return sum(tick["timestamp"] > last and tick["status"] != "STARTED" for tick in self.ticks(sensor))

    def stages(self, runs: list[dg.DagsterRun]) -> Counter[tuple[str, frozenset[str]]]:
        """How often each (dataset, stages) was run."""
        return Counter(
            (
                run.tags["dagster/partition"],
                frozenset(chosen.path[-1] for chosen in run.asset_selection or []),
            )
            for run in runs
        )


def _failed(entry: dict[str, Any]) -> bool:
    loaded = entry["locationOrLoadError"]
    return loaded is not None and loaded["__typename"] == "PythonError"


@contextmanager
def dagster_ui(folder: Path, workspace: Workspace, **more: str) -> Iterator[DagsterUI]:
    """`dg dev` on a free port of this machine; every process it started is gone afterwards."""
    project, home, port = folder / "dg", make_home(folder / "home"), free_port()
    code = project / "live_project"
    code.mkdir(parents=True, exist_ok=True)  # it may be started a second time
    (project / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (code / "__init__.py").touch()
    (code / "definitions.py").write_text(CODE_LOCATION, encoding="utf-8")
    environment = {
        "DAGSTER_HOME": str(home),
        "HSAE_DATA_DIR": workspace.project.data_dir,
        "HSAE_RESULTS_DIR": workspace.project.results_dir,
        "HSAE_EXECUTOR": "in_process",
        "HSAE_LOOK_SECONDS": "3",
        **more,
    }
    with (
        processes(project, **environment) as running,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        dg_dev = running.start("dg", "dg", "dev", "--host", "127.0.0.1", "--port", str(port))
        live = DagsterUI(workspace, running, instance, f"http://127.0.0.1:{port}")
        try:
            wait_for("dg dev answers", lambda: live.is_loaded() or dg_dev.poll() is not None)
            assert dg_dev.poll() is None, running.log("dg")[-2000:]
            running.look()
            yield live
        finally:
            running.look()
