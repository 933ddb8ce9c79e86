"""The code location: loadable, light, and with the graph that the snapshot holds.

When the graph changes on purpose, write the new snapshot:
HSAE_ACCEPT_GRAPH=1 python -m pytest hsae_dagster_tests/test_definitions.py
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hsae_dagster.definitions import STAGES, Manner, defs, project_definitions
from hsae_dagster.orchestration import executors as op_tags
from hsae_dagster.orchestration.executors import GPU_OP_TAGS, LLM_POOL, gpu_pool, llm_pool
from hsae_dagster.orchestration.project import Project
from hsae_dagster_tests.assets.workspace import asset_key
from hsae_dagster_tests.conftest import Finished

SNAPSHOT = Path(__file__).with_name("asset_graph.json")
HEAVY = ("torch", "lancedb", "openai", "sklearn", "statsmodels", "matplotlib", "onnxruntime", "pandas")


def graph() -> dict[str, Any]:
    """What people see of each asset in the lineage graph."""
    made = defs.resolve_asset_graph()
    found = {}
    for key in sorted(made.get_all_asset_keys()):
        node = made.get(key)
        found[key.to_user_string()] = {
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "partitions": _partitions(node.partitions_def),
            "checks": sorted(check.name for check in node.check_keys),
            "materializable": node.is_materializable,
        }
    return found


def _partitions(partitions: dg.PartitionsDefinition | None) -> Any:
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        return {dimension.name: _partitions(dimension.partitions_def) for dimension in partitions.partitions_defs}
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return f"dynamic {partitions.name}"
    if isinstance(partitions, dg.StaticPartitionsDefinition):
        keys = partitions.get_partition_keys()
        return f"static {keys[0]} to {keys[-1]}"
    return None


def test_definitions_are_loadable() -> None:
    dg.Definitions.validate_loadable(defs)


def test_the_graph_is_the_one_of_the_snapshot() -> None:
    if os.environ.get("HSAE_ACCEPT_GRAPH"):
        SNAPSHOT.write_text(json.dumps(graph(), indent=1) + "\n", encoding="utf-8")
    known, now = json.loads(SNAPSHOT.read_text(encoding="utf-8")), graph()
    changed = sorted(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))
    assert not changed, f"{', '.join(changed)} changed in the graph: see this file's docstring"


def test_a_stage_waits_for_everything_it_was_made_from(finished: Finished) -> None:
    made = defs.resolve_asset_graph()
    for stage in STAGES:
        name = stage.key.path[-1]
        read = {asset_key(asset) for asset in finished.workspace.current("ratings", name).inputs.upstream}
        assert read <= set(made.get(stage.key).parent_keys), name


def test_the_code_location_loads_nothing_heavy() -> None:
    code = f"""
import sys
import hsae_dagster.definitions
sys.exit(",".join(name for name in {HEAVY!r} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_only_training_asks_for_the_gpu() -> None:
    asking = []
    for stage in STAGES:
        for op in stage.node_def.iterate_op_defs():
            asks = {key: value for key, value in op.tags.items() if key in GPU_OP_TAGS}
            assert op.pool in {gpu_pool() if asks else None, llm_pool()}, op.name
            assert set(asks) in (set(), set(GPU_OP_TAGS))
            asking += [(stage.key.path[-1], op.name)] if asks else []
    assert asking == [("sae_checkpoints", "train")]


def test_nobody_waits_for_a_gpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(op_tags, "_GPU_DEVICES", (tmp_path / "nvidiactl",))
    for executor in ("", "multiprocess", "in_process"):
        monkeypatch.setenv("HSAE_EXECUTOR", executor)
        assert gpu_pool() is None
    monkeypatch.setenv("HSAE_EXECUTOR", "ray")
    assert gpu_pool() == "gpu"  # whoever runs the step may have one
    monkeypatch.setenv("HSAE_EXECUTOR", "multiprocess")
    (tmp_path / "nvidiactl").touch()
    assert gpu_pool() == "gpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_pool() is None


def test_steps_that_ask_a_model_share_a_pool_where_there_is_a_server_to_ask() -> None:
    code = """
import sys
from hsae_dagster.definitions import STAGES
print(sorted(op.name for stage in STAGES for op in stage.node_def.iterate_op_defs() if op.pool == "llm"))
"""
    asking = {}
    for key in ("", "sk-none"):
        environment = {**os.environ, "OPENAI_API_KEY": key}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        asking[key] = done.stdout.strip()
    assert asking == {"": "[]", "sk-none": "['annotation_matrix', 'embeddings', 'interpretations']"}
    assert LLM_POOL == "llm"


def test_assets_stand_under_a_prefix_in_groups_that_show_the_flow_and_lead_to_their_code() -> None:
    graph = defs.resolve_asset_graph()
    groups: dict[str, list[str]] = {}
    for node in (graph.get(stage.key) for stage in STAGES):
        groups.setdefault(str(node.group_name), []).append(node.key.path[-1])
        references = node.metadata["dagster/code_references"].code_references
        assert Path(references[0].file_path).is_file()
    assert groups == {
        "texts": ["corpus", "embeddings"],
        "model": ["sae_checkpoints", "activations", "selected_neurons"],
        "hypotheses": ["interpretations", "annotation_matrix", "evaluation_report"],
    }
    assert {key.path[0] for key in graph.get_all_asset_keys()} == {"hsae"}
    assert {p.name for key in graph.get_all_asset_keys() if (p := graph.get(key).partitions_def)} == {
        "hsae_datasets",
        "hsae_datasets_hypotheses",
    }


def test_a_project_chooses_names_owners_tags_and_sensors() -> None:
    project = Project(data_dir="d", results_dir="r", key_prefix="study", partitions_name="study_sets")
    manner = Manner(owners=["team:research"], tags={"domain": "reviews"}, sensors=["dataset_arrivals"])
    made = project_definitions(project, manner)
    dg.Definitions.validate_loadable(made)
    sensors = [sensor.name for sensor in made.get_repository_def().sensor_defs]
    assert sensors == ["dataset_arrivals"] and not made.schedules
    graph = made.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert key.path[0] == "study"
        assert node.owners == ["team:research"] and node.tags["domain"] == "reviews"
        assert all(check.asset_key == key for check in node.check_keys)
        assert {parent.path[0] for parent in node.parent_keys} <= {"study"}
        if node.partitions_def is not None:
            assert node.partitions_def.name.startswith("study_sets")


def test_kinds_name_a_paid_model_only_where_something_is_sent() -> None:
    graph = defs.resolve_asset_graph()
    assert not [key for key in graph.get_all_asset_keys() if "openai" in graph.get(key).kinds]


def test_every_asset_says_what_it_is() -> None:
    made = defs.resolve_asset_graph()
    for key in made.get_all_asset_keys():
        node = made.get(key)
        assert node.description, key
        assert node.kinds, key
        if node.is_materializable and node.group_name != "catalog":
            assert node.code_version, key


def test_an_unknown_executor_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import hsae_dagster.definitions"],
        env={**os.environ, "HSAE_EXECUTOR": "dask?"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "HSAE_EXECUTOR is `dask?`" in done.stderr
