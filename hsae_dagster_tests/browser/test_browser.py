"""Tested as a person would: the Dagster UI and the report in a real browser.

The dataset is the injected one, so that every page on the way is also shown texts that try to be markup. Screenshots
land in the folder named by SCREENSHOTS if it is set, for whoever wants to look at them.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hsae_dagster.assets.catalog import gather, write_overview
from hsae_dagster.orchestration.project import DATASETS, TEMPLATE
from hsae_dagster_tests.assets.injected import NAME, declare_injected
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, asset_key, tiny_texts
from hsae_dagster_tests.browser.pages import browser, chromium, dagster_server, violations
from hsae_dagster_tests.live.processes import free_port, listens, processes, wait_for

pytestmark = pytest.mark.slow

FRESH = "fresh"
CARD = f"/assets/hsae/hypothesis_card?view=partitions&partition={NAME}%7Ch01"
PATIENCE = 60_000  # milliseconds; a busy machine is slow, a broken page is never there


@dataclass(frozen=True)
class Site:
    """A running Dagster, a browser, and the project behind them."""

    address: str
    chromium: Any
    workspace: Workspace
    home: Path

    def open(self, path: str, width: int = 1400, height: int = 1000) -> Any:
        page = self.chromium.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        page.goto(path if ":" in path else self.address + path)
        return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    chromium()
    root = tmp_path_factory.mktemp("browser")
    workspace, home = Workspace(root / "project"), root / "home"
    declare_injected(workspace)
    workspace.declare(FRESH, tiny_texts())
    home.mkdir()
    shutil.copy(TEMPLATE, home / "dagster.yaml")
    # Links that runs write lead to the server of the reports beside Dagster.
    reports = free_port()
    os.environ["HSAE_REPORTS_URL"] = f"http://127.0.0.1:{reports}"
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = workspace.run(NAME, instance=instance)
        assert run.success, {step: run.sentence(step) for step in run.failures}
        instance.add_dynamic_partitions(DATASETS, [FRESH])
    write_overview(workspace.project, gather(workspace.project))
    project = workspace.project
    serve = "hsae_dagster", "serve", "--port", str(reports)
    environment = {"HSAE_HOME": str(workspace.root), "DAGSTER_HOME": str(home)}
    with (
        processes(root / "logs", **environment) as beside,
        dagster_server(home, project.data, project.results) as address,
        browser() as launched,
    ):
        beside.python("serve", "-m", *serve)
        wait_for("the reports are served", lambda: listens(reports))
        yield Site(address, launched, workspace, home)


def keep(page: Any, name: str, *, whole: bool = False) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=whole)


def test_the_graph_shows_the_flow_and_every_stage(site: Site) -> None:
    page = site.open("/asset-groups", 1700, 1000)
    for group in ("texts", "model", "hypotheses", "catalog"):
        page.get_by_text(group, exact=True).first.wait_for()
    keep(page, "graph")
    shown = {
        "texts": ["labelled_texts", *NAMES[:2]],
        "model": NAMES[2:5],
        "hypotheses": [*NAMES[5:], "hypothesis_card"],
    }
    for group, names in shown.items():
        page.goto(f"{site.address}/locations/hsae_dagster/asset-groups/{group}")
        for name in names:
            page.get_by_text(name, exact=True).first.wait_for()
        keep(page, f"graph_{group}")
    page.close()


def test_the_report_opens_from_the_ui_and_leads_to_its_tables_and_back(site: Site) -> None:
    page = site.open(f"/assets/hsae/evaluation_report?view=partitions&partition={NAME}")
    row = page.locator("tr", has=page.get_by_text("open the report", exact=True))
    link = row.get_by_role("link", name=re.compile(rf"{NAME}\.html"))
    link.wait_for()
    keep(page, "evaluation_report", whole=True)
    page.goto(str(link.get_attribute("href")))
    page.get_by_role("heading", name=NAME).first.wait_for()
    keep(page, "report_served")
    page.get_by_role("link", name="Tables", exact=True).click()
    page.get_by_role("link", name=re.compile("^CSV of hypotheses")).wait_for()
    assert violations(page) == []
    keep(page, "tables")
    page.get_by_role("link", name="All evaluations").click()
    page.get_by_role("link", name=re.compile("^Parquet and CSV")).first.wait_for()
    page.go_back()
    page.get_by_role("link", name="The report of this evaluation").click()
    leads = page.get_by_role("link", name="In Dagster").get_attribute("href")
    assert str(leads).endswith(f"/assets/hsae/evaluation_report?view=partitions&partition={NAME}")
    page.close()


def test_only_hypotheses_that_exist_have_a_partition(site: Site) -> None:
    page = site.open("/assets/hsae/hypothesis_card?view=partitions")
    page.get_by_text(f"{NAME}|h01", exact=True).first.wait_for()
    assert page.get_by_text("Missing", exact=True).count() <= 1  # the legend
    assert "h20" not in page.inner_text("body")
    keep(page, "cards")
    page.close()


def test_dark_pages_are_readable_too(site: Site) -> None:
    page = site.chromium.new_page(viewport={"width": 1100, "height": 900}, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    page.goto(f"{os.environ['HSAE_REPORTS_URL']}/{NAME}.html")
    assert violations(page) == []
    keep(page, "report_dark")
    page.get_by_role("link", name="Tables", exact=True).click()
    assert violations(page) == []
    keep(page, "tables_dark")
    page.close()


def test_a_partition_is_materialized_by_clicking(site: Site) -> None:
    page = site.open(f"/assets/hsae/corpus?view=partitions&partition={FRESH}")
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(FRESH, exact=True).first.wait_for()
    dialog.get_by_role("button", name=re.compile("Launch 1 run")).click()
    with dg.DagsterInstance.from_config(str(site.home)) as instance:
        end = time.monotonic() + PATIENCE / 1000
        while FRESH not in instance.get_materialized_partitions(asset_key("corpus")) and time.monotonic() < end:
            page.wait_for_timeout(500)
    page.goto(f"{site.address}/assets/hsae/corpus?view=partitions&partition={FRESH}")
    page.get_by_text("rows read", exact=True).first.wait_for()  # what the run says of what it made
    keep(page, "materialized")
    page.close()
    assert site.workspace.current(FRESH, "corpus").run_id


def test_a_card_leads_to_the_checkpoint_and_to_the_run(site: Site) -> None:
    page = site.open(CARD)
    # Each part is waited for: Dagster draws the table first and the Markdown within it, pictures too, a moment later.
    page.get_by_text("why this badge").wait_for()
    page.get_by_text("This is the first evaluation.").first.wait_for()
    page.get_by_text("current", exact=True).first.wait_for()
    histogram = page.locator("img[src^='data:image/png']")
    histogram.wait_for()  # beside the claim; more than one would be refused here
    assert histogram.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    keep(page, "card")
    page.get_by_role("link", name=f"sae_checkpoints of {NAME}").click()
    page.wait_for_url(re.compile(rf"/assets/hsae/sae_checkpoints\?view=partitions&partition={NAME}"))
    page.get_by_text("autoencoders", exact=True).first.wait_for()
    keep(page, "checkpoint")
    page.go_back()
    page.get_by_text("why this badge").wait_for()
    run_id = site.workspace.current(NAME, "sae_checkpoints").run_id
    row = page.locator("tr", has=page.get_by_text("from sae_checkpoints", exact=True))
    row.get_by_role("link", name=f"run {run_id[:8]}").click()
    page.wait_for_url(re.compile(rf"/runs/{run_id}"))
    page.get_by_text("Success").first.wait_for()
    keep(page, "run")
    page.close()


def test_the_whole_card_opens_and_what_looks_like_markup_stays_text(site: Site) -> None:
    page = site.open(CARD)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("tr", has=page.get_by_text("card", exact=True)).get_by_text("[Show Markdown]").click()
    page.get_by_text("Texts that it holds for", exact=True).wait_for()
    dialog = page.get_by_role("dialog")
    assert "<script>document.title='owned'</script>" in dialog.inner_text()
    assert dialog.locator("img, script, a").count() == 0
    assert page.title() != "owned"
    assert not [url for url in asked if "127.0.0.1:9/" in url]
    page.wait_for_timeout(500)  # it fades in
    keep(page, "whole_card")
    page.close()


def test_the_report_reads_well_for_everyone(site: Site) -> None:
    reports = site.workspace.project.results / "reports"
    report = (reports / f"{NAME}.html").as_uri()
    asked: list[str] = []
    for width, name in ((1100, "report"), (360, "report_360")):
        page = site.open("about:blank", width, 900)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut off at the side"
        keep(page, name)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        keep(page, f"{name}_open", whole=True)
        assert page.title() != "owned"
        page.close()
    assert set(asked) == {report}, "one file, and nothing else is asked for"


def test_the_report_is_read_by_keyboard(site: Site) -> None:
    page = site.open((site.workspace.project.results / "reports" / f"{NAME}.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").startswith("Texts that show it, near misses"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open") is True
    page.close()


@pytest.mark.parametrize("name", ["index.html", f"{NAME}/index.html"])
def test_the_lists_of_reports_are_whole_and_their_links_lead_somewhere(site: Site, name: str) -> None:
    page = site.open((site.workspace.project.results / "reports" / name).as_uri(), 360, 900)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, name.replace("/", "_").removesuffix(".html"))
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    targets = {link.split("#")[0] for link in links}
    assert targets
    for target in targets:
        assert Path(target.removeprefix("file://")).exists(), target
    page.close()
