"""An empty Dagster project of somebody else's, which gets the whole pipeline by one command and runs it."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.live.processes import make_home

PYPROJECT = """
[project]
name = "scratch"
version = "0.0.1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "scratch"
"""
DEFINITIONS = """
from pathlib import Path
from dagster import definitions, load_from_defs_folder

@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
CHOSEN = {
    "key_prefix": "study",
    "partitions_name": "study_sets",
    "owners": ["team:research"],
    "sensors": ["dataset_arrivals"],
}


def installed(folder: Path) -> Path:
    """A folder that, on the path, says what installing this checkout would say: by which entry point it is found."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    lines = []
    for group, points in declared.items():
        lines += [f"[{group}]", *(f"{name} = {module}" for name, module in points.items())]
    info = folder / "hsae_dagster_as_declared-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    metadata = "Metadata-Version: 2.1\nName: hsae_dagster_as_declared\nVersion: 0.1\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> tuple[Workspace, Callable[..., str]]:
    """An empty project with one dataset, and `dg` in it; gives what it prints, and fails with it."""
    root = tmp_path / "scratch_project"
    (root / "scratch" / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (root / "scratch" / "__init__.py").touch()
    (root / "scratch" / "defs" / "__init__.py").touch()
    (root / "scratch" / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    workspace = Workspace(root)
    workspace.declare("ratings", tiny_texts())
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(make_home(tmp_path / "home")),
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join([str(installed(tmp_path / "site")), str(CHECKOUT), str(root)]),
        "VIRTUAL_ENV": sys.prefix,
        "OMP_NUM_THREADS": "1",
        "HSAE_EXECUTOR": "in_process",
        "HOME": str(tmp_path),  # dg keeps a cache there
    }

    def dg_command(*arguments: str) -> str:
        done = subprocess.run(
            ["dg", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"dg {' '.join(arguments)}: {(done.stdout + done.stderr)[-3000:]}"
        return done.stdout

    return workspace, dg_command


@pytest.mark.slow
def test_a_scaffolded_component_materializes_a_dataset_in_an_empty_project(
    project: tuple[Workspace, Callable[..., str]], tmp_path: Path
) -> None:
    workspace, command = project
    assert "hsae_dagster.HsaeComponent" in command("list", "components")
    command("scaffold", "defs", "hsae_dagster.HsaeComponent", "texts")
    declared = workspace.root / "scratch" / "defs" / "texts" / "defs.yaml"
    assert yaml.safe_load(declared.read_text(encoding="utf-8"))["type"] == "hsae_dagster.HsaeComponent"
    declared.write_text(yaml.safe_dump({"type": "hsae_dagster.HsaeComponent", "attributes": CHOSEN}), encoding="utf-8")
    command("check", "defs")
    listed = json.loads(command("list", "defs", "--json"))
    assert {f"study/{name}" for name in NAMES} <= {asset["asset_key"] for asset in listed["assets"]}
    assert all("research" in str(asset["owners"]) for asset in listed["assets"])
    assert [sensor["name"] for sensor in listed["sensors"]] == ["dataset_arrivals"]

    command("launch", "--assets", "study/dataset_catalog")
    alone = json.dumps({"execution": {"config": {"in_process": {}}}})  # a process for each step loads all of torch
    command("launch", "--job", "analyse_dataset", "--partition", "ratings", "--config-json", alone)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert instance.get_dynamic_partitions("study_sets") == ["ratings"]
        for name in NAMES:
            assert instance.get_materialized_partitions(dg.AssetKey(["study", name])) == {"ratings"}, name
        cards = set(instance.get_dynamic_partitions("study_sets_hypotheses"))
        assert "ratings|h01" in cards
        assert instance.get_materialized_partitions(dg.AssetKey(["study", "hypothesis_card"])) == cards
        event = instance.get_latest_materialization_event(dg.AssetKey(["study", "hypothesis_card"]))
        assert event is not None and event.asset_materialization is not None
        shown = event.asset_materialization.metadata["from sae_checkpoints"].value
        assert "/assets/study/sae_checkpoints?view=partitions&partition=ratings" in str(shown)
    assert (workspace.root / "results" / "reports" / "ratings.html").is_file()
