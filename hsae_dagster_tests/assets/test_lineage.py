"""The walk from a card to the texts behind it, and what a card says when something it rests on has changed."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.keys import text_id
from hsae_dagster.report.cards import excerpt
from hsae_dagster.report.page import card_partition
from hsae_dagster.report.wording import one_line
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, asset_key, tiny_texts
from hsae_dagster_tests.conftest import Finished

DATASETS = ("ratings", "parties", "duels")
LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")


def links(card: dict[str, Any]) -> list[str]:
    """Addresses of every link on a card, pictures aside."""
    shown = [str(value) for name, value in card.items() if name.startswith("from ") or name == "evaluation"]
    return [address for value in shown for _, address in LINK.findall(value)]


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_link_of_every_card_leads_to_what_dagster_has(finished: Finished, dataset: str) -> None:
    cards = finished.runs[dataset].cards
    assert cards
    for card in cards.values():
        assert card["status"] == "current"
        followed = set()
        for address in links(card):
            target = urlsplit(address)
            _, kind, *path = target.path.split("/")
            key = path[-1]
            followed.add(key)
            if kind == "runs":
                assert finished.instance.has_run(key)
                continue
            assert dg.AssetKey(path) in {asset_key(name) for name in (*NAMES, "labelled_texts")}
            query = parse_qs(target.query)
            assert (kind, query) == ("assets", {"view": ["partitions"], "partition": [dataset]})
            if key != "labelled_texts":  # which the sensor reports, not a run
                event = latest(finished.instance, key, dataset)
                assert (event.tags or {})["dagster/data_version"] == version(card, key)
        assert followed >= {*NAMES, "labelled_texts"}


def latest(instance: dg.DagsterInstance, asset: str, partition: str) -> dg.AssetMaterialization:
    wanted = dg.AssetRecordsFilter(asset_key=asset_key(asset), asset_partitions=[partition])
    event = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert event is not None
    return event


def version(card: dict[str, Any], asset: str) -> str:
    return card["evaluation data version"] if asset == "evaluation_report" else card["upstream data versions"][asset]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_versions_on_a_card_are_those_that_each_step_read(finished: Finished, dataset: str) -> None:
    store = finished.workspace.store
    record = LineageLog(store).latest(dataset)
    assert record is not None
    assert record.mixed == ()
    versions = {origin.asset: origin.data_version for origin in record.origins}
    assert set(versions) == set(NAMES) - {"evaluation_report"}
    assert record.files == files_fingerprint(load_dataset(finished.workspace.project.data, dataset))
    for origin in (*record.origins, record.evaluation):
        stored = store.verified(dataset, store.at(origin.place))
        assert stored.data_version == origin.data_version
        assert dict(stored.inputs.upstream).items() <= versions.items()
        assert origin.upstream or origin.asset == "corpus"
    order = [origin.asset for origin in record.origins]
    assert all(order.index(name) < order.index(o.asset) for o in record.origins for name in o.upstream)
    for card in finished.runs[dataset].cards.values():
        assert card["upstream data versions"] == {"labelled_texts": record.files, **versions}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_quoted_text_stands_in_the_files_and_every_quote_in_its_text(finished: Finished, dataset: str) -> None:
    workspace = finished.workspace
    frame = read_rows(load_dataset(workspace.project.data, dataset)).frame
    in_files = {text_id(text) for side in frame.columns if side.startswith("text") for text in frame[side]}
    held = read_frame(workspace.current(dataset, "corpus").file("texts.parquet")).filter(pl.col("split") == "holdout")
    known = dict(held.select("text_id", "text").iter_rows())
    evaluation = workspace.current(dataset, "evaluation_report")
    evidence = read_frame(evaluation.file("evidence.parquet"))
    assert set(evidence["role"]) >= {"for"}
    assert set(evidence["hypothesis_id"]) == set(read_frame(evaluation.file("hypotheses.parquet"))["hypothesis_id"])
    examples = {
        example["text_id"]: example
        for sides in evaluation.json("evidence.json").values()
        for side in sides.values()
        for example in side
    }
    for row in evidence.iter_rows(named=True):
        assert row["text_id"] in in_files
        assert known[row["text_id"]] == row["text"]
        segments = excerpt(row["text"], examples[row["text_id"]]["because"])
        whole = one_line(row["text"])
        at = 0
        for segment in segments:
            if segment.text != "…":
                at = whole.index(segment.text, at) + len(segment.text)


def statuses(workspace: Workspace, instance: dg.DagsterInstance, dataset: str = "ratings") -> list[str]:
    record = LineageLog(workspace.store).latest(dataset)
    assert record is not None
    return [card_of(workspace, instance, dataset, number)["status"] for number in range(1, len(record.hypotheses) + 1)]


def card_of(workspace: Workspace, instance: dg.DagsterInstance, dataset: str, number: int) -> dict[str, Any]:
    wanted = dg.AssetRecordsFilter(asset_key("hypothesis_card"), asset_partitions=[card_partition(dataset, number)])
    events = [record.asset_materialization for record in instance.fetch_materializations(wanted, limit=1).records]
    return {name: value.value for name, value in events[0].metadata.items()} if events and events[0] else {}


def test_a_card_says_stale_when_something_changed_without_the_rest_and_current_when_it_changes_back(
    copied: Workspace,
) -> None:
    instance = dg.DagsterInstance.ephemeral()
    assert copied.run("ratings", "evaluation_report", instance=instance).success
    assert set(statuses(copied, instance)) == {"current"}
    before = (copied.root / "data" / "ratings" / "dataset.yaml").read_bytes()
    # With so many texts needed for a test no claim about one topic has enough of them.
    copied.declare("ratings", None, inference={"min_positives": 45, "bootstrap": 20, "folds": 3, "same_concept": 1.1})
    run = copied.run("ratings", "interpretations", instance=instance)
    assert run.success
    for status in statuses(copied, instance):
        assert status.startswith("stale: The files or dataset.yaml have changed since. `interpretations` has changed")
    # Another stage that runs meanwhile does not repeat the warning.
    again = copied.run("ratings", "selected_neurons", instance=instance)
    assert not cards_written(again)
    (copied.root / "data" / "ratings" / "dataset.yaml").write_bytes(before)
    assert copied.run("ratings", "interpretations", instance=instance).success
    assert set(statuses(copied, instance)) == {"current"}


def cards_written(run: Any) -> list[str]:
    events = run.result.get_asset_materialization_events()
    return [str(e.partition) for e in events if e.asset_key == asset_key("hypothesis_card")]


def test_an_evaluation_of_results_that_do_not_fit_together_is_stale_from_the_start(copied: Workspace) -> None:
    texts = tiny_texts()
    other = texts.with_columns(pl.when(pl.int_range(pl.len()) == 0).then(9.0).otherwise(pl.col("score")).alias("score"))
    copied.declare("ratings", other)
    instance = dg.DagsterInstance.ephemeral()
    run = copied.run("ratings", "corpus", "evaluation_report", instance=instance)
    assert run.success
    record = LineageLog(copied.store).latest("ratings")
    assert record is not None
    readers = {re.findall("`(.*?)`", sentence)[0] for sentence in record.mixed}
    assert {"selected_neurons", "interpretations", "annotation_matrix"} <= readers
    for status in statuses(copied, instance):
        assert status.startswith("stale: ")
        assert "`annotation_matrix` was made from another version of `corpus`" in status
    whole = copied.run("ratings", instance=instance)
    assert whole.success
    assert set(statuses(copied, instance)) == {"current"}


def test_a_reworded_claim_keeps_its_hypothesis_and_the_card_says_what_changed(copied: Workspace) -> None:
    log = LineageLog(copied.store)
    first = log.latest("ratings")
    assert first is not None
    # Boats lie somewhere else from now on: the claim about them lists another word, and has the same other texts.
    copied.declare("ratings", tiny_texts().with_columns(pl.col("text").str.replace_all("harbour", "marina")))
    run = copied.run("ratings")
    assert run.success
    second = log.latest("ratings")
    assert second is not None
    assert (first.number, second.number) == (1, 2)
    ids = [{row["hypothesis_id"]: row["concept_id"] for row in record.hypotheses} for record in (first, second)]
    kept = ids[0].keys() & ids[1].keys()
    assert len(kept) >= 2
    reworded = {key for key in kept if ids[0][key] != ids[1][key]}
    assert reworded
    for number, row in enumerate(second.hypotheses, 1):
        known = row["known_by"]
        card = run.cards[card_partition("ratings", number)]
        if row["hypothesis_id"] in reworded:
            assert known["was"] == ids[0][row["hypothesis_id"]]
            assert known["phi"] >= 0.7
            assert "Matched although its concept changed" in card["since the last evaluation"]
        elif row["hypothesis_id"] not in kept:
            assert card["since the last evaluation"].startswith("New")
    # Asked again, nothing changes, and both evaluations stay where they are.
    before = (copied.bytes_of(), log.records("ratings"))
    assert copied.run("ratings").success
    assert (copied.bytes_of(), log.records("ratings")) == before
    reports = copied.project.results / "reports"

    def page(path: Path) -> str:
        # Where a report lies decides what it links to.
        places = r'<nav aria-label="Beside this report">.*?</nav>'
        return re.sub(places, "<!-- places -->", path.read_text(encoding="utf-8"), flags=re.DOTALL)

    for record in (first, second):
        stored = copied.store.at(record.evaluation.place).file("_report.html").read_text(encoding="utf-8")
        assert page(reports / "ratings" / f"{record.key}.html") == stored
    assert page(reports / "ratings.html") == page(reports / "ratings" / f"{second.key}.html")
    index = (reports / "ratings" / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'href="([^"#]+)"', index):
        assert (reports / "ratings" / target).exists(), target
    changes = (reports / "ratings" / f"{second.key}-changes.html").read_text(encoding="utf-8")
    assert f"{len(kept)} moved" in changes or "unchanged" in changes
    # Every id, old or new, still resolves.
    for key in ids[0].keys() | ids[1].keys():
        assert log.find(key)
        assert log.find(key[:8])[-1].hypothesis(key)


def test_every_table_is_there_as_parquet_and_csv(finished: Finished) -> None:
    record = LineageLog(finished.workspace.store).latest("ratings")
    assert record is not None
    folder = finished.workspace.project.results / "reports" / "ratings" / record.key
    tables = {path.stem for path in folder.glob("*.parquet")}
    assert tables >= {"hypotheses", "fits", "evidence", "splits", "settings", "versions"}
    for name in tables:
        whole = pl.read_parquet(folder / f"{name}.parquet")
        assert pl.read_csv(folder / f"{name}.csv", infer_schema=False).shape == whole.shape


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_evaluation_links_to_every_card(finished: Finished, dataset: str) -> None:
    run = finished.runs[dataset]
    told = run.metadata("evaluation_report")
    targets = [parse_qs(urlsplit(address).query)["partition"][0] for _, address in LINK.findall(told["cards"])]
    assert set(targets) == set(run.cards) and len(targets) == len(run.cards)
    assert (finished.workspace.project.results / "reports" / dataset / "index.html").is_file()


def test_cards_have_a_partition_each_and_those_left_over_are_retired_once_and_lose_theirs(copied: Workspace) -> None:
    instance = dg.DagsterInstance.ephemeral()

    def partitions(dataset: str) -> set[str]:
        return {key for key in instance.get_dynamic_partitions(copied.project.cards_name) if key.startswith(dataset)}

    assert copied.run("parties", "evaluation_report", instance=instance).success
    numbers = range(1, 1 + len(cards_written(copied.run("ratings", "evaluation_report", instance=instance))))
    assert len(numbers) >= 2
    assert partitions("ratings") == {card_partition("ratings", number) for number in numbers}
    copied.declare("ratings", None, selection={"n": 1})
    stages = NAMES[NAMES.index("selected_neurons") :]
    copied.run("ratings", *stages, instance=instance)
    assert partitions("ratings") == {"ratings|h01"}
    assert "parties|h01" in partitions("parties")
    retired = [card_of(copied, instance, "ratings", number)["badge"] == "retired" for number in numbers]
    assert retired == [number > 1 for number in numbers]
    again = copied.run("ratings", "evaluation_report", instance=instance)
    assert cards_written(again) == ["ratings|h01"]
