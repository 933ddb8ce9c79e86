"""Whole runs that ask a server: what is asked once, what is kept when it stops answering."""

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

from hsae_dagster import cli
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.definitions import defs
from hsae_dagster.errors import DatasetError
from hsae_dagster.orchestration.project import ModelServer, RunSettings
from hsae_dagster.stages.paid import asked_about_text, asked_for_words
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import TOPICS, Run, Workspace, tiny_texts, topic_of
from hsae_dagster_tests.providers.loopback import KEY, Loopback, Raw, completion, failure, shown_concepts, shown_texts

pytestmark = pytest.mark.usefixtures("environment")


class Limited:
    """A server's script that refuses requests of one kind once `left` of them are answered; None means no limit."""

    def __init__(self, kind: str, left: int | None) -> None:
        self.kind, self.left, self.lock = kind, left, threading.Lock()

    def chat(self, body: dict[str, Any], call: int) -> Any:
        kind = "annotate" if shown_concepts(body) else "interpret"
        return self._refusal(kind) or scripted.chat(body, call)

    def embed(self, body: dict[str, Any], call: int) -> Any:
        return self._refusal("embed") or scripted.embed(body, call)

    def _refusal(self, kind: str) -> Raw | None:
        with self.lock:
            if kind != self.kind or self.left is None:
                return None
            self.left -= 1
            return failure(401, "the key was withdrawn") if self.left < 0 else None


@dataclass(frozen=True)
class Interpreted:
    """A dataset whose embeddings and concepts came from `server`; nothing is annotated on the holdout yet."""

    workspace: Workspace
    server: Loopback
    run: Run


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreted]:
    workspace = Workspace(tmp_path_factory.mktemp("interpreted"))
    workspace.declare("asked", tiny_texts(), **scripted.MODELS)
    with mock.patch.dict(os.environ), Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        yield Interpreted(workspace, server, workspace.run("asked", upto="interpretations"))


def test_embeddings_concepts_and_annotations_may_all_come_from_a_server(
    interpreted: Interpreted, tmp_path: Path
) -> None:
    first, server = interpreted.run, interpreted.server
    assert first.success, {step: first.sentence(step) for step in first.failures}
    workspace = interpreted.workspace.copy_to(tmp_path)
    scripted.use(server)
    run = workspace.run("asked")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    asked = len(server.calls)
    again = workspace.run("asked", "embeddings", "annotation_matrix")
    assert again.success
    assert len(server.calls) == asked
    told = first.metadata("embeddings")
    assert (told["new"], told["model"], told["dimensions"]) == (300, "openai:text-embedding-3-small", 16)
    assert sorted(scripted.embedded_texts(server)) == sorted(tiny_texts()["text"])
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    matrix = read_frame(workspace.current("asked", "annotation_matrix").file("annotations.parquet"))
    summary = workspace.current("asked", "annotation_matrix").json("summary.json")
    assert summary["model"] == "openai:judge"
    texts = dict(
        read_frame(workspace.current("asked", "corpus").file("texts.parquet")).select("text_id", "text").rows()
    )
    claims = {key: claim.removeprefix("is about ") for key, claim in summary["claims"].items()}
    # Two neurons of one topic share its concept, which is judged once.
    assert sorted(claims.values()) == sorted(set(claims.values()))
    assert {"cooking", "sailing"} <= set(claims.values()) <= set(TOPICS)
    for row in matrix.iter_rows(named=True):
        for key, topic in claims.items():
            assert row[key] is (topic_of(texts[row["text_id"]]) == topic)
    found = read_frame(workspace.current("asked", "evaluation_report").file("hypotheses.parquet"))
    signs = {claims[row["concept_id"]]: row["effect_estimate"] > 0 for row in found.iter_rows(named=True)}
    assert signs["cooking"]
    assert not signs["sailing"]
    assert run.metadata("annotation_matrix")["paid calls"] == matrix.height
    exactly_what_was_asked(workspace, server, matrix["text_id"][7])
    told = {card["hypothesis id"]: card["what was asked for these words"] for card in run.cards.values()}
    assert told == {key: f"hsae asked {key}" for key in told}
    assert again.metadata("annotation_matrix")["reused"]


