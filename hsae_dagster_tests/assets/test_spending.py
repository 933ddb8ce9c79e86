"""What stages say they will spend, never pass, and ask again only where nobody answered."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.core.concepts.fidelity import RULES
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.providers.spending import Ledger
from hsae_dagster.stages.gold import draw_sheet
from hsae_dagster.stages.paid import FINISHED, ask_again, estimate_costs
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_texts
from hsae_dagster_tests.providers.accounts import priced
from hsae_dagster_tests.providers.loopback import (
    KEY,
    Loopback,
    Raw,
    completion,
    failure,
    judge_by,
    shown_concepts,
    shown_texts,
    user_message,
)

pytestmark = pytest.mark.usefixtures("environment")
ESTIMATED = ("interpretations", "annotation_matrix")


def declare(workspace: Workspace, **changes: Any) -> None:
    """The tiny texts, asked of the scripted models; `changes` to sections are laid over theirs."""
    sections = {
        name: {**scripted.MODELS.get(name, {}), **fields} if isinstance(fields, dict) else fields
        for name, fields in changes.items()
    }
    workspace.declare(
        "asked", None if (workspace.root / "data").exists() else tiny_texts(), **{**scripted.MODELS, **sections}
    )


def costs(workspace: Workspace) -> dict[str, Any]:
    dataset = load_dataset(workspace.project.data, "asked")
    return {each.stage: each for each in estimate_costs(workspace.project, dataset)}


@dataclass(frozen=True)
class Selected:
    workspace: Workspace
    server: Loopback


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Selected]:
    """Neurons are selected, nothing is interpreted; the model has a price."""
    root = tmp_path_factory.mktemp("selected")
    workspace = Workspace(root)
    declare(workspace)
    with mock.patch.dict("os.environ"), Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        assert workspace.run("asked", upto="selected_neurons").success
        yield Selected(workspace, server)


@pytest.fixture
def ready(selected: Selected, tmp_path: Path) -> Iterator[Selected]:
    """A copy to spend in, with a server of its own."""
    with Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        yield Selected(selected.workspace.copy_to(tmp_path), server)


def told(run: Run, part: str) -> list[str]:
    """Lines of a run's log with `part` in them."""
    records = run.instance.get_records_for_run(run.result.run_id).records
    return [record.event_log_entry.user_message for record in records if part in record.event_log_entry.user_message]


