"""The rule by which stages are refreshed, judged by Dagster's own evaluator on the real graph.

The stages' bodies are replaced by ones that finish at once with a data version the test chooses: keys, dependencies,
partitions, code versions and conditions are those of the definitions.
"""

from collections.abc import Callable, Iterable
from functools import cache
from unittest import mock

import dagster as dg
import pytest
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView

from hsae_dagster.assets.automation import refresh_condition
from hsae_dagster.definitions import STAGES, defs
from hsae_dagster.orchestration.project import DATASETS
from hsae_dagster_tests.assets.workspace import NAMES, asset_key

TEXTS = defs.resolve_asset_graph().get(asset_key("labelled_texts")).to_asset_spec()


class Pretence:
    """The project's graph with stages that do nothing, an instance, and the refresh sensor's ticks."""

    def __init__(self, *, new_too: bool = False) -> None:
        self.condition = refresh_condition([asset_key(name) for name in NAMES], new_too=new_too)
        self.instance = dg.DagsterInstance.ephemeral()
        self.versions: dict[tuple[str, str], str] = {}
        self.broken: set[str] = set()
        self.code: dict[str, str] = {}
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self.cursor: object = None

    def stages(self) -> list[dg.AssetsDefinition]:
        return [self._stage(next(iter(stage.specs))) for stage in STAGES]

    def _stage(self, spec: dg.AssetSpec) -> dg.AssetsDefinition:
        name = spec.key.path[-1]
        spec = spec.replace_attributes(
            code_version=self.code.get(name, spec.code_version), automation_condition=self.condition
        )

        @dg.multi_asset(specs=[spec], name=name)
        def stage(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            if name in self.meanwhile:
                self.meanwhile[name]()
            if name in self.broken:
                raise dg.Failure(description="broken", allow_retries=False)
            return dg.MaterializeResult(
                data_version=dg.DataVersion(self.versions.get((context.partition_key, name), "v1"))
            )

        return stage

    def arrive(self, dataset: str, version: str) -> None:
        """What the discovery sensor does when files appear or change."""
        self.instance.add_dynamic_partitions(DATASETS, [dataset])
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key("labelled_texts"), partition=dataset, tags={"dagster/data_version": version}
            )
        )

    def tick(self) -> dict[str, list[str]]:
        """Stages that the sensor would ask for, by dataset, in the graph's order."""
        # No dataset comes during a tick; to look again for each part of each condition would be most of its time.
        with mock.patch.object(self.instance, "get_dynamic_partitions", cache(self.instance.get_dynamic_partitions)):
            found = dg.evaluate_automation_conditions(
                defs=dg.Definitions([TEXTS, *self.stages()]), instance=self.instance, cursor=self.cursor
            )
        self.cursor = found.cursor
        asked: dict[str, list[str]] = {}
        for name in NAMES:
            for dataset in sorted(found.get_requested_partitions(asset_key(name))):
                asked.setdefault(str(dataset), []).append(name)
        return asked

    def run(self, dataset: str, names: Iterable[str]) -> bool:
        """What the daemon does with a request: one run of those assets."""
        job = dg.define_asset_job("requested", [asset_key(name) for name in NAMES])
        return (
            dg.Definitions([TEXTS, *self.stages()], jobs=[job])
            .resolve_job_def("requested")
            .execute_in_process(
                partition_key=dataset,
                asset_selection=[asset_key(name) for name in names],
                instance=self.instance,
                raise_on_error=False,
            )
            .success
        )

    def settle(self) -> None:
        """Run what is asked for until nothing is."""
        for _ in range(5):
            asked = self.tick()
            if not asked:
                return
            for dataset, names in asked.items():
                assert self.run(dataset, names)
        raise AssertionError(f"still asked for: {asked}")


def after(name: str) -> list[str]:
    """The stage and everything that reads it, directly or not."""
    graph = defs.resolve_asset_graph()
    found = {asset_key(name)}
    for stage in NAMES:
        if graph.get(asset_key(stage)).parent_keys & found:
            found.add(asset_key(stage))
    return [stage for stage in NAMES if asset_key(stage) in found]


