"""The small project that is tortured, and what is the same about two of it.

Belongs here: declaring it, its undisturbed twin, comparing results byte for byte. Does not belong here: any torture.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsae_dagster.errors import HsaeError
from hsae_dagster.storage.objects import MANIFEST
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback, Raw, completion, embeddings
from hsae_dagster_tests.torture.children import Said, finished_run, start_run

NAME = "asked"
TEXTS = 160
# They say which run made a result, when, and what it paid; nothing else may differ between two runs.
OWN = {MANIFEST, "_spending.json"}
RUN_OR_TIME = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00| UTC|Z)?"
)


@dataclass(frozen=True)
class Yard:
    """Where the harness works, how much it does (`short`: minutes' share of CI), and its randomness."""

    folder: Path
    rng: np.random.Generator
    short: bool

    def some(self, full: int, short: int) -> int:
        return short if self.short else full

    def project(self, name: str) -> Workspace:
        """An empty project in a folder of its own."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Workspace(self.folder / name)

    def run(self, workspace: Workspace, *stages: str, **environment: str) -> Said:
        """Materialize stages (default: all) of the project's dataset in a child."""
        return finished_run(start_run(workspace.root, self.log, NAME, *stages, **environment))

    @property
    def log(self) -> Path:
        return self.folder / "child.log"


def declare(workspace: Workspace, **changes: Any) -> None:
    """The tiny texts with everything asked of the scripted server, in small batches so that there is much to stop."""
    embedding = {**scripted.MODELS["embedding"], "batch_size": 10}
    workspace.declare(NAME, tiny_texts(TEXTS), **{**scripted.MODELS, "embedding": embedding, **changes})


@contextmanager
def asked_server(delay: float = 0.02) -> Iterator[Loopback]:
    """A server for everything a run asks, each answer after `delay` seconds; the environment points to it."""

    def chat(body: dict[str, Any], call: int) -> Raw:
        said = scripted.chat(body, call)
        raw = said if isinstance(said, Raw) else completion(scripted.json.dumps(said))
        return Raw(raw.body, delay=delay)

    def embed(body: dict[str, Any], call: int) -> Raw:
        return Raw(embeddings(scripted.embed(body, call)).body, delay=delay)

    with Loopback(chat, embed) as server:
        scripted.use(server)
        yield server


def finished(yard: Yard, name: str) -> Workspace:
    """A project with everything materialized, by the server that the environment names."""
    workspace = yard.project(name)
    declare(workspace)
    said = yard.run(workspace)
    assert said.success, said.words
    return workspace


def differences(workspace: Workspace, calm: Workspace, *stages: str) -> list[str]:
    """What the current results (and the page) of a project lack of, or have other than, its undisturbed twin."""
    found = []
    for stage in stages or NAMES:
        try:
            mine, theirs = (each.current(NAME, stage) for each in (workspace, calm))
        except HsaeError as error:
            found.append(str(error))
            continue
        found += _unequal(mine.folder, theirs.folder, stage)
    if not stages or "evaluation_report" in stages:
        reports = [each.project.results / "reports" for each in (workspace, calm)]
        found += _unequal(*reports, "reports")
    return found


def _unequal(mine: Path, theirs: Path, what: str) -> list[str]:
    files = [
        {path.relative_to(top).as_posix(): _content(path) for path in top.rglob("*") if path.is_file()}
        for top in (mine, theirs)
    ]
    names = sorted(files[0].keys() | files[1].keys())
    return [f"{what}/{name}" for name in names if name not in OWN and files[0].get(name) != files[1].get(name)]


def _content(path: Path) -> bytes:
    return RUN_OR_TIME.sub(b"-", path.read_bytes())


def half_written(workspace: Workspace) -> list[str]:
    """Results that a reader would take for whole and that are not."""
    store, found = workspace.store, []
    for manifest in (workspace.project.results / "objects").glob(f"[!.]*/[!.]*/{MANIFEST}"):
        try:
            store.verified(NAME, store.at(manifest.parent.relative_to(store.root).as_posix()))
        except HsaeError as error:
            found.append(str(error))
    for asset in store.versions(NAME):
        try:
            store.current(NAME, asset)
        except HsaeError as error:
            found.append(str(error))
    for page in (workspace.project.results / "reports").glob("[!.]*.html"):
        if not page.read_text(encoding="utf-8").rstrip().endswith("</html>"):
            found.append(f"{page.name} is half a page")
    return found
