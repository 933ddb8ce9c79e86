"""From files to a report, for each task: what Dagster is told, and that it is true of what is stored."""

import base64
import re

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset
from hsae_dagster.orchestration.stage import CHECKS
from hsae_dagster.report.page import card_partition
from hsae_dagster.storage.artifacts import read_codes, read_frame
from hsae_dagster_tests.assets.workspace import NAMES, TOPICS, Workspace, asset_key, topic_of
from hsae_dagster_tests.conftest import Finished

DATASETS = ("ratings", "parties", "duels")
FIGURES = {
    "corpus": {"outcome"},
    "sae_checkpoints": {"loss", "course"},
    "activations": {"firing rates"},
    "selected_neurons": {"path"},
    "annotation_matrix": {"prevalence"},
    "evaluation_report": {"effects", "fit ladder"},
}
TABLES = {
    "corpus": {"splits"},
    "sae_checkpoints": {"autoencoders"},
    "selected_neurons": {"neurons"},
    "interpretations": {"claims"},
    "evaluation_report": {"hypotheses", "joint fit"},
}
MOST_FIGURE_BYTES = 100_000


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_stage_succeeds_and_every_structural_check_passes(finished: Finished, dataset: str) -> None:
    run = finished.runs[dataset]
    assert run.success, {step: run.sentence(step) for step in run.failures}
    declared = {f"{asset}.{name}": blocking for asset, found in CHECKS.items() for name, (blocking, _) in found.items()}
    assert set(run.checks) == set(declared)
    for name, blocking in declared.items():
        assert run.checks[name].blocking == blocking
        assert run.checks[name].passed or not blocking, run.checks[name]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("asset", NAMES)
def test_figures_are_small_pngs_and_tables_have_rows(finished: Finished, dataset: str, asset: str) -> None:
    metadata = finished.runs[dataset].metadata(asset)
    pictures = {
        name: match for name, value in metadata.items() if (match := re.fullmatch(r"!\[(.*)\]\((.*)\)", str(value)))
    }
    assert set(pictures) == FIGURES.get(asset, set())
    for name, match in pictures.items():
        alt, link = match.groups()
        prefix = "data:image/png;base64,"
        assert link.startswith(prefix)
        png = base64.b64decode(link.removeprefix(prefix), validate=True)
        assert png.startswith(b"\x89PNG\r\n")
        assert len(png) < MOST_FIGURE_BYTES, (name, len(png))
        assert len(alt) > 20
    for name in TABLES.get(asset, set()):
        rows = [record.data for record in metadata[name].records]
        assert rows, name
        assert all(set(row) == set(rows[0]) for row in rows)


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_is_told_of_counts_is_what_is_stored(finished: Finished, dataset: str) -> None:
    run, workspace = finished.runs[dataset], finished.workspace

    def rows(asset: str, file: str) -> int:
        return read_frame(workspace.current(dataset, asset).file(file)).height

    texts = rows("corpus", "texts.parquet")
    records = workspace.current(dataset, "interpretations").json("concepts.json")
    claims = [record["concept"]["concept_id"] for record in records if record["concept"]]
    # One claim for each topic that matters at least; no other claim is worth having beside them.
    assert 2 <= len(claims) <= 4
    told = {asset: run.metadata(asset)["dagster/row_count"] for asset in NAMES if asset != "sae_checkpoints"}
    assert told == {
        "corpus": texts,
        "embeddings": texts,
        "activations": texts,
        "selected_neurons": 4,
        "interpretations": len(claims),
        "annotation_matrix": rows("annotation_matrix", "annotations.parquet"),
        "evaluation_report": rows("evaluation_report", "hypotheses.parquet"),
    }
    assert run.metadata("interpretations")["neurons without a claim"] == len(records) - len(claims)
    assert rows("evaluation_report", "hypotheses.parquet") == len(claims)
    assert run.metadata("annotation_matrix")["concepts"] == len(claims)
    assert run.metadata("corpus")["observations"] == rows("corpus", "observations.parquet")
    codes = read_codes(workspace.current(dataset, "activations").file("codes.safetensors"))
    assert codes.shape == (texts, 8)
    assert run.metadata("activations")["activations per text"] == pytest.approx(codes.nnz / texts, abs=0.01)
    assert codes.nnz <= 2 * texts


@pytest.mark.parametrize("dataset", DATASETS)
def test_data_versions_are_those_of_the_stored_content_all_the_way_up(finished: Finished, dataset: str) -> None:
    run, workspace = finished.runs[dataset], finished.workspace
    stored = {asset: workspace.current(dataset, asset) for asset in NAMES}
    for asset in NAMES:
        tags = run.event(asset).tags or {}
        assert tags["dagster/data_version"] == stored[asset].data_version
        upstream = run.metadata(asset)["upstream versions"]
        assert upstream == {name: stored[name].data_version for name in upstream}
        # What follows from texts alone is shared by datasets of the same texts; the first of them made everything.
        own = run.metadata(asset)["made by run"] == run.result.run_id
        assert run.metadata(asset)["reused"] is not own
        assert own or (dataset != "ratings" and asset in ("embeddings", "sae_checkpoints", "activations"))


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_hypothesis_has_a_card_with_its_lineage(finished: Finished, dataset: str) -> None:
    run, workspace = finished.runs[dataset], finished.workspace
    hypotheses = read_frame(workspace.current(dataset, "evaluation_report").file("hypotheses.parquet"))
    assert hypotheses.height >= 2
    assert set(run.cards) == {card_partition(dataset, number + 1) for number in range(hypotheses.height)}
    for number, row in enumerate(hypotheses.iter_rows(named=True), 1):
        card = run.cards[card_partition(dataset, number)]
        assert card["number"] == number
        assert card["claim"] == row["claim"]
        assert card["badge"] == row["badge"]
        assert card["effect"] == pytest.approx(row["effect_estimate"], rel=1e-3)
        assert card["neuron"] == f"{row['sae_id']}/{row['sae_column']}"
        assert row["claim"].split("“")[1].split("”")[0] in card["card"]
        versions = dict(card["upstream data versions"])
        assert versions.pop("labelled_texts") == files_fingerprint(load_dataset(workspace.project.data, dataset))
        assert versions == {name: workspace.current(dataset, name).data_version for name in NAMES[:-1]}
        assert card["evaluation data version"] == workspace.current(dataset, "evaluation_report").data_version
        files = {path.name for path in workspace.current(dataset, "sae_checkpoints").folder.iterdir()}
        assert f"{row['sae_id']}.safetensors" in files


