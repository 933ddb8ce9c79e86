"""The project as a user meets it: loading its definitions, the demo from installed to report, growth with texts.

Belongs here: whole commands and whole chains of stages. Does not belong here: comparisons of single stages.
"""

import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.children import ROOT, in_child, measured
from benchmarks.speed.outcome import Row

_EMPTY = """[project]
name = "empty"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "empty"
code_location_target_module = "empty.definitions"
"""
DEMO_DATASET = "movie_reviews"


def definitions_row(folder: Path, rounds: int = 3) -> Row:
    """`dg list defs` beside that of an empty project, which is what Dagster itself needs."""
    empty = folder / "empty"
    (empty / "empty").mkdir(parents=True)
    (empty / "pyproject.toml").write_text(_EMPTY, encoding="utf-8")
    (empty / "empty" / "__init__.py").touch()
    (empty / "empty" / "definitions.py").write_text(
        "import dagster as dg\n\ndefs = dg.Definitions()\n", encoding="utf-8"
    )
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").touch()
    command = [str(Path(sys.executable).with_name("dg")), "list", "defs"]
    seconds: dict[Path, list[float]] = {ROOT: [], empty: []}
    for place in (ROOT, empty) * (rounds + 1):
        started = time.perf_counter()
        _run(command, place, {"DAGSTER_HOME": str(home), "PYTHONPATH": str(place)})
        seconds[place].append(time.perf_counter() - started)
    loaded = _run([sys.executable, "-c", _HEAVY], ROOT, {"PYTHONPATH": str(ROOT)}).strip()
    assert loaded == "[]", f"the code location imports {loaded}"
    ours, floor = (statistics.median(found[1:]) for found in seconds.values())
    return Row(
        "dg list defs",
        ours,
        floor,
        "s",
        1.3,
        at_most=True,
        agreed="torch is not imported; the other side is an empty Dagster project",
        extra={"ours": seconds[ROOT], "empty project": seconds[empty]},
    )


_HEAVY = (
    "import sys, hsae_dagster.definitions; "
    "print([name for name in ('torch', 'lancedb', 'openai', 'sklearn', 'matplotlib') if name in sys.modules])"
)


def _run(command: list[str], place: Path, settings: dict[str, str]) -> str:
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, **settings}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}): {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def demo_row(folder: Path) -> Row:
    """`hsae demo` in an empty project: from texts to the report. Its results stay for other rows."""
    root = folder / "demo"
    shutil.copytree(ROOT / "data", root / "data")
    shutil.copyfile(ROOT / ".env.example", root / ".env.example")
    settings = {
        "HSAE_HOME": str(root),
        "HSAE_DATA_DIR": str(root / "data"),
        "HSAE_RESULTS_DIR": str(root / "results"),
        "DAGSTER_HOME": str(root / "home"),
        "PYTHONPATH": str(ROOT),
    }
    before = "at hand" if any((root / "data" / DEMO_DATASET).glob("*.parquet")) else "fetched"
    started = time.perf_counter()
    printed = _run([sys.executable, "-m", "hsae_dagster", "demo"], ROOT, settings)
    seconds = time.perf_counter() - started
    # Lines of progress begin with the seconds since the start.
    lines = len(re.findall(r"^\s*\d+\.\d s  ", printed, flags=re.MULTILINE))
    assert lines > 10, "the demo shows no progress"
    sample = before if any((root / "data" / DEMO_DATASET).glob("*.parquet")) else "not to be had, `planted` stood in"
    return Row(
        "make demo, after installation",
        seconds,
        None,
        "s",
        120.0,
        at_most=True,
        agreed=f"{lines} lines of progress; the sample was {sample}",
        extra={"printed": printed.splitlines()[-60:]},
    )


def growth_rows(sizes: tuple[int, ...], dimensions: int, m: int, k: int) -> list[Row]:
    """Time per text of training (one epoch), encoding and selection, of each size beside the one before."""
    found = {size: in_child("project:grow", texts=size, dimensions=dimensions, m=m, k=k) for size in sizes}
    rows = []
    for before, after in itertools.pairwise(sizes):
        small, large = (found[size]["run"]["seconds"] / size * 1e6 for size in (before, after))
        rows.append(
            Row(
                f"growth {before:,} → {after:,} texts, per text",
                large,
                small,
                "µs",
                1.25,
                at_most=True,
                agreed="linear where the ratio is 1; the other side is ours",
                peak_ours=(found[after]["run"]["peak"] - found[after]["run"]["base"]) / 1e6,
                peak_theirs=(found[before]["run"]["peak"] - found[before]["run"]["base"]) / 1e6,
                extra={"before": found[before], "after": found[after]},
            )
        )
    return rows


def grow(texts: int, dimensions: int, m: int, k: int) -> dict[str, Any]:
    """In a child: one epoch of training, all codes, a lasso selection."""
    import torch

    from benchmarks.speed.made import synthetic
    from hsae_dagster.core.sae.model import SAEConfig, encode
    from hsae_dagster.core.sae.training import train_sae
    from hsae_dagster.core.selection.methods import select_neurons

    made = synthetic(texts, dimensions, SAEConfig(m=2 * m, k=k), dead=0.0)
    held = texts // 50
    torch.zeros(1).sum().item()
    parts = {}
    with measured() as run:
        started = time.perf_counter()
        trained = train_sae(made.embeddings[held:], made.embeddings[:held], SAEConfig(m=m, k=k, max_epochs=1))
        parts["training, s"] = time.perf_counter() - started
        started = time.perf_counter()
        codes = encode(trained.sae, made.embeddings)
        parts["activations, s"] = time.perf_counter() - started
        started = time.perf_counter()
        selection = select_neurons(codes, made.outcome, 20)
        parts["selection, s"] = time.perf_counter() - started
    return {"run": run, **parts, "selected": len(selection.columns), "vectors_mb": made.embeddings.nbytes / 1e6}
