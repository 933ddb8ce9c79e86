"""Discovery: folders become partitions, changes become events, and one bad folder takes nothing from the others."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.assets.automation import dataset_arrivals, nightly
from hsae_dagster.assets.catalog import dataset_catalog
from hsae_dagster.dataset.discovery import Dataset, files_fingerprint, load_dataset
from hsae_dagster.definitions import JOB, defs
from hsae_dagster.errors import DatasetError
from hsae_dagster.orchestration.project import DATASETS
from hsae_dagster.report.page import card_partition
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, asset_key, tiny_texts


class Watcher:
    """Ticks of the sensor against one instance, carrying its cursor on and adding the partitions it asks for."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"folders": self.workspace.project}
        )
        with context:
            found = dataset_arrivals(context)
        if isinstance(found, dg.SensorResult):
            for request in found.dynamic_partitions_requests or []:
                name = str(request.partitions_def_name)
                assert name in (DATASETS, self.workspace.project.cards_name)
                if isinstance(request, dg.AddDynamicPartitionsRequest):
                    self.instance.add_dynamic_partitions(name, list(request.partition_keys))
                else:
                    for key in request.partition_keys:
                        self.instance.delete_dynamic_partition(name, key)
            self.cursor = found.cursor
            for event in found.asset_events:
                self.instance.report_runless_asset_event(event)
            assert not found.run_requests  # nothing runs unasked
        else:
            self.cursor = context.cursor
        return found

    def events(self) -> dict[str, str]:
        """Data version by dataset of the events of one tick; a tick without any must say why."""
        found = self.tick()
        if isinstance(found, dg.SkipReason):
            assert found.skip_message
            return {}
        assert all(event.asset_key == asset_key("labelled_texts") for event in found.asset_events)
        arrived = [event for event in found.asset_events if isinstance(event, dg.AssetMaterialization)]
        return {str(event.partition): event.tags["dagster/data_version"] for event in arrived}

    @property
    def partitions(self) -> set[str]:
        return set(self.instance.get_dynamic_partitions(DATASETS))

    def version(self, dataset: str) -> str:
        return files_fingerprint(load_dataset(self.workspace.project.data, dataset))


@pytest.fixture
def watcher(workspace: Workspace) -> Watcher:
    for name in ("one", "two"):
        workspace.declare(name, tiny_texts(30))
    return Watcher(workspace)


def test_new_folders_become_partitions_with_their_data_version(watcher: Watcher) -> None:
    assert watcher.events() == {"one": watcher.version("one"), "two": watcher.version("two")}
    assert watcher.partitions == {"one", "two"}
    watcher.workspace.declare("three", tiny_texts(30))
    assert watcher.events() == {"three": watcher.version("three")}
    assert watcher.partitions == {"one", "two", "three"}


def test_nothing_changed_is_a_skip_that_says_so(watcher: Watcher) -> None:
    watcher.tick()
    for _ in range(2):
        found = watcher.tick()
        assert isinstance(found, dg.SkipReason)
        assert "none of 2 datasets changed" in (found.skip_message or "")


def test_an_edited_file_is_one_event_of_its_dataset_alone(watcher: Watcher) -> None:
    before = watcher.events()
    watcher.workspace.declare("two", tiny_texts(31))
    assert watcher.events() == {"two": watcher.version("two")}
    assert watcher.version("two") != before["two"]
    assert watcher.events() == {}