def exactly_what_was_asked(workspace: Workspace, server: Loopback, text_id: str) -> None:
    """`hsae asked` shows the prompts that the server got, letter by letter, and its answers."""
    prompts = [[(m["role"], m["content"]) for m in body["messages"]] for body in server.bodies() if "messages" in body]
    dataset = load_dataset(workspace.project.data, "asked")
    record = LineageLog(workspace.store).latest("asked")
    assert record is not None
    for row in map(dict, record.hypotheses):
        words = asked_for_words(workspace.project, dataset, row)
        for each in [*words, asked_about_text(workspace.project, dataset, row, text_id)]:
            assert list(each.messages) in prompts
            assert each.entry is not None
        assert row["claim"] in {json.loads(each.entry.answer or "")["concept"] for each in words if each.entry}
    os.environ["HSAE_DATA_DIR"] = workspace.project.data_dir
    os.environ["HSAE_RESULTS_DIR"] = workspace.project.results_dir
    shown = CliRunner().invoke(cli.main, ["asked", row["hypothesis_id"], "--text", text_id])
    assert shown.exit_code == 0, shown.output
    assert '"c1": ' in shown.output.split("--- answer")[1]


def test_embedding_here_writing_there_and_judging_elsewhere(workspace: Workspace) -> None:
    with (
        Loopback(scripted.chat, scripted.embed) as here,
        Loopback(scripted.chat) as there,
        Loopback(scripted.chat) as elsewhere,
    ):
        servers = {"embedding": here, "interpretation": there, "annotation": elsewhere}
        sections = {
            name: {**scripted.MODELS[name], "server": {"url": server.base_url, "key": f"{name.upper()}_KEY"}}
            for name, server in servers.items()
        }
        os.environ |= {f"{name.upper()}_KEY": f"{KEY}-{name}" for name in servers}
        workspace.declare("asked", tiny_texts(), **{**scripted.MODELS, **sections})
        run = workspace.run("asked", upto="interpretations")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    for name, server in servers.items():
        assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}-{name}"}
    assert all("input" in body for body in here.bodies())
    assert not any(shown_concepts(body) for body in there.bodies())
    assert all(shown_concepts(body) for body in elsewhere.bodies())


def test_no_key_is_written_anywhere(workspace: Workspace) -> None:
    workspace.declare("asked", tiny_texts(), **scripted.MODELS)
    with Loopback(scripted.chat, lambda body, call: failure(401, f"Incorrect API key provided: {KEY}")) as server:
        scripted.use(server)
        run = workspace.run("asked", upto="embeddings")
    assert KEY not in run.sentence("embeddings")
    assert KEY not in "".join(str(event) for event in run.result.all_events)
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_key_withdrawn_while_embedding_keeps_each_finished_batch(workspace: Workspace) -> None:
    embedding = {**scripted.MODELS["embedding"], "batch_size": 40}
    workspace.declare("asked", tiny_texts(), **{**scripted.MODELS, "embedding": embedding})
    script = Limited("embed", 3)
    os.environ["HSAE_CONCURRENCY"] = "1"
    with Loopback(script.chat, script.embed) as server:
        scripted.use(server)
        stopped = workspace.run("asked", upto="embeddings")
        said = stopped.sentence("embeddings")
        assert "`embedding.model: openai:text-embedding-3-small`" in said
        assert "run again" in said
        before = workspace.bytes_of()
        assert "datasets/asked/embeddings" not in before
        script.left = None
        run = workspace.run("asked", upto="embeddings")
    assert run.success
    assert (run.metadata("embeddings")["new"], run.metadata("embeddings")["kept"]) == (300 - 3 * 40, 3 * 40)
    sent = Counter(scripted.embedded_texts(server))
    # Only the batch that was refused is sent twice.
    assert sum(sent.values()) == 300 + 40
    assert {path: workspace.bytes_of()[path] for path in before} == before


