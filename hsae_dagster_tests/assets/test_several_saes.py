"""Several autoencoders of one dataset: each trained in a step of its own, none twice, all in one result."""

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from hsae_dagster.dataset.sections import SAE
from hsae_dagster.stages import autoencoders
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_texts
from hsae_dagster_tests.live.processes import make_home, processes

NAME = "sae_checkpoints"
SMALL = {"max_epochs": 3, "batch_size": 32}
TWO = [{"m": 8, "k": 2, **SMALL}, {"m": 6, "k": 3, **SMALL}]
TRAINED = ["sae1_m8_k2", "sae2_m6_k3"]


def steps(events: Any) -> dict[str, list[str]]:
    """Steps of the stage that ran, by what they do: keys of the mapped ones."""
    found: dict[str, list[str]] = {}
    for event in events:
        if event.is_step_start and str(event.step_key).startswith(f"{NAME}."):
            name, key = re.fullmatch(rf"{NAME}\.(\w+)(?:\[(\w+)\])?", str(event.step_key)).groups()  # type: ignore[union-attr]
            found.setdefault(name, []).append(key or "")
    return {name: sorted(keys) for name, keys in found.items()}


def trained(run: Run) -> list[str]:
    return steps(run.result.all_events).get("train", [])


@pytest.fixture
def two(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path)
    made.declare("one", tiny_texts(120), saes=TWO)
    return made


def test_each_autoencoder_is_a_step_and_a_finished_one_is_none(two: Workspace) -> None:
    run = two.run("one", upto=NAME)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert steps(run.result.all_events) == {"list_untrained": [""], "train": TRAINED, "gather": [""]}
    assert [r["config"]["m"] for r in two.current("one", NAME).json("saes.json")] == [8, 6]
    assert not run.metadata(NAME)["reused"]
    before = two.current("one", NAME)

    again = two.run("one", NAME)
    assert trained(again) == []
    assert again.metadata(NAME)["reused"]

    two.declare("one", None, saes=[*TWO, {"m": 4, "k": 1, **SMALL}])
    more = two.run("one", upto=NAME)
    assert trained(more) == ["sae3_m4_k1"]
    records = two.current("one", NAME).json("saes.json")
    assert [r["sae_id"] for r in records[:2]] == [r["sae_id"] for r in before.json("saes.json")]


def test_what_another_step_left_unfinished_is_all_that_is_trained_again(
    two: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = autoencoders._train

    def broken(lessons: Any, sae: Any, *rest: Any) -> None:
        if sae.m == 6:
            raise RuntimeError("the machine was switched off")
        real(lessons, sae, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(autoencoders, "_train", broken)
        assert list(two.run("one", upto=NAME).failures) == [NAME]
    again = two.run("one", NAME)
    assert again.success
    assert trained(again) == TRAINED[1:]


def test_equal_ones_are_trained_once_and_further_seeds_are_steps_too(tmp_path: Path) -> None:
    made = Workspace(tmp_path)
    made.declare("one", tiny_texts(120), saes=[TWO[0], TWO[0], {**TWO[0], "seed": 1}], sae_seeds=2)
    run = made.run("one", upto=NAME)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    # The third is the first one's further seed.
    assert trained(run) == ["sae1_m8_k2", "sae1_m8_k2_seed1", "sae3_m8_k2_seed2"]
    records = made.current("one", NAME).json("saes.json")
    further = made.current("one", NAME).json("seeds.json")
    assert [record["config"]["seed"] for record in records] == [0, 1]
    assert [[twin["config"]["seed"] for twin in further[record["sae_id"]]] for record in records] == [[1], [2]]


def test_a_measured_size_is_one_step_for_the_whole_grid(tmp_path: Path) -> None:
    made = Workspace(tmp_path)
    made.declare("one", tiny_texts(120), saes={"auto": {"max_epochs": 2}})
    run = made.run("one", upto=NAME)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert trained(run) == ["grid"]
    assert not run.metadata(NAME)["reused"]


@pytest.mark.slow
def test_with_processes_each_autoencoder_has_one_of_its_own(two: Workspace, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    environment = {
        "DAGSTER_HOME": str(home),
        "HSAE_DATA_DIR": two.project.data_dir,
        "HSAE_RESULTS_DIR": two.project.results_dir,
        "HSAE_EXECUTOR": "multiprocess",
    }
    stages = "corpus", "embeddings", NAME
    with (
        processes(tmp_path / "logs", **environment) as running,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        launched = running.python("run", "-m", "hsae_dagster_tests.live.launch", "one", *stages)
        assert launched.wait(timeout=400) == 0, running.log("run")[-3000:]
        (run,) = instance.get_runs()
        entries = instance.all_logs(run.run_id)
        assert steps(e.dagster_event for e in entries if e.dagster_event)["train"] == TRAINED
        training = [e.dagster_event for e in entries if e.dagster_event and ".train[" in str(e.step_key)]
        kinds = dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS
        # The GPU pool lets one in at a time.
        assert [e.event_type for e in training if e.event_type in kinds] == [*kinds, *kinds]
        assert len({e.pid for e in training if e.event_type is kinds[0]} | {launched.pid, os.getpid()}) == 4
    assert len(json.loads(two.current("one", NAME).file("saes.json").read_text(encoding="utf-8"))) == 2


def test_the_device_is_part_of_what_an_autoencoder_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU takes what a worker's GPU has trained; a GPU does not take what a CPU has trained."""
    sae, dataset = SAE(m=8, k=2), SimpleNamespace(name="one")
    finished: set[str] = set()
    store = SimpleNamespace(finished=lambda inputs: inputs.key in finished)
    stage = SimpleNamespace(dataset=dataset, project=SimpleNamespace(store=store))
    lessons: Any = SimpleNamespace(stage=stage, texts_fingerprint={"train texts": "1", "validation texts": "2"})
    keys = {device: autoencoders.inputs_of(lessons, sae, device).key for device in ("cpu", "cuda", "mps")}
    assert len(set(keys.values())) == 3
    for own, there, taken in (("cpu", "cuda", "cuda"), ("cuda", "cpu", None), ("mps", "mps", "mps"), ("cpu", "", None)):
        monkeypatch.setattr(autoencoders, "choose_device", lambda own=own: own)
        finished.clear()
        finished.update({keys[there]} if there else ())
        assert autoencoders.trained_on(lessons, sae) == taken
