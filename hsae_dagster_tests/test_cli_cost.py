"""`hsae cost`: what it would take, told without key, server or spending."""

import pytest

from hsae_dagster.providers.replies import NO_TOKENS
from hsae_dagster.providers.spending import Ledger
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.providers.loopback import Loopback, judge_by
from hsae_dagster_tests.providers.test_ledger import entry
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
    assert "No human labels check the judge openai:gpt-4o-mini" in done.stdout
    assert "`hsae gold asked` draws the texts to label" in done.stdout
    assert Ledger(workspace.project.results).spent("asked").calls == 0


def test_what_was_taken_at_its_worst_price_is_told(workspace: Workspace) -> None:
    workspace.declare("asked", tiny_texts(), annotation={"model": "openai:gpt-4o-mini"})
    settle(workspace.root)
    uncounted = entry("one", dataset="asked", usage=NO_TOKENS, cost_usd=0.5)
    lost = entry("two", dataset="asked", kind="intent", cost_usd=0.25, answer=None, parsed=None)
    keep(workspace.project.results, uncounted, lost, entry("three", dataset="asked"))
    done = spawn("cost", "asked")
    assert done.returncode == 0, done.stderr
    said = (
        "Spent so far: 3 calls, $1.00 (with 1 calls whose tokens the server did not count and 1 calls whose "
        "answer never arrived, counted at their maximum cost)."
    )
    assert said in done.stdout


def test_a_trial_asks_the_real_server_for_its_time(workspace: Workspace) -> None:
    workspace.declare("asked", tiny_texts(), annotation={"model": "openai:judge", "calibration": 0})
    settle(workspace.root)
    with Loopback(judge_by(lambda predicate, text: True)) as server:
        scripted.use(server)
        dry = spawn("cost", "asked")
        assert server.calls == []
        tried = spawn("cost", "asked", "--trial")
        assert tried.returncode == 0, tried.stderr
        assert len(server.calls) == 9
    (before,), (after,) = (
        [line for line in done.stdout.splitlines() if line.startswith("annotation_matrix")] for done in (dry, tried)
    )
    assert "9 of 9 requests answered" in tried.stdout
    assert before != after


def test_a_dataset_that_is_not_there_is_a_sentence(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts())
    settle(workspace.root)
    assert_a_sentence(spawn("cost", "nosuch"))