def test_a_key_withdrawn_while_annotating_keeps_every_answer(interpreted: Interpreted, tmp_path: Path) -> None:
    workspace = interpreted.workspace.copy_to(tmp_path)
    script = Limited("annotate", 60)
    with Loopback(script.chat) as server:
        scripted.use(server)
        before = workspace.bytes_of()
        stopped = workspace.run("asked", "annotation_matrix")
        said = stopped.sentence("annotation_matrix")
        assert "`annotation.model: openai:judge`" in said
        assert "OPENAI_API_KEY" in said
        assert {path: workspace.bytes_of()[path] for path in before} == before
        first, script.left = [text for text, _ in scripted.judged(server)], None
        run = workspace.run("asked", "annotation_matrix")
        second = [text for text, _ in scripted.judged(server)][len(first) :]
    assert run.success
    holdout = run.metadata("annotation_matrix")["dagster/row_count"]
    assert run.metadata("annotation_matrix")["paid calls"] == len(second) == holdout - 60
    assert run.metadata("annotation_matrix")["answers from the ledger"] == 60
    # Sixty were answered; the rest of the first run's requests were refused, so nothing was paid twice.
    assert len(set(first) & set(second)) == len(first) - 60


def test_an_answer_that_cannot_be_read_is_missing_and_never_guessed(interpreted: Interpreted, tmp_path: Path) -> None:
    workspace = interpreted.workspace.copy_to(tmp_path)
    texts = read_frame(workspace.current("asked", "corpus").file("texts.parquet"))
    holdout = texts.filter(pl.col("split") == "holdout")
    mumbling = holdout["text"].to_list()[:30:10]

    def chat(body: dict[str, Any], call: int) -> Any:
        unusable = shown_texts(body)[0] in mumbling
        return completion("I would rather not say.") if unusable else scripted.chat(body, call)

    with Loopback(chat) as server:
        scripted.use(server)
        run = workspace.run("asked", "annotation_matrix", "evaluation_report")
    assert run.success
    stored = workspace.current("asked", "annotation_matrix")
    matrix, missing = (read_frame(stored.file(f"{name}.parquet")) for name in ("annotations", "missing"))
    silent = set(holdout.filter(pl.col("text").is_in(mumbling))["text_id"])
    concepts = matrix.columns[1:]
    for row in matrix.iter_rows(named=True):
        assert all((row[key] is None) == (row["text_id"] in silent) for key in concepts)
    assert set(missing["text_id"]) == silent
    assert all(missing["reason"])
    assert run.metadata("annotation_matrix")["missing answers"] == 3 * len(concepts)


def test_the_declared_sampling_reaches_the_interpreter(interpreted: Interpreted, tmp_path: Path) -> None:
    workspace = interpreted.workspace.copy_to(tmp_path)
    shown = {}
    # A sparse autoencoder of two neurons per text hardly ever fires weakly enough to tell; a wide low bin has texts.
    for name, changes in {"top": {"sampling": "top"}, "weak": {"bin": [60, 100], "low_bin": [0, 60]}}.items():
        settings = {**scripted.MODELS["interpretation"], **changes}
        workspace.declare("asked", None, **{**scripted.MODELS, "interpretation": settings})
        with Loopback(scripted.chat) as server:
            scripted.use(server)
            run = workspace.run("asked", "interpretations")
        assert run.success, {step: run.sentence(step) for step in run.failures}
        shown[name] = [body for body in server.bodies() if not shown_concepts(body)]
    # Two candidates per neuron see the same strongest texts, and others against them.
    tops = Counter(tuple(shown_texts(body)[:5]) for body in shown["top"])
    assert set(tops.values()) == {2}
    assert len({str(body) for body in shown["top"]}) == len(shown["top"])
    assert all("responds only weakly" in str(body) for body in shown["weak"])
    assert shown["weak"]


WRITES = """{% block system %}You read texts.{% endblock %}
{% block user %}OWN WORDS
{% for text in positives + negatives %}
<text>
{{ text }}
</text>
{% endfor %}{% endblock %}"""
JUDGES = """{% block system %}You judge texts.{% endblock %}
{% block user %}OWN JUDGE
{% for predicate in predicates %}
c{{ loop.index }}: {{ predicate }}
{% endfor %}
<text>
{{ text }}
</text>{% endblock %}"""


