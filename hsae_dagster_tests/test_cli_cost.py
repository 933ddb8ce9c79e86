"""`hsae cost`: what it would take, told without key, server or spending."""

import pytest

from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.test_cli import assert_a_sentence, settle, spawn

pytestmark = pytest.mark.usefixtures("environment")


def test_an_offline_dataset_costs_nothing(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts())
    settle(workspace.root)
    done = spawn("cost", "ratings")
    assert done.returncode == 0, done.stderr
    assert "`ratings` asks no paid model: nothing to pay." in done.stdout


def test_a_new_dataset_is_estimated_from_its_texts_without_a_key(workspace: Workspace) -> None:
    workspace.declare(
        "asked",
        tiny_texts(),
        embedding={"model": "openai:text-embedding-3-small"},
        interpretation={"model": "openai:gpt-5.2", "candidates": 2, "scoring_texts": 20},
        annotation={"model": "openai:gpt-4o-mini", "calibration": 10},
        spending={"budget_usd": 2.5},
    )
    settle(workspace.root)
    done = spawn("cost", "asked")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    for stage in ("embeddings", "interpretations", "annotation_matrix", "all"):
        assert "$" in rows[stage], stage
    # The texts were read for it; nothing else was made, and nobody was asked.
    assert "rough" in rows["interpretations"]
    assert "Spent so far: 0 calls, $0.0000." in done.stdout
    assert "Budget (spending in dataset.yaml): $2.50." in done.stdout
    # Before any of it is spent: how people's labels can decide.
    assert "No labels of people check openai:gpt-4o-mini" in done.stdout
    assert "`hsae gold asked` draws the texts to label" in done.stdout
    assert not (workspace.project.results / "lancedb" / "llm_calls.lance").exists()


def test_a_dataset_that_is_not_there_is_a_sentence(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts())
    settle(workspace.root)
    assert_a_sentence(spawn("cost", "nosuch"))
