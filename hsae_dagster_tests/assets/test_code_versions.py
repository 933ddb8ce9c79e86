"""A stage whose code changed must say so, or finished results of the old code would be kept as if they were new.

The snapshot holds, per stage, its declared code version and a hash of every module that its result depends on
(docstrings, comments and formatting aside), found by following imports. When the first test fails:

results change: raise CODE_VERSION of the stages it names, then
    HSAE_ACCEPT_CODE=1 python -m pytest hsae_dagster_tests/assets/test_code_versions.py
no result changes (moved, renamed, reworded):
    HSAE_ACCEPT_CODE=refactor python -m pytest hsae_dagster_tests/assets/test_code_versions.py
"""

import ast
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import hsae_dagster
from hsae_dagster_tests.assets.reach import Module, Package

SNAPSHOT = Path(__file__).with_name("code_versions.json")
# What cannot shape a result, and why. Everything else that a stage names counts.
EXCLUDED = {
    # Opening a partition, publishing, and Dagster's glue around it: when and where, never what.
    "orchestration.stage",
    "orchestration.executors",
    "orchestration.project",
    # Sentences for people.
    "errors",
    # What dataset.yaml declares: every stage puts what it uses of it into the inputs of its result.
    "dataset.spec",
    # Finished results and records of them, whole or not at all; what is in a file is written by `storage.artifacts`.
    "storage.files",
    "storage.lineage",
    "storage.objects",
    "storage.records",
    # Whether, when and at what cost a model is asked. What is asked and how an answer is read are not excluded.
    "providers.spending",
    "providers.openai.client",
    "providers.openai.batch",
    "providers.openai.requests",
    "providers.openai.request",
}
# Pictures and tables for the UI, except for the stage whose result is the report.
SHOWN, REPORTING = "report", "hsae_dagster.assets.evaluation_report"

Snapshot = dict[str, dict[str, Any]]


def current(package: Package) -> Snapshot:
    """Per stage: its version, and the hash of each module that it reaches."""
    return {
        stage: {"code_version": version, "modules": package.reached(stage, _excluded(stage))}
        for stage, version in package.stages.items()
    }


def _excluded(stage: str) -> list[str]:
    return [f"hsae_dagster.{name}" for name in (EXCLUDED if stage == REPORTING else EXCLUDED | {SHOWN})]


def changed(known: Snapshot, found: Snapshot, *, only_same_version: bool = False) -> dict[str, list[str]]:
    """The modules that differ (by name), each with the stages that reach it and whose record is not up to date."""
    modules: dict[str, list[str]] = {}
    for stage, record in found.items():
        before = known.get(stage, {"code_version": None, "modules": {}})
        if only_same_version and record["code_version"] != before["code_version"]:
            continue
        for module in {*record["modules"], *before["modules"]}:
            if record["modules"].get(module) != before["modules"].get(module):
                modules.setdefault(module, []).append(stage.rpartition(".")[2])
    return dict(sorted(modules.items()))


def sentence(modules: Mapping[str, list[str]]) -> str:
    """What changed and what to do."""
    lines = [f"{module} changed, and shapes the results of {', '.join(stages)}" for module, stages in modules.items()]
    return "\n".join([*lines, "If results change, raise CODE_VERSION of these stages; then see this file's docstring."])


def test_changed_code_has_a_new_version_or_is_accepted() -> None:
    found, known = current(_package()), json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    accept = os.environ.get("HSAE_ACCEPT_CODE")
    if accept:
        unversioned = changed(known, found, only_same_version=True)
        assert accept == "refactor" or not unversioned, sentence(unversioned)
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    stale = changed(known, found)
    assert not stale, sentence(stale)
    assert found == known, "a version or a list of stages changed: see this file's docstring"


def test_any_change_of_a_module_that_a_stage_reaches_is_noticed() -> None:
    package = _package()
    known = current(package)
    reached = sorted({module for record in known.values() for module in record["modules"]})
    reached = [module for module in reached if any(_constants(package.modules[module].tree))]
    for name in np.random.default_rng(19).choice(reached, 5, replace=False):
        tree = ast.parse(package.modules[name].source)
        *_, constant = _constants(tree)
        constant.value = f"{constant.value!r}, changed"
        other = replace(package.modules[name], source=ast.unparse(tree))
        copy = Package({**package.modules, name: other})
        assert name in changed(known, current(copy), only_same_version=True), name


def test_a_comment_or_a_docstring_asks_for_no_new_version() -> None:
    package = _package()
    name = next(name for name in package.modules if name.endswith(".corpus"))
    source = package.modules[name].source
    reworded = replace(package.modules[name], source='"""Other words."""\n# A comment.\n' + source.partition("\n")[2])
    assert '"""' not in source.partition("\n")[2].partition("\n")[0], "the module's docstring is one line"
    assert reworded.hash() == package.modules[name].hash()


def test_stages_do_not_reach_what_they_do_not_use() -> None:
    found = current(_package())
    corpus = found["hsae_dagster.assets.corpus"]["modules"]
    assert not [name for name in corpus if "sae" in name.removeprefix("hsae_dagster.")]
    assert all(len(record["modules"]) > 5 for record in found.values())


def test_every_exclusion_names_a_module() -> None:
    assert {f"hsae_dagster.{name}" for name in EXCLUDED | {SHOWN}} <= set(_package().modules)


def test_names_are_followed_through_functions_packages_and_registries() -> None:
    package = _made(
        {
            "p": "",
            "p.stage": "from p.parts import used as taken\nCODE_VERSION = '1'\ndef run():\n taken()\n"
            " import p.whole as w\n w.half()\n from .late import late\n late()\n NAME = 'p.table:entry'\n",
            "p.parts": "from p.deep import used\nfrom p.unused import unused\n",
            "p.deep": "from p.neighbours import a, b\ndef used():\n return a\ndef other():\n return b\n",
            "p.neighbours": "from p.for_a import x\nfrom p.for_b import y\na = x\nb = y\n",
            "p.for_a": "x = 1",
            "p.for_b": "y = 1",
            "p.unused": "unused = 1",
            "p.whole": "from p.half_of import h\nfrom p.unused import unused\ndef half():\n return h\nrest = unused",
            "p.half_of": "h = 1",
            "p.late": "late = 1",
            "p.table": "from p.registered import r\nentry = r",
            "p.registered": "r = 1",
            "p.glue": "",
        }
    )
    names = set(package.reached("p.stage", ["p.late"]))
    assert names == {
        *("p.stage", "p.deep", "p.neighbours", "p.for_a"),
        *("p.whole", "p.half_of", "p.table", "p.registered"),
    }


def test_only_what_is_used_of_another_stage_counts() -> None:
    sources = {
        "p.a": "from p.b import shared\nCODE_VERSION = '1'\nshared",
        "p.b": "CODE_VERSION = '1'\nshared = 1\nown = 1",
    }
    before = _made(sources).reached("p.a")
    assert _made({**sources, "p.b": sources["p.b"].replace("own = 1", "own = 2")}).reached("p.a") == before
    assert _made({**sources, "p.b": sources["p.b"].replace("shared = 1", "shared = 2")}).reached("p.a") != before


def _package() -> Package:
    return Package.read(Path(hsae_dagster.__file__).parent)


def _made(sources: Mapping[str, str]) -> Package:
    packages = {name.rpartition(".")[0] for name in sources}
    return Package({name: Module(name, source, name in packages) for name, source in sources.items()})


def _constants(tree: ast.Module) -> Iterator[ast.Constant]:
    """Constants of a module that are no docstring."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in texts)