def test_the_estimate_is_near_what_is_asked_and_finished_stages_cost_nothing(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    server.chat = scripted.candidly
    before = costs(workspace)
    # Another server is another embedding set: its vectors would be new, in one request.
    assert before["embeddings"].estimate.calls == 1
    assert before["annotation_matrix"].basis.startswith("rough")
    assert server.calls == []
    run = workspace.run("asked", "interpretations")
    assert run.success
    asked = len(server.calls)
    assert before["interpretations"].estimate.calls == pytest.approx(asked, rel=0.1)
    assert any("the whole stage will take about" in line for line in told(run, "whole stage"))
    after = costs(workspace)
    assert (after["interpretations"].basis, after["interpretations"].estimate.calls) == (FINISHED, 0)
    matrix = workspace.run("asked", "annotation_matrix")
    assert matrix.success
    assert after["annotation_matrix"].estimate.calls == pytest.approx(len(server.calls) - asked, rel=0.1)
    for stage, made in (("interpretations", run), ("annotation_matrix", matrix)):
        said = made.metadata(stage)
        assert said["estimated calls"] == pytest.approx(said["paid calls"], rel=0.1), stage
        assert said["tokens in"] == 10 * said["paid calls"]
        assert said["cost USD"] is None
    assert costs(workspace)["annotation_matrix"].basis == FINISHED


def examined_by_rule(body: dict[str, Any], call: int) -> Any:
    """`scripted.candidly`, and right answers to the questions of the examination."""
    rules = {rule.predicate: rule for rule in RULES}
    asked = shown_concepts(body)
    if asked and set(asked.values()) <= rules.keys():
        return judge_by(lambda predicate, text: rules[predicate].truth(text))(body, call)
    return scripted.candidly(body, call)


def test_calls_are_within_15_percent_of_what_was_told_before_anything_was_selected(workspace: Workspace) -> None:
    """Examination, calibration and hypotheses of one's own included; told from the texts alone, and again later.

    As many neurons are selected here as declared; where fewer are, the first estimate is of more.
    """
    own = [{"claim": f"is about {topic}, one of them"} for topic in ("gardens", "trains", "rivers")]
    declare(
        workspace,
        annotation={"calibration": 40, "concepts_per_call": 3},
        judge={"texts": 8},
        hypotheses=own,
        interpretation={"bin": [60, 100]},
    )
    with Loopback(examined_by_rule, scripted.embed) as server:
        scripted.use(server)
        assert workspace.run("asked", upto="corpus").success
        rough = costs(workspace)
        assert server.calls == []
        assert {rough[stage].basis.split(",")[0] for stage in ESTIMATED} == {"rough"}
        assert workspace.run("asked", upto="selected_neurons").success
        counted, paid = {}, {}
        for stage in ESTIMATED:
            counted[stage], before = costs(workspace)[stage], len(server.calls)
            run = workspace.run("asked", stage)
            assert run.success, run.sentence(stage)
            paid[stage] = len(server.calls) - before
    for stage in ESTIMATED:
        told = f"{stage}: {rough[stage].estimate.calls} told, then {counted[stage].estimate.calls}, {paid[stage]} paid"
        sys.stderr.write(told + "\n")
        assert counted[stage].estimate.calls == pytest.approx(paid[stage], rel=0.15), stage
        assert rough[stage].estimate.calls == pytest.approx(paid[stage], rel=0.15), stage


def test_a_budget_of_calls_stops_each_stage_before_it_is_passed_and_more_budget_goes_on(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    spent = Ledger(workspace.project.results).spent("asked").calls
    for extra, stage in ((50, "interpretations"), (None, "interpretations"), (60, "annotation_matrix")):
        if extra is None:
            declare(workspace)
            assert workspace.run("asked", stage).success
            spent += len(server.calls) - 50
            continue
        declare(workspace, spending={"budget_calls": spent + extra})
        before = len(server.calls)
        for attempt in range(2):
            stopped = workspace.run("asked", stage)
            said = stopped.sentence(stage)
            assert f"spending.budget_calls of {spent + extra:,} ({spent + extra:,} made)" in said
            assert "answers are there" in said
            assert "raise the budget in dataset.yaml and run again" in said
            # The second attempt has nothing left to spend.
            assert len(server.calls) - before == extra, attempt
        spent += extra
        assert any("more than is left of budget_calls" in line for line in told(stopped, "more than is left"))
    declare(workspace)
    assert workspace.run("asked", "annotation_matrix").success
    bodies = [json.dumps(body, sort_keys=True) for body in server.bodies()]
    assert len(bodies) == len(set(bodies))


def test_a_budget_of_dollars_holds_for_all_stages_together(ready: Selected, tmp_path: Path) -> None:
    for model in ("reader", "judge"):
        priced(tmp_path / model, model)
    both = "".join((tmp_path / model).glob("*.yaml").__next__().read_text() for model in ("reader", "judge"))
    table = tmp_path / "both.yaml"
    table.write_text("models:\n" + both.replace("models:\n", ""), encoding="utf-8")
    workspace = ready.workspace
    with mock.patch.dict("os.environ", {"HSAE_MODELS": str(table)}):
        budget = 4.0
        declare(workspace, spending={"budget_usd": budget})
        run = workspace.run("asked", *ESTIMATED)
        spent = Ledger(workspace.project.results).spent("asked")
        assert "spending.budget_usd of $4.00" in run.sentence(next(iter(run.failures)))
        assert spent.usd <= budget
        declare(workspace)
        run = workspace.run("asked", *ESTIMATED)
        assert run.success
        record = workspace.current("asked", "interpretations").json("concepts.json")[0]
        summary = workspace.current("asked", "annotation_matrix").json("summary.json")
    assert (record["model"], len(record["prompt_hash"])) == ("openai:reader", 32)
    # 10 tokens in at 1,000 and 5 out at 4,000 dollars a million.
    assert record["cost_usd"] == pytest.approx(record["calls"] * 0.03)
    assert (summary["model"], len(summary["prompt_hash"])) == ("openai:judge", 32)
    assert summary["cost_usd"] == pytest.approx(summary["calls"] * 0.03)


def sometimes(answers: dict[str, Raw]) -> Any:
    """The scripted model, except where a judged text begins as named."""

    def chat(body: dict[str, Any], call: int) -> Any:
        text = shown_texts(body)[0] if shown_concepts(body) else ""
        return next((raw for start, raw in answers.items() if text.startswith(start)), None) or scripted.chat(
            body, call
        )

    return chat


def test_what_failed_is_asked_again_and_what_was_refused_is_not(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    declare(workspace, annotation={"max_missing": 0.5})
    assert workspace.run("asked", "interpretations").success
    holdout = read_frame(workspace.current("asked", "corpus").file("texts.parquet")).filter(
        pl.col("split") == "holdout"
    )
    failing, refusing = holdout["text"][0], holdout["text"][1]
    server.chat = sometimes({failing: failure(400, "hiccup"), refusing: completion(None, refusal="no")})
    first = workspace.run("asked", "annotation_matrix")
    assert first.success
    assert first.metadata("annotation_matrix")["failed calls"] == 1
    missing = workspace.current("asked", "annotation_matrix").json("_incomplete.json")
    concepts = len(workspace.current("asked", "annotation_matrix").json("summary.json")["claims"])
    assert missing == {"answers that asking again may bring": concepts}
    before, server.chat = len(server.calls), scripted.chat
    second = workspace.run("asked", "annotation_matrix")
    third = workspace.run("asked", "annotation_matrix")
    assert [shown_texts(body)[0] for body in server.bodies()[before:]] == [failing]
    stored = workspace.current("asked", "annotation_matrix")
    assert set(read_frame(stored.file("missing.parquet"))["reason"]) == {"the model refused: no"}
    assert [run.metadata("annotation_matrix")["reused"] for run in (second, third)] == [False, True]
    assert first.metadata("annotation_matrix")["missing answers"] == 2 * concepts
    assert second.metadata("annotation_matrix")["missing answers"] == concepts


def test_unusable_answers_are_asked_again_on_request_and_nothing_else_is(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    declare(workspace, annotation={"max_missing": 0.5})
    assert workspace.run("asked", "interpretations").success
    holdout = read_frame(workspace.current("asked", "corpus").file("texts.parquet")).filter(
        pl.col("split") == "holdout"
    )
    vague, shifted, refusing = holdout["text"].to_list()[:3]
    server.chat = sometimes(
        {vague: completion("perhaps"), shifted: completion('{"c0": true}'), refusing: completion(None, refusal="no")}
    )
    assert workspace.run("asked", "annotation_matrix").success
    dataset = load_dataset(workspace.project.data, "asked")
    server.chat = scripted.chat
    assert workspace.run("asked", "annotation_matrix").metadata("annotation_matrix")["reused"]
    found = ask_again(workspace.project, dataset)
    assert sum(found.reasons.values()) == 2
    assert found.stages == ("annotation_matrix",)
    assert costs(workspace)["annotation_matrix"].estimate.calls == 2
    before = len(server.calls)
    run = workspace.run("asked", "annotation_matrix")
    assert sorted(shown_texts(body)[0] for body in server.bodies()[before:]) == sorted([vague, shifted])
    stored = workspace.current("asked", "annotation_matrix")
    assert not run.metadata("annotation_matrix")["reused"]
    assert set(read_frame(stored.file("missing.parquet"))["reason"]) == {"the model refused: no"}
    assert ask_again(workspace.project, dataset).reasons == {}
    assert sum(ask_again(workspace.project, dataset, refusals=True).reasons.values()) == 1


def test_a_stage_without_a_usable_answer_is_not_finished(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    server.chat = lambda body, call: {"answer": "a concept"}
    said = workspace.run("asked", "interpretations").sentence("interpretations")
    assert "is usable, most often" in said
    assert "one field `concept`" in said
    server.chat = scripted.chat
    ask_again(workspace.project, load_dataset(workspace.project.data, "asked"))
    assert workspace.run("asked", "interpretations").success


def test_an_incomplete_result_stays_until_it_can_be_made_again(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    declare(workspace, annotation={"max_missing": 0.5})
    assert workspace.run("asked", "interpretations").success
    holdout = read_frame(workspace.current("asked", "corpus").file("texts.parquet")).filter(
        pl.col("split") == "holdout"
    )
    server.chat = sometimes({holdout["text"][0]: failure(400, "hiccup")})
    assert workspace.run("asked", "annotation_matrix").success
    kept = workspace.current("asked", "annotation_matrix")
    server.chat = lambda body, call: failure(401, "the key was withdrawn")
    assert "OPENAI_API_KEY" in workspace.run("asked", "annotation_matrix").sentence("annotation_matrix")
    assert workspace.current("asked", "annotation_matrix") == kept


JUDGES = {
    "no to everything": lambda rule, text: False,
    "yes to everything": lambda rule, text: True,
    "no idea": lambda rule, text: len(text) % 2 == 0,
}


def examined(judge: Any) -> Any:
    """The scripted model, which answers the questions of the examination as `judge` does."""
    rules = {rule.predicate: rule for rule in RULES}

    def chat(body: dict[str, Any], call: int) -> Any:
        if set(shown_concepts(body).values()) <= rules.keys() and shown_concepts(body):
            return judge_by(lambda predicate, text: judge(rules[predicate], text))(body, call)
        return scripted.chat(body, call)

    return chat


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES.keys())
def test_a_judge_that_knows_nothing_is_not_paid_for(ready: Selected, judge: Any) -> None:
    workspace, server = ready.workspace, ready.server
    declare(workspace)
    assert workspace.run("asked", "interpretations").success
    declare(workspace, judge={"texts": 16, "min_accuracy": 0.75})
    before, server.chat = len(server.calls), examined(judge)
    said = workspace.run("asked", "annotation_matrix").sentence("annotation_matrix")
    assert "`annotation.model: openai:judge` is not a reliable judge" in said
    assert "below judge.min_accuracy 0.75" in said
    assert len(server.calls) - before == 16


def test_a_judge_that_answers_what_is_known_goes_on_and_is_examined_once(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    declare(workspace)
    assert workspace.run("asked", "interpretations").success
    declare(workspace, judge={"texts": 16, "min_accuracy": 0.95})
    server.chat = examined(lambda rule, text: rule.truth(text))
    run = workspace.run("asked", "annotation_matrix")
    assert run.success
    (line,) = told(run, "the judge is examined")
    assert "sensitivity 100%, specificity 100%" in line


def test_too_many_missing_answers_stop_what_is_downstream(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    assert workspace.run("asked", "interpretations").success
    texts = read_frame(workspace.current("asked", "corpus").file("texts.parquet"))
    refused = texts.filter(pl.col("split") == "holdout")["text"].to_list()[::10]
    server.chat = sometimes({text: completion(None, refusal="no") for text in refused})
    run = workspace.run("asked", "annotation_matrix", "evaluation_report")
    check = run.checks["annotation_matrix.few_missing"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "evaluation_report" not in run.failures
    assert not run.result.asset_materializations_for_node("evaluation_report")
    asked = len(server.calls)
    declare(workspace, annotation={"max_missing": 0.2})
    again = workspace.run("asked", "annotation_matrix", "evaluation_report")
    assert again.success
    assert again.checks["annotation_matrix.few_missing"].passed
    assert len(server.calls) == asked


@pytest.mark.parametrize("faithful", [True, False])
def test_stacked_answers_are_compared_with_single_ones(ready: Selected, faithful: bool) -> None:
    workspace, server = ready.workspace, ready.server
    assert workspace.run("asked", "interpretations").success
    declare(workspace, annotation={"calibration": 40})
    before = len(server.calls)

    def chat(body: dict[str, Any], call: int) -> Any:
        # This model denies everything when it is asked one thing at a time.
        alone = len(shown_concepts(body)) == 1 and not faithful
        return judge_by(lambda predicate, text: False)(body, call) if alone else scripted.chat(body, call)

    server.chat = chat
    run = workspace.run("asked", "annotation_matrix")
    assert run.success
    check = run.checks["annotation_matrix.stacked_agrees_with_single"]
    assert check.passed is faithful
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["compared"].value == 40
    assert (check.metadata["agreement"].value == 1.0) is faithful
    single = [body for body in server.bodies()[before:] if len(shown_concepts(body)) == 1]
    assert len(single) == 40


@pytest.mark.parametrize("faithful", [True, False])
def test_a_second_model_judges_a_sample_and_a_concept_judged_alike_is_named(ready: Selected, faithful: bool) -> None:
    workspace, server = ready.workspace, ready.server
    assert workspace.run("asked", "interpretations").success
    declare(workspace, judge={"second": "openai:other", "second_texts": 40, "min_kappa": 0.8})
    before = len(server.calls)

    def chat(body: dict[str, Any], call: int) -> Any:
        # The second model takes every text for one about cooking.
        blind = body["model"] == "other" and not faithful
        return (
            judge_by(lambda predicate, text: "cooking" in predicate)(body, call) if blind else scripted.chat(body, call)
        )

    server.chat = chat
    run = workspace.run("asked", "annotation_matrix")
    assert run.success
    stored = workspace.current("asked", "annotation_matrix")
    found, claims = stored.json("summary.json")["second judge"], stored.json("summary.json")["claims"]
    assert sum(body["model"] == "other" for body in server.bodies()[before:]) == 40
    assert found["compared"] == 40 * len(claims)
    check = run.checks["annotation_matrix.two_judges_agree"]
    assert check.passed is faithful
    assert (check.severity, check.metadata["kappa"].value) == (dg.AssetCheckSeverity.WARN, found["kappa"])
    assert (found["kappa"] == 1.0) is faithful
    cooking = next(key for key, claim in claims.items() if "cooking" in claim)
    assert found["concepts"][cooking]["yes"][1] == (found["concepts"][cooking]["yes"][0] if faithful else 1.0)
    assert found["concepts"][cooking]["kappa"] == (1.0 if faithful else 0.0)
    assert run.checks["annotation_matrix.concepts_vary"].passed
    # Another second model changes what was compared, and nothing that was judged.
    declare(workspace, judge={"second": "openai:third", "second_texts": 20})
    asked = len(server.calls)
    again = workspace.run("asked", "annotation_matrix")
    assert not again.metadata("annotation_matrix")["reused"]
    assert {body["model"] for body in server.bodies()[asked:]} == {"third"}


def test_a_second_model_is_among_what_was_told(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    assert workspace.run("asked", "interpretations").success
    without = costs(workspace)["annotation_matrix"]
    declare(workspace, judge={"second": "openai:other", "second_texts": 40})
    told = costs(workspace)["annotation_matrix"]
    assert told.model == "openai:judge, openai:other"
    assert told.estimate.calls == without.estimate.calls + 40
    before = len(server.calls)
    run = workspace.run("asked", "annotation_matrix")
    assert told.estimate.calls == len(server.calls) - before
    assert run.metadata("annotation_matrix")["estimated calls"] == told.estimate.calls


def test_labels_of_people_are_shown_to_the_judge_and_then_check_nothing(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    first = workspace.run("asked", "interpretations")
    assert first.success
    declare(workspace, judge={"examples": 4})
    without = workspace.run("asked", "annotation_matrix").sentence("annotation_matrix")
    assert "judge.examples is 4, but there is no gold.csv" in without
    dataset = load_dataset(workspace.project.data, "asked")
    sheet = pl.read_csv(draw_sheet(workspace.project, dataset, 60)[0], infer_schema=False)
    people = [scripted.topic_of(text) in claim for text, claim in sheet.select("text", "claim").iter_rows()]
    sheet = sheet.with_columns(pl.Series("label", ["yes" if said else "no" for said in people]))
    sheet.write_csv(dataset.folder / "gold.csv")
    before = len(server.calls)
    told = costs(workspace)["annotation_matrix"].estimate
    run = workspace.run("asked", "annotation_matrix", "evaluation_report", instance=first.instance)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    shown = workspace.current("asked", "annotation_matrix").json("summary.json")["examples"]
    bodies = [body for body in server.bodies()[before:] if shown_concepts(body)]
    assert told.calls == len(bodies)
    prompt, ids = user_message(bodies[0]), {claim: key for key, claim in shown_concepts(bodies[0]).items()}
    for key, labels in shown.items():
        own = sheet.filter(pl.col("concept") == key)
        assert sum(labels.values()) <= 2
        assert 4 * len(labels) <= own.height
        for text_id, said in labels.items():
            row = own.filter(pl.col("text_id") == text_id).row(0, named=True)
            assert (row["label"] == "yes") is said
            assert f"{row['text']}\n</text>\n{ids[row['claim']]}: {str(said).lower()}\n" in prompt
    assert sum(map(len, shown.values())) >= 4
    found = read_frame(workspace.current("asked", "evaluation_report").file("hypotheses.parquet"))
    for row in found.iter_rows(named=True):
        labels = sheet.filter(pl.col("claim") == row["claim"])
        texts = set(labels["text_id"]) - set(shown.get(labels["concept"][0], {}))
        assert row["gold_labels"] == len(texts)
    # Other labels are other examples, and so another result.
    sheet[1:].write_csv(dataset.folder / "gold.csv")
    assert not workspace.run("asked", "annotation_matrix").metadata("annotation_matrix")["reused"]


def test_a_concept_that_is_judged_alike_on_every_text_is_named(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server
    assert workspace.run("asked", "interpretations").success
    server.chat = judge_by(lambda predicate, text: "cooking" in predicate or scripted.topic_of(text) in predicate)
    check = workspace.run("asked", "annotation_matrix").checks["annotation_matrix.concepts_vary"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["judged alike on every text"].value == ["is about cooking"]


def test_a_key_that_the_server_repeats_everywhere_is_written_nowhere(ready: Selected) -> None:
    workspace, server = ready.workspace, ready.server

    def chat(body: dict[str, Any], call: int) -> Any:
        if not shown_concepts(body):
            answer = completion(json.dumps({"concept": f"mentions the key {KEY}"}))
            return Raw({**answer.body, "model": KEY, "id": KEY}, headers={"X-Request-ID": KEY})
        return completion(None, refusal=f"not with {KEY}") if call % 2 else failure(400, f"bad {KEY}")

    server.chat = chat
    run = workspace.run("asked", "interpretations")
    shown = "".join(str(event) for event in run.result.all_events)
    shown += "".join(str(record) for record in run.instance.get_records_for_run(run.result.run_id).records)
    assert KEY not in shown
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_language_model_may_judge_claims_found_offline(workspace: Workspace) -> None:
    """Providers mix by stage: claims found offline, judged by a server."""
    annotation = {"model": "openai:judge", "calibration": 0}
    interpretation = {"candidates": 1, "bin": [50, 100], "scoring_texts": 40}
    workspace.declare("asked", tiny_texts(), interpretation=interpretation, annotation=annotation, judge={"texts": 0})

    def chat(body: dict[str, Any], call: int) -> Any:
        quoted = [part.split("”")[0] for part in "".join(shown_concepts(body).values()).split("“")[1:]]
        return judge_by(lambda predicate, text: any(f"“{word}”" in predicate and word in text for word in quoted))(
            body, call
        )

    with Loopback(chat) as server:
        scripted.use(server)
        run = workspace.run("asked")
        assert run.success, {step: run.sentence(step) for step in run.failures}
    record = workspace.current("asked", "interpretations").json("concepts.json")[0]
    assert record["concept"]["author"] == "lexical"
    assert workspace.current("asked", "annotation_matrix").json("summary.json")["calls"] > 0
