"""`make clean` removes what was made, and neither what was paid for nor what is the user's."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hsae_dagster.orchestration.project import prepare_home
from hsae_dagster.storage.holdouts import HoldoutRegister
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.providers.test_ledger import entry
from hsae_dagster_tests.storage.test_holdouts import keys, looked, plan

CHECKOUT = Path(__file__).parents[1]
MADE = (
    "results/objects/corpus/k/manifest.json",
    "results/reports/d.html",
    "downloads/x.whl",
    ".venv/bin/python",
    "hsae_dagster/__pycache__/a.pyc",
    "data/planted/texts.parquet",
    "data/planted/.sample.json",
)
THEIRS = (
    "data/planted/dataset.yaml",
    "data/planted/mine.parquet",
    "data/own/texts.csv",
    "hsae_dagster/a.py",
    "notes.txt",
)
PAID = (
    "results/records.sqlite",
    "results/lancedb/d__set.lance/data/x.lance",
)

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout in use, below a path with a space and a letter that is not ASCII."""
    root = tmp_path / "meine Größe"
    root.mkdir()
    for name in ("Makefile", ".env.example"):
        shutil.copy(CHECKOUT / name, root)
    for name in ("hsae_dagster_tests", "benchmarks"):
        (root / name).mkdir()
    for name in (*MADE, *THEIRS):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x", encoding="utf-8")
    record = {"files": {"texts.parquet": "0" * 64}, "recipe": "r"}
    (root / "data/planted/.sample.json").write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    os.environ.pop("DAGSTER_HOME", None)
    prepare_home(root)
    return root


def make(root: Path, target: str) -> str:
    return subprocess.run(["make", "-C", str(root), target], check=True, capture_output=True, text=True).stdout


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_what_was_made_is_gone_and_nothing_else(root: Path) -> None:
    (root / "results/lancedb/d__set.lance").mkdir(parents=True)
    make(root, "clean")
    assert files(root) == {"Makefile", ".env.example", *THEIRS}
    assert not (root / "results").exists()
    make(root, "clean")  # again changes nothing


def test_looks_stay_and_vectors_that_nobody_paid_for_do_not(root: Path) -> None:
    looked(HoldoutRegister(root / "results"), keys(), plan(keys(), "a"))
    (root / "results/lancedb/d__set.lance").mkdir(parents=True)
    make(root, "clean")
    assert files(root) == {"Makefile", ".env.example", *THEIRS, "results/records.sqlite"}
    assert not (root / "results/lancedb").exists()


def test_what_was_paid_for_looked_at_or_written_by_hand_stays(root: Path) -> None:
    keep(root / "results", entry("a"))
    for name in PAID[1:]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x", encoding="utf-8")
    with (root / ".env").open("a", encoding="utf-8") as stream:
        stream.write("OPENAI_API_KEY=mine\n")
    said = make(root, "clean")
    assert files(root) == {"Makefile", ".env.example", ".env", *THEIRS, *PAID}
    assert "results/records.sqlite" in said
    assert "clean-all" in said
    make(root, "clean-all")
    assert files(root) == {"Makefile", ".env.example", *THEIRS}