def test_prompts_of_ones_own_are_asked_by_and_a_changed_file_is_another_result(
    interpreted: Interpreted, tmp_path: Path
) -> None:
    workspace = interpreted.workspace.copy_to(tmp_path)
    sections = {
        "interpretation": {**scripted.MODELS["interpretation"], "prompt": "writes.md"},
        "annotation": {**scripted.MODELS["annotation"], "prompt": "judges.md"},
    }
    folder = workspace.declare("asked", None, **{**scripted.MODELS, **sections})
    assert "writes.md named in dataset.yaml does not exist" in declined(workspace)
    (folder / "writes.md").write_text(WRITES, encoding="utf-8")
    (folder / "judges.md").write_text(JUDGES, encoding="utf-8")
    with Loopback(scripted.chat) as server:
        scripted.use(server)
        stages = ("interpretations", "annotation_matrix")
        assert workspace.run("asked", *stages).success
        said = [
            message["content"] for body in server.bodies() for message in body["messages"] if message["role"] == "user"
        ]
        assert {text.split("\n")[0] for text in said} == {"OWN WORDS", "OWN JUDGE"}
        kept = workspace.run("asked", *stages)
        assert all(kept.metadata(stage)["reused"] for stage in stages)
        (folder / "judges.md").write_text(JUDGES.replace("judge texts", "judge texts well"), encoding="utf-8")
        again = workspace.run("asked", "annotation_matrix")
        assert not again.metadata("annotation_matrix")["reused"]
        (folder / "writes.md").write_text(WRITES.replace("{% endfor %}", ""), encoding="utf-8")
        assert "`interpretation.prompt`, line" in workspace.run("asked", "interpretations").sentence("interpretations")
        (folder / "writes.md").write_bytes(b"\xff\xfe\x00")
        assert "cannot be read as UTF-8" in declined(workspace)


def declined(workspace: Workspace) -> str:
    with pytest.raises(DatasetError) as error:
        load_dataset(workspace.project.data, "asked")
    return str(error.value)


def test_a_server_given_as_a_resource_is_asked_whatever_the_environment_says(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.declare("asked", tiny_texts(), **scripted.MODELS)
    with Loopback(scripted.chat, scripted.embed) as server:
        os.environ |= {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "another"}
        given = ModelServer(base_url=server.base_url, api_key=KEY)
        run = workspace.run("asked", "corpus", "embeddings", model_server=given)
        assert run.success, {step: run.sentence(step) for step in run.failures}
        assert server.calls


def test_what_a_run_is_told_replaces_the_declaration_for_that_run_and_is_shown(copied: Workspace) -> None:
    told = RunSettings(n=1, budget_usd=3.0)
    run = copied.run("ratings", model_server=ModelServer(), run_settings=told)
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert len(run.cards) == 1
    assert run.metadata("evaluation_report")["told at launch"] == {
        "selection": {"n": 1},
        "spending": {"budget_usd": 3.0},
    }
    again = copied.run("ratings")
    assert len(again.cards) > 1 and "told at launch" not in again.metadata("evaluation_report")
    # The same words as for a field of dataset.yaml that cannot be.
    refused = copied.run("ratings", "corpus", run_settings=RunSettings(n=-3))
    assert "`selection.n` is -3" in refused.sentence("corpus")


def test_the_run_config_of_the_job_takes_what_a_run_is_told_and_the_server_is_an_environment_variable() -> None:
    job = defs.resolve_job_def("analyse_dataset")
    config = {"resources": {"run_settings": {"config": {"n": 5, "interpretation_model": "openai:gpt-5-mini"}}}}
    assert dg.validate_run_config(job, config)
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, {"resources": {"run_settings": {"config": {"claims": 5}}}})
    os.environ["OPENAI_API_KEY"] = "sk-secret"
    here = ModelServer.here()
    assert "sk-secret" not in repr(here) and isinstance(here.api_key, dg.EnvVar)