def test_an_edited_declaration_is_an_event_and_a_comment_in_it_is_none(watcher: Watcher) -> None:
    watcher.tick()
    path = watcher.workspace.root / "data" / "one" / "dataset.yaml"
    path.write_text("# mine\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert watcher.events() == {}
    watcher.workspace.declare("one", None, selection={"n": 3})
    assert set(watcher.events()) == {"one"}


def test_an_old_cursor_repeats_and_a_changed_back_file_is_a_change(watcher: Watcher) -> None:
    first = watcher.events()
    after_first = watcher.cursor
    watcher.workspace.declare("one", tiny_texts(31))
    assert set(watcher.events()) == {"one"}
    watcher.cursor = after_first
    assert set(watcher.events()) == {"one"}
    watcher.workspace.declare("one", tiny_texts(30))
    assert watcher.events() == {"one": first["one"]}
    assert {name: version for name, (version, _) in json.loads(watcher.cursor or "").items()} == first


def test_a_file_is_read_again_only_when_its_size_or_time_changes(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.tick()
    read: list[str] = []

    def reading(dataset: Dataset) -> str:
        read.append(dataset.name)
        return files_fingerprint(dataset)

    monkeypatch.setattr("hsae_dagster.assets.automation.files_fingerprint", reading)
    watcher.tick()
    assert not read
    os.utime(watcher.workspace.root / "data" / "one" / "texts.parquet", (1, 1))
    for _ in range(2):
        assert watcher.events() == {}
    assert read == ["one"]  # touched, not changed: read once, told to nobody
    watcher.workspace.declare("two", tiny_texts(31))
    assert set(watcher.events()) == {"two"}
    assert read == ["one", "two"]


def test_a_lost_instance_gets_its_partitions_back_without_a_new_event(watcher: Watcher) -> None:
    watcher.tick()
    watcher.instance = dg.DagsterInstance.ephemeral()
    assert watcher.events() == {}
    assert watcher.partitions == {"one", "two"}


def test_a_removed_dataset_is_retired_and_found_again_when_it_returns(watcher: Watcher) -> None:
    watcher.tick()
    folder = watcher.workspace.root / "data" / "two"
    folder.rename(watcher.workspace.root / "elsewhere")
    found = watcher.tick()
    assert isinstance(found, dg.SensorResult)
    (event,) = found.asset_events
    assert isinstance(event, dg.AssetObservation)
    assert (event.partition, event.metadata["state"].value) == ("two", "retired")
    assert watcher.partitions == {"one"}
    assert watcher.events() == {}
    # Not forgotten: its arrival stays on record, the catalog names it, and unchanged files are no news.
    assert watcher.instance.get_materialized_partitions(asset_key("labelled_texts")) == {"one", "two"}
    assert catalog(watcher)["retired"] == "two"
    (watcher.workspace.root / "elsewhere").rename(folder)
    assert watcher.events() == {}
    assert watcher.partitions == {"one", "two"}
    assert catalog(watcher)["retired"] == "none"


def test_a_data_folder_that_is_away_retires_nobody(watcher: Watcher) -> None:
    watcher.tick()
    (watcher.workspace.root / "data").rename(watcher.workspace.root / "unmounted")
    assert isinstance(watcher.tick(), dg.SkipReason)
    assert watcher.partitions == {"one", "two"}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("task: [", "not valid YAML"),
        ("task: regression\nfiles: a.csv\ncolumns: {text: t, label: l}\nmodel: x\n", "`model` is not a field"),
        ("task: regression\nfiles: a.csv\ncolumns: {text: t, label: l}\n", "a.csv"),
        ("", "must hold fields"),
        (b"\xff\xfe\x00", "UTF-8"),
        (None, "dataset.yaml"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_told_of_and_the_others_are_served(
    watcher: Watcher, broken: str | bytes | None, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = watcher.workspace.root / "data" / "bad" / "dataset.yaml"
    path.parent.mkdir()
    if broken is None:
        path.mkdir()
    else:
        path.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    assert set(watcher.events()) == {"one", "two"}
    assert "bad" not in watcher.partitions
    assert said in capfd.readouterr().err
    for _ in range(2):
        with pytest.raises(DatasetError, match=said) as refused:
            watcher.tick()
        assert str(path.parent) in str(refused.value)
    watcher.workspace.declare("one", tiny_texts(31))
    assert set(watcher.events()) == {"one"}  # harmless: the others go on


def test_a_folder_whose_name_cannot_be_a_partition_is_told_of(watcher: Watcher) -> None:
    watcher.workspace.declare("Bad Name", tiny_texts(30))
    assert set(watcher.events()) == {"one", "two"}
    with pytest.raises(DatasetError, match="Bad Name"):
        watcher.tick()


def test_no_data_folder_is_a_skip(workspace: Workspace) -> None:
    assert isinstance(Watcher(workspace).tick(), dg.SkipReason)


def catalog(watcher: Watcher) -> dict[str, object]:
    result = dg.materialize(
        [dataset_catalog], instance=watcher.instance, resources={"project": watcher.workspace.project}
    )
    (event,) = result.asset_materializations_for_node("dataset_catalog")
    return {name: value.value for name, value in event.metadata.items()}


def test_the_catalog_registers_what_the_sensor_would(watcher: Watcher) -> None:
    for _ in range(2):
        told = catalog(watcher)
        assert watcher.partitions == {"one", "two"}
        assert told["dagster/row_count"] == 2
        assert [row.data["dataset"] for row in told["datasets"].records] == ["one", "two"]
        versions = [row.data["data version"] for row in told["datasets"].records]
        assert all(
            watcher.version(name).startswith(version) for name, version in zip(("one", "two"), versions, strict=True)
        )
        assert told["not usable"] == "none"


def test_the_catalog_lists_what_cannot_be_used(watcher: Watcher) -> None:
    watcher.workspace.declare("bad", None, selection={"n": -1})
    told = catalog(watcher)
    assert watcher.partitions == {"one", "two"}
    (row,) = told["not usable"].records
    assert "`selection.n` is -1" in row.data["problem"]


def test_the_sensor_looks_by_default_and_the_job_is_every_stage() -> None:
    assert defs.get_sensor_def("dataset_arrivals").default_status is dg.DefaultSensorStatus.RUNNING
    job = defs.resolve_job_def("analyse_dataset")
    assert job.asset_layer.selected_asset_keys == {asset_key(name) for name in NAMES}


def test_nothing_that_starts_runs_is_on_by_default() -> None:
    running = [s.name for s in defs.sensors or [] if s.default_status is dg.DefaultSensorStatus.RUNNING]
    assert running == ["dataset_arrivals", "lost_runs", "watch"]
    assert not [s for s in defs.schedules or [] if s.default_status is dg.DefaultScheduleStatus.RUNNING]
    assert defs.get_sensor_def("refresh").default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.parametrize("new_too", [False, True])
def test_the_nightly_schedule_asks_for_every_usable_dataset_that_was_run_before(
    watcher: Watcher, tmp_path: Path, new_too: bool
) -> None:
    watcher.instance = dg.DagsterInstance.local_temp(str(tmp_path))
    watcher.tick()
    job = defs.resolve_job_def("analyse_dataset")
    watcher.instance.create_run_for_job(job, tags={"dagster/partition": "two"})  # whatever became of it
    watcher.workspace.declare("unknown", tiny_texts(30))  # the sensor has not seen it yet
    watcher.workspace.declare("bad", None, selection={"n": -1})
    night = datetime(2026, 11, 24, 2, tzinfo=UTC)
    with dg.build_schedule_context(
        instance=watcher.instance,
        scheduled_execution_time=night,
        resources={"folders": watcher.workspace.given(refresh_new=new_too)},
        repository_def=defs.get_repository_def(),
    ) as context:
        asked = nightly.evaluate_tick(context).run_requests or []
    assert [(request.run_key, request.partition_key) for request in asked] == [
        *([("one 2026-11-24", "one")] if new_too else []),
        ("two 2026-11-24", "two"),
    ]
    assert nightly.job_name == JOB


def test_changed_files_mark_the_cards_that_came_from_the_old_ones(copied: Workspace) -> None:
    watcher = Watcher(copied)
    watcher.tick()
    assert copied.run("ratings", "evaluation_report", instance=watcher.instance).success
    assert isinstance(watcher.tick(), dg.SkipReason)
    copied.declare("ratings", tiny_texts(301))
    found = watcher.tick()
    assert isinstance(found, dg.SensorResult)
    cards = [event for event in found.asset_events if event.asset_key == asset_key("hypothesis_card")]
    # Two of the tiny texts' topics move the score, and each makes at least one claim.
    claims = copied.current("ratings", "evaluation_report").json("_table.json")
    assert len(claims) >= 2
    assert {str(card.partition) for card in cards} == {
        card_partition("ratings", number + 1) for number in range(len(claims))
    }
    for card in cards:
        assert card.metadata["status"].value.startswith("stale: The files or dataset.yaml have changed since.")
        assert card.metadata["claim"].value


def test_everything_that_runs_by_itself_says_what_it_does() -> None:
    for each in (*(defs.sensors or []), *(defs.schedules or []), *(defs.jobs or [])):
        assert each.description, each.name