def test_cards_are_partitions_that_dagster_knows(finished: Finished) -> None:
    written = finished.instance.get_materialized_partitions(asset_key("hypothesis_card"))
    assert written == {key for run in finished.runs.values() for key in run.cards}


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_topics_that_matter_are_found_with_the_right_sign(finished: Finished, dataset: str) -> None:
    found = read_frame(finished.workspace.current(dataset, "evaluation_report").file("hypotheses.parquet"))
    holding = found.filter(pl.col("badge").is_in(["confirmed", "suggestive"]))
    effects: dict[str, list[float]] = {topic: [] for topic in TOPICS}
    for row in holding.iter_rows(named=True):
        words = re.findall("“(.*?)”", row["claim"])
        effects[topic_of(" ".join(words))].append(row["effect_estimate"])
    assert effects["cooking"]
    assert effects["sailing"]
    assert min(effects["cooking"]) > 0 > max(effects["sailing"])


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_report_is_one_page_that_asks_for_nothing(finished: Finished, dataset: str) -> None:
    page = (finished.workspace.project.results / "reports" / f"{dataset}.html").read_text(encoding="utf-8")
    assert finished.runs[dataset].metadata("evaluation_report")["report"].endswith(f"reports/{dataset}.html")
    assert page.lower().startswith("<!doctype html>")
    assert "<script" not in page
    kept = finished.workspace.current(dataset, "evaluation_report").file("_report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!["']?(data:|#))""", kept)
    # The published one leads to what lies beside it, and to Dagster.
    leads = [link for link in re.findall(r'href="([^"]+)"', page) if link not in kept]
    *beside, dagster = leads
    assert dagster == f"http://127.0.0.1:3000/assets/hsae/evaluation_report?view=partitions&amp;partition={dataset}"
    reports = finished.workspace.project.results / "reports"
    assert [(reports / link).is_file() for link in beside] == [True, True]
    tables = (reports / beside[1]).parent
    listed = re.findall(r'href="([a-z_]+\.(?:csv|parquet))"', (tables / "index.html").read_text(encoding="utf-8"))
    assert set(listed) == {path.name for path in tables.iterdir()} - {"index.html"}
    told = finished.runs[dataset].metadata("evaluation_report")
    assert told["open the report"] == f"http://127.0.0.1:3001/{dataset}.html"
    for number in range(1, len(finished.runs[dataset].cards) + 1):
        assert f"| {number} | [" in told["cards"]


def test_ranks_that_are_no_longer_used_are_retired(copied: Workspace) -> None:
    instance = dg.DagsterInstance.ephemeral()
    before = copied.run("ratings", "evaluation_report", instance=instance)
    # Two topics matter, and there is a claim for each at least.
    assert set(before.cards) == {card_partition("ratings", number + 1) for number in range(len(before.cards))}
    assert len(before.cards) >= 2
    copied.declare("ratings", None, selection={"n": 1})
    stages = NAMES[NAMES.index("selected_neurons") :]
    after = copied.run("ratings", *stages, instance=instance)
    assert after.success
    retired = {key: card["badge"] == "retired" for key, card in after.cards.items()}
    assert retired == {key: key != "ratings|h01" for key in before.cards}
    # Another dataset's cards are none of its business.
    other = copied.run("parties", "evaluation_report", instance=instance)
    assert {key.split("|")[0] for key in other.cards} == {"parties"}


def test_a_failed_structural_check_leaves_the_last_good_result_current(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = copied.bytes_of("datasets", "reports")
    from hsae_dagster.assets import activations

    monkeypatch.setattr(
        activations,
        "_check",
        lambda found, n: [activations.check_result("activations", "one_row_per_text", False)],
    )
    copied.declare("ratings", None, saes=[{"m": 6, "k": 2, "max_epochs": 5, "batch_size": 32}])
    run = copied.run("ratings")
    assert not run.success
    assert not run.checks["activations.one_row_per_text"].passed
    assert not run.result.asset_materializations_for_node("selected_neurons")
    after = copied.bytes_of("datasets", "reports")
    changed = {path for path in good if after[path] != good[path]}
    # What is upstream of the failure succeeded and is current.
    assert changed <= {"datasets/ratings/corpus", "datasets/ratings/sae_checkpoints"}
    assert "datasets/ratings/sae_checkpoints" in changed


def test_what_is_a_table_tells_its_rows_and_columns_under_the_names_that_dagster_knows(finished: Finished) -> None:
    run, workspace = finished.runs["ratings"], finished.workspace
    for asset, file in (("corpus", "texts"), ("annotation_matrix", "annotations"), ("evaluation_report", "hypotheses")):
        frame = read_frame(workspace.current("ratings", asset).file(f"{file}.parquet"))
        told = run.metadata(asset)
        assert told["dagster/row_count"] == frame.height
        assert [column.name for column in told["dagster/column_schema"].columns] == frame.columns