@pytest.fixture
def pretence() -> Pretence:
    made = Pretence()
    for name in ("one", "two"):
        made.arrive(name, "a")
    return made


@pytest.fixture
def settled(pretence: Pretence) -> Pretence:
    for name in ("one", "two"):
        assert pretence.run(name, NAMES)
    pretence.settle()
    return pretence


def both_new() -> Pretence:
    """Two datasets that nobody has run yet, which are to be run all the same."""
    told = Pretence(new_too=True)
    for name in ("one", "two"):
        told.arrive(name, "a")
    return told


def test_told_so_it_asks_for_every_dataset_that_has_no_results_once() -> None:
    told = both_new()
    assert told.run("two", NAMES)
    assert told.tick() == {"one": NAMES}
    assert told.tick() == {}


def test_switched_on_it_asks_for_nothing_that_nobody_asked_for(pretence: Pretence) -> None:
    assert pretence.run("one", NAMES)
    for _ in range(2):
        assert pretence.tick() == {}
    pretence.arrive("two", "b")
    pretence.code["corpus"] = "changed"
    assert pretence.tick() == {"one": NAMES}
    # Once someone has begun with it, it is looked after as the others are.
    assert pretence.run("two", ["corpus"])
    assert pretence.tick()["two"] == NAMES[1:]


def test_changed_files_refresh_that_dataset_in_one_request(settled: Pretence) -> None:
    settled.arrive("one", "b")
    settled.arrive("three", "a")
    assert settled.tick() == {"one": NAMES}
    assert settled.run("one", NAMES)
    assert settled.tick() == {}


def test_what_changed_before_it_was_switched_on_is_refreshed(pretence: Pretence) -> None:
    for name in ("one", "two", "three"):
        pretence.arrive(name, "a")
        assert pretence.run(name, NAMES)
    pretence.arrive("one", "b")
    pretence.code["annotation_matrix"] = "changed"
    pretence.broken.add("annotation_matrix")
    assert not pretence.run("three", ["annotation_matrix"])  # which is not repeated
    pretence.broken.clear()
    assert pretence.tick() == {"one": NAMES, "two": after("annotation_matrix")}
    assert pretence.tick() == {}


def test_what_changed_before_it_was_switched_on_waits_for_a_run_under_way(pretence: Pretence) -> None:
    asked: list[dict[str, list[str]]] = []
    assert pretence.run("one", NAMES)
    pretence.arrive("one", "b")
    pretence.meanwhile["interpretations"] = lambda: asked.append(pretence.tick())
    assert pretence.run("one", ["interpretations"])
    assert asked == [{}]
    pretence.meanwhile.clear()
    assert pretence.tick() == {}  # one tick to be sure that the run has ended
    assert pretence.tick() == {"one": NAMES}


def test_the_same_files_told_again_refresh_nothing(settled: Pretence) -> None:
    settled.arrive("one", "a")
    assert settled.tick() == {}


@pytest.mark.parametrize("stage", ["corpus", "activations", "evaluation_report"])
def test_changed_code_refreshes_its_stage_and_what_reads_it(settled: Pretence, stage: str) -> None:
    settled.code[stage] = "changed"
    assert settled.tick() == {"one": after(stage), "two": after(stage)}
    for name in ("one", "two"):
        assert settled.run(name, after(stage))
    assert settled.tick() == {}


def test_a_stage_made_again_with_the_same_content_stops_the_cascade(settled: Pretence) -> None:
    assert settled.run("one", ["activations"])
    assert settled.tick() == {}


def test_a_stage_made_by_hand_with_new_content_refreshes_what_reads_it(settled: Pretence) -> None:
    settled.versions["one", "activations"] = "v2"
    assert settled.run("one", ["activations"])
    assert settled.tick() == {}  # one tick to see whether what reads it was in the same run
    assert settled.tick() == {"one": [name for name in after("activations") if name != "activations"]}


