"""Fixtures shared by the tests of assets, sensors and commands."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from hsae_dagster.providers.minilm import MiniLM
from hsae_dagster.providers.openai import requests as known_servers
from hsae_dagster.sample_data.planted import generate_planted, write_generated
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_pairs, tiny_texts
from hsae_dagster_tests.core.reference import COMPARED, VERSION, summary

CHECKOUT = Path(__file__).parents[1]

# A busy machine must not fail a property, and a continuous-integration run must be repeatable; new examples are
# looked for wherever else the tests run.
settings.register_profile("hsae", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("hsae")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of several testing processes has ended: what it compared is part of the summary."""
    for what, found in getattr(node, "workeroutput", {}).get("compared", {}).items():
        COMPARED[what].extend(found)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several testing processes tells the first what it compared."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["compared"] = dict(COMPARED)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many comparisons with the reference ran, and the largest difference seen."""
    if lines := summary():
        terminalreporter.section(f"compared with hypothesaes {VERSION}")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> Iterator[None]:
    """Nothing that the user has set for their own project reaches a test, and no test changes it for another."""
    ours = ("HSAE_", "DAGSTER_", "OPENAI_")
    spared = "HSAE_ACCEPT_"  # by which a developer accepts a changed snapshot
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours) or name.startswith(spared)}
    with mock.patch.dict(os.environ, kept, clear=True):
        yield


_EMBED = MiniLM.embed


@lru_cache(maxsize=64)
def _known_vectors(max_tokens: int, texts: tuple[str, ...]) -> np.ndarray:
    return _EMBED(MiniLM(max_tokens=max_tokens), texts)


@pytest.fixture(autouse=True, scope="session")
def _no_work_twice() -> Iterator[None]:
    """The same texts, which most tests have, are embedded once a process; and no test pulls the plug of the machine.

    `really_embedded` is for tests of the embedder. What is killed, in a process of its own, does flush.
    """
    with (
        mock.patch.object(MiniLM, "embed", lambda self, texts: _known_vectors(self.max_tokens, tuple(texts)).copy()),
        mock.patch("os.fsync", lambda descriptor: None),
    ):
        yield


@pytest.fixture
def really_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text is embedded, however often it was before."""
    monkeypatch.setattr(MiniLM, "embed", _EMBED)


@pytest.fixture(autouse=True)
def _unknown_servers() -> None:
    """No test knows what another has found out about a server that had the same port."""
    known_servers._KNOWN.clear()
    known_servers._ANSWERED.clear()


@pytest.fixture
def environment() -> Iterator[None]:
    """Whatever the test or the code under test sets in the environment is gone afterwards."""
    with mock.patch.dict(os.environ):
        yield


@dataclass(frozen=True)
class Finished:
    """A project with three finished datasets on the same texts, and the runs that made them. Not to be written to."""

    workspace: Workspace
    instance: dg.DagsterInstance
    runs: dict[str, Run]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`ratings` (regression), `parties` (classification) and `duels` (pairwise), materialized from files to report."""
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    instance = dg.DagsterInstance.ephemeral()
    texts = tiny_texts()
    workspace.declare("ratings", texts)
    workspace.declare(
        "parties",
        texts.with_columns(pl.when(pl.col("score") > 0).then(pl.lit("left")).otherwise(pl.lit("right")).alias("party")),
        task="classification",
        columns={"text": "text", "label": "party", "positive": "left", "cluster_by": "author"},
    )
    workspace.declare(
        "duels",
        tiny_pairs(texts),
        task="pairwise",
        columns={"text_a": "text_a", "text_b": "text_b", "label": "a_wins", "cluster_by": "author"},
    )
    runs = {name: workspace.run(name, instance=instance) for name in ("ratings", "parties", "duels")}
    return Finished(workspace, instance, runs)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Workspace:
    """A copy of the finished project that a test may change."""
    return finished.workspace.copy_to(tmp_path / "project")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty project."""
    return Workspace(tmp_path / "project")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The sample `planted` as it is declared in data/, materialized. Minutes; not to be written to."""
    workspace = Workspace(tmp_path_factory.mktemp("planted"))
    folder = workspace.root / "data" / "planted"
    folder.mkdir(parents=True)
    shutil.copy(CHECKOUT / "data" / "planted" / "dataset.yaml", folder)
    write_generated(folder, "planted", generate_planted())
    run = workspace.run("planted")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    return workspace
