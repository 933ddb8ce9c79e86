"""Markup in texts, names and claims shows as text wherever it is shown: pages, cards, metadata, tables."""

import re
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.assets.catalog import gather, write_overview
from hsae_dagster.report.page import best_markdown, dagster_root, overview_markdown
from hsae_dagster_tests.assets.injected import NAME, declare_injected
from hsae_dagster_tests.assets.workspace import NAMES, Run, Workspace
from hsae_dagster_tests.report.test_page import Page

SAFE = re.compile(r"!\[[^\]]*\]\(data:image/png;base64,[A-Za-z0-9+/=]+\)|\[[^\]]*\]\(/(?:assets|runs)/[^()\s]*\)")


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    workspace = Workspace(tmp_path_factory.mktemp("injected"))
    declare_injected(workspace)
    run = workspace.run(NAME)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    return workspace, run


def test_the_markup_reached_the_claims_and_the_evidence(injected: tuple[Workspace, Run]) -> None:
    cards = injected[1].cards.values()
    assert any("script" in card["card"] for card in cards)
    assert all("owned" in card["card"] for card in cards)


def markdown(run: Run) -> dict[str, str]:
    """Everything that Dagster renders as markdown, by asset, partition and name."""
    found = {}
    for event in run.result.get_asset_materialization_events():
        made = event.step_materialization_data.materialization
        for name, value in made.metadata.items():
            if isinstance(value, dg.MarkdownMetadataValue):
                found[f"{made.asset_key.to_user_string()} {made.partition} {name}"] = value.value or ""
    return found


def test_what_dagster_renders_holds_only_our_own_markup(injected: tuple[Workspace, Run]) -> None:
    lines = gather(injected[0].project)
    shown = markdown(injected[1]) | {"overview": overview_markdown(lines, "e"), "best": best_markdown(lines, "c")}
    # Of every stage, and of the card of each claim.
    assert len(shown) > 20 and injected[1].cards
    for place, value in shown.items():
        rest = SAFE.sub("", value)
        assert "<" not in rest, place
        assert not re.search(r"(?<!\\)!\[|(?<!\\)\]\(", rest), place


def test_every_page_shows_it_as_text(injected: tuple[Workspace, Run]) -> None:
    workspace, _ = injected
    workspace.declare(NAME, None, **{**_declared(workspace), "selection": {"n": 3}})
    assert workspace.run(NAME).success  # a second evaluation, for the page of changes
    write_overview(workspace.project, gather(workspace.project))
    pages = sorted((workspace.project.results / "reports").rglob("*.html"))
    assert {path.name for path in pages} >= {"index.html", f"{NAME}.html"}
    assert any(path.name.endswith("-changes.html") for path in pages)
    for path in pages:
        assert_inert(path)


def _declared(workspace: Workspace) -> dict[str, object]:
    import yaml

    text = (workspace.root / "data" / NAME / "dataset.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def assert_inert(path: Path) -> None:
    page = Page(path.read_text(encoding="utf-8"))
    assert not {tag for tag, _ in page.tags} & {"script", "img", "b:bold", "iframe", "form", "link"}, path
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (path, tag)
        address = str(attributes.get("href", "#"))
        if address.startswith(f"{dagster_root()}/assets/"):  # the page's own way to the evaluation in Dagster
            assert re.fullmatch(r"[\w%/-]+\?view=partitions&partition=[\w%-]+", address.removeprefix(dagster_root())), (
                path
            )
            continue
        assert not address.startswith(("javascript", "data", "http")), path


def test_no_table_is_run_by_a_spreadsheet(injected: tuple[Workspace, Run]) -> None:
    from hsae_dagster.report.content import csv_bytes

    frame = pl.DataFrame(
        {"a": ["=1+1", "-x", "@y", "plain", None], "b": [-1.5, 2.0, 0.0, 1.0, None], "c": [["=a"]] * 5}
    )
    lines = csv_bytes(frame).decode().splitlines()
    assert lines[0] == "a,b,c"
    assert [line.split(",")[0] for line in lines[1:]] == ["'=1+1", "'-x", "'@y", "plain", ""]
    assert lines[1].split(",")[1] == "-1.5", "numbers stay numbers"
    folder = injected[0].project.results / "reports" / NAME
    assert len(list(folder.rglob("*.csv"))) >= len(NAMES)
