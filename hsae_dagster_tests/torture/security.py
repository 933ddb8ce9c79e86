"""Nobody let in: links out, files that are programs, a key that must be nowhere, texts that are markup."""

import base64
import re
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.dataset.discovery import check_name, load_dataset
from hsae_dagster.errors import DatasetError, StorageError
from hsae_dagster.storage.artifacts import load_legacy_checkpoint
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import KEY, Raw
from hsae_dagster_tests.torture.children import Child
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, declare

GOOD = "task: regression\nfiles: {file}\ncolumns: {{text: text, label: label}}\n"
OUT = ("../secret.csv", "/etc/passwd", "link.csv", "folder/secret.csv", "a/../../secret.csv", "./../secret.csv", "\\0")
NAMES = (
    "..",
    ".",
    "a/b",
    "../a",
    "a\\b",
    "A",
    "a b",
    "a\n",
    "ä",
    "-a",
    "",
    "a" * 65,
    "a\0",
    "~",
    "a..b/..",
    "con/../a",
)
HOSTILE = (
    '<script>alert("{n}")</script>',
    "<img src=x onerror=alert({n})>",
    "![x](javascript:alert({n}))",
    "[click](javascript:alert({n}))",
    '"><svg onload=alert({n})>',
    "{{{{7*7}}}} {{% raw %}} ${{7*7}}",
    "</text></textarea><iframe src=//x.example/{n}>",
)
# Markup that would run if it stood in a page as it came; escaped, its first bracket is not one.
RUNS = re.compile(
    r"<script>alert|<img src=x|<svg onload=alert|<iframe src=//x|href=[\"']?\s*javascript:", re.IGNORECASE
)


def security(yard: Yard) -> list[Tally]:
    """All of it."""
    return [_paths(yard), _programs(yard), _key(yard), _markup(yard)]


def _paths(yard: Yard) -> Tally:
    tally = Tally("names and paths that lead out of data/")
    folder = yard.folder / "data" / "d"
    folder.mkdir(parents=True)
    (yard.folder / "secret.csv").write_text("text,label\nsecret,1\n", encoding="utf-8")
    (folder / "link.csv").symlink_to(yard.folder / "secret.csv")
    (folder / "folder").symlink_to(yard.folder)

    def refused(what: str, attempt: Any) -> None:
        try:
            attempt()
        except DatasetError:
            tally.tries += 1
        else:
            tally.expect(False, f"{what!r} was let through")

    for file in OUT:
        (folder / "dataset.yaml").write_text(GOOD.format(file=f'"{file}"'), encoding="utf-8")
        refused(file, lambda: load_dataset(folder.parent, "d").file_paths())
    (folder.parent / "out").symlink_to(yard.folder)
    (yard.folder / "dataset.yaml").write_text(GOOD.format(file="secret.csv"), encoding="utf-8")
    refused("a linked folder", lambda: load_dataset(folder.parent, "out"))
    for name in NAMES:
        refused(name, partial(check_name, name))
    return tally


class Program:
    """An object whose pickle runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def _programs(yard: Yard) -> Tally:
    import torch

    tally = Tally("checkpoints that are programs")
    marker, path = yard.folder / "it-ran", yard.folder / "hostile.pt"
    program = Program(marker)
    for content in (
        program,
        {"config": program, "state_dict": {}},
        {"config": {}, "state_dict": {"x": program}},
        [program],
    ):
        for legacy in (False, True):
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            try:
                load_legacy_checkpoint(path)
            except StorageError as error:
                tally.expect("nothing in it was run" in str(error), str(error))
            else:
                tally.expect(False, "a program was taken for a checkpoint")
    tally.expect(not marker.exists(), "a program ran")
    return tally


def _key(yard: Yard) -> Tally:
    """A server that repeats the key in its answers and errors; then the key is looked for in whatever was written."""
    tally = Tally("the key, in whatever a run wrote")
    home, workspace = yard.folder / "home", yard.project("keys")
    declare(workspace)
    home.mkdir()
    with asked_server(0.0) as server:
        chat, embed = server.chat, server.embed
        said = f"Incorrect API key provided: {KEY}."

        def telling(script: Any) -> Any:
            def answer(body: dict[str, Any], call: int) -> Any:
                if call % 9 == 4:
                    return Raw({"error": {"message": said, "type": "server_error", "code": KEY}}, 500)
                found = script(body, call)
                return Raw({**found.body, "id": f"id-{KEY}", "model": KEY, "system_fingerprint": KEY})

            return answer

        server.chat, server.embed = telling(chat), telling(embed)
        told = Child(partial(run_with_home, str(workspace.root), str(home)), yard.folder / "key.log").end()
        server.chat = lambda body, call: Raw({"error": {"message": said, "type": "auth", "code": KEY}}, 401)
        declare(workspace, annotation={"model": "openai:other"})
        Child(partial(run_with_home, str(workspace.root), str(home)), yard.folder / "refused.log").end()
    if not told:
        tally.wrong.append("the run failed, so that little was written")
    forms = {KEY.encode(), base64.b64encode(KEY.encode()), urllib.parse.quote(KEY).encode(), KEY[10:].encode()}
    for path in (path for top in (workspace.root, home, yard.folder) for path in top.rglob("*") if path.is_file()):
        data = path.read_bytes()
        tally.expect(not any(form in data for form in forms), f"the key stands in {path.relative_to(yard.folder)}")
    tally.note = "files"
    return tally


def run_with_home(root: str, home: str) -> bool:
    """In a child: every stage, its events kept in a Dagster home."""
    import dagster as dg

    with dg.DagsterInstance.local_temp(tempdir=home) as instance:
        return Workspace(Path(root)).run(NAME, instance=instance).success


def _markup(yard: Yard) -> Tally:
    tally, workspace = Tally("texts that are markup, on every page"), yard.project("markup")
    texts = tiny_texts(200).with_row_index("n")
    odd = [f"{text} {HOSTILE[n % len(HOSTILE)].format(n=n)}" for n, text in texts.select("n", "text").iter_rows()]
    frame = texts.drop("n").with_columns(
        pl.Series("text", odd), pl.Series("author", [f"<b>{a}</b>" for a in texts["author"]])
    )
    with asked_server(0.0):
        declare(workspace)
        workspace.declare(NAME, frame, description="<script>alert(1)</script>")
        said = yard.run(workspace)
    tally.wrong += [] if said.success else [f"the run failed: {said.words[-1500:]}"]
    for page in workspace.project.results.rglob("*.html"):
        found = RUNS.search(page.read_text(encoding="utf-8"))
        tally.expect(found is None, f"{page.name} holds {found[0] if found else ''}")
    tally.note = "pages"
    return tally