def test_several_datasets_run_at_once_ask_for_nothing_while_they_run() -> None:
    pretence = both_new()
    asked = []
    assert pretence.tick() == {"one": NAMES, "two": NAMES}
    # "two" ends between two ticks of the run of "one", and is then not the last to have been updated.
    assert pretence.run("two", NAMES[:-1])
    assert pretence.run("one", NAMES)
    asked.append(pretence.tick())
    assert pretence.run("two", NAMES[-1:])
    asked.append(pretence.tick())
    assert asked == [{}, {}]


def test_a_run_that_ends_while_a_tick_is_evaluated_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pretence = both_new()
    assert pretence.tick() == {"one": NAMES, "two": NAMES}
    asked = []

    async def seems_ended(view: AssetGraphView, *, key: dg.AssetKey, from_subset: object) -> object:
        return view.get_empty_subset(key=key)

    def race() -> None:
        # "one" is now the last to have been updated, and the run of "two" is known to make its last stage no more.
        del pretence.meanwhile["evaluation_report"]
        assert pretence.run("one", NAMES)
        asked.append(pretence.tick())
        # The run of "two" ends, but what its last stage made comes after what this tick may see.
        with monkeypatch.context() as patch:
            patch.setattr(AssetGraphView, "compute_run_in_progress_subset", seems_ended)
            asked.append(pretence.tick())

    pretence.meanwhile["evaluation_report"] = race
    assert pretence.run("two", NAMES)
    asked.extend([pretence.tick(), pretence.tick()])
    assert asked == [{}, {}, {}, {}]


def test_a_failed_stage_is_tried_again_on_the_next_change_and_not_before(settled: Pretence) -> None:
    settled.broken.add("selected_neurons")
    settled.arrive("one", "b")
    settled.versions["one", "corpus"] = "v2"
    assert settled.tick() == {"one": NAMES}
    assert not settled.run("one", NAMES)
    for _ in range(2):
        assert settled.tick() == {}
    settled.broken.clear()
    settled.arrive("one", "c")
    assert settled.tick() == {"one": NAMES}


def test_a_failed_new_dataset_is_tried_again_when_its_code_changes(settled: Pretence) -> None:
    settled.broken.add("sae_checkpoints")
    settled.arrive("new", "a")
    assert not settled.run("new", NAMES)
    assert settled.tick() == {}
    settled.code["sae_checkpoints"] = "repaired"
    assert settled.tick()["new"] == after("sae_checkpoints")


def test_a_change_during_a_run_waits_for_that_run_and_is_not_lost(settled: Pretence) -> None:
    asked: list[dict[str, list[str]]] = []

    def change() -> None:
        settled.arrive("one", "c")
        asked.extend([settled.tick(), settled.tick()])

    settled.arrive("one", "b")
    assert settled.tick() == {"one": NAMES}
    settled.meanwhile["selected_neurons"] = change
    assert settled.run("one", NAMES)
    assert asked == [{}, {}]
    del settled.meanwhile["selected_neurons"]
    assert settled.tick() == {}  # one tick to be sure that the run has ended
    assert settled.tick() == {"one": NAMES}


def test_files_that_change_while_they_are_read_are_read_again(settled: Pretence) -> None:
    # The corpus refuses such files (see test_arriving_files), so its step fails and stays due.
    def change() -> None:
        settled.arrive("one", "c")
        assert settled.tick() == {}

    settled.arrive("one", "b")
    assert settled.tick() == {"one": NAMES}
    settled.meanwhile["corpus"] = change
    settled.broken.add("corpus")
    assert not settled.run("one", NAMES)
    settled.meanwhile.clear()
    settled.broken.clear()
    assert settled.tick() == {}
    assert settled.tick() == {"one": NAMES}


def test_every_stage_has_the_rule_and_the_sensor_reaches_it() -> None:
    graph = defs.resolve_asset_graph()
    for name in NAMES:
        condition = graph.get(asset_key(name)).automation_condition
        assert condition is not None
        assert condition.get_label() == "refresh"
    sensor = defs.get_sensor_def("refresh")
    assert isinstance(sensor, dg.AutomationConditionSensorDefinition)
    assert sensor.asset_selection.resolve(graph) >= {asset_key(name) for name in NAMES}
