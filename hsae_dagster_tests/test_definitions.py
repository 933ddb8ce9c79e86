"""The code location: loadable, light, and with the graph that the snapshot holds.

When the graph changes on purpose, write the new snapshot:
HSAE_ACCEPT_GRAPH=1 python -m pytest hsae_dagster_tests/test_definitions.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from hsae_dagster.definitions import STAGES, defs
from hsae_dagster.op_tags import GPU_OP_TAGS, GPU_POOL
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
            "pools": sorted(node.pools or []),
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
        name = stage.key.to_user_string()
        read = {dg.AssetKey(asset) for asset in finished.workspace.current("ratings", name).inputs.upstream}
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
            assert op.pool == (GPU_POOL if asks else None), op.name
            assert set(asks) in (set(), set(GPU_OP_TAGS))
            asking += [(stage.key.to_user_string(), op.name)] if asks else []
    assert asking == [("sae_checkpoints", "train")]


def test_every_asset_says_what_it_is() -> None:
    made = defs.resolve_asset_graph()
    for key in made.get_all_asset_keys():
        node = made.get(key)
        assert node.description, key
        assert node.kinds, key
        if node.is_materializable and node.group_name == "hsae":
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
