"""Defects of the reference that only show when the parts work together; docs/defects.md says which test shows which."""

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest

import hsae_dagster
from benchmarks.reference_table import reference_table
from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.inference.effects import benjamini_hochberg, holm, test_hypotheses
from hsae_dagster.core.observations import HoldoutDesign
from hsae_dagster.dataset.spec import Annotation
from hsae_dagster.keys import EmbeddingSet, text_id
from hsae_dagster.providers import registry
from hsae_dagster.providers.base import Annotations
from hsae_dagster.providers.openai.embedder import cut_to_tokens
from hsae_dagster.providers.spending import Estimate
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.outputs import StoredInterpretations
from hsae_dagster.storage.vectors import VectorTable
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import TOPICS, Run, Workspace, tiny_texts
from hsae_dagster_tests.providers import accounts
from hsae_dagster_tests.providers.accounts import account
from hsae_dagster_tests.providers.loopback import Loopback, completion, shown_texts

PACKAGE = Path(hsae_dagster.__file__).parent
READERS = {name: given for name, given in scripted.MODELS.items() if name != "embedding"}
WORDS = sorted(word for topic in TOPICS.values() for word in topic)


@dataclass
class WordVectors:
    """An embedder that counts words, remembers what it was asked, and fails at a given call."""

    asked: list[str] = field(default_factory=list)
    calls: int = 0
    fail_at: int | None = None
    embedding_set: EmbeddingSet = field(default_factory=lambda: EmbeddingSet("words", len(WORDS), "f" * 32))

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        return Estimate()

    def order(self, texts: Sequence[str]) -> Sequence[int]:
        return range(len(texts))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        if self.calls == self.fail_at:
            raise ConnectionError("the connection was lost")
        self.asked += texts
        counts = np.array([[text.lower().count(word) for word in WORDS] for text in texts], dtype=np.float32)
        return counts + 0.01

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Any, report: Any) -> None:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            keep(range(start, start + len(batch)), self.embed(batch))


@dataclass
class World:
    """A project whose models are watched: `tiny` is written and judged by a scripted one, `offline` finds claims."""

    workspace: Workspace
    embedder: WordVectors
    shown: list[str]
    interpreted: int
    run: Run | None = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(Workspace(tmp_path_factory.mktemp("defects")), WordVectors(), [], 0)
    make = registry.make_interpreter

    def watched(settings, account=None, **more):
        interpreter = make(settings, account, **more)
        interpret = interpreter.interpret

        def and_remember(request, report):
            made.shown += request.texts
            made.interpreted += 1
            return interpret(request, report)

        object.__setattr__(interpreter, "interpret", and_remember)
        return interpreter

    with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ), Loopback(scripted.chat) as server:
        scripted.use(server)
        patch.setattr(registry, "make_embedder", lambda settings, account: made.embedder)
        patch.setattr(registry, "make_interpreter", watched)
        texts = tiny_texts()
        again = texts.head(20).with_columns(pl.col("score") + 0.25)
        for name, models in (("tiny", READERS), ("offline", {})):
            made.workspace.declare(name, pl.concat([texts, again]), **models)
            made.run = made.workspace.run(name, upto="annotation_matrix")
            assert made.run.success, made.run.failures
        yield made


def package_files() -> dict[str, int]:
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): path.stat().st_size for path in files}


# Defect 5: AUC and R² are figures of the rows that were fitted.
def test_noise_scores_like_chance_beside_its_flattering_in_sample_figure() -> None:
    rng = np.random.default_rng(0)
    concepts = rng.integers(0, 2, (250, 20)).astype(float)
    outcome, clusters = rng.integers(0, 2, 250).astype(float), np.arange(250)
    assert reference_table(concepts, outcome, "classification").auroc > 0.62
    predicted = joint_fit.cross_fitted(concepts, outcome, clusters, "classification", folds=5, seed=0)
    fit = joint_fit.Score("classification", clusters, 50, 0).fit("noise", "cross-fitted", outcome, predicted)
    assert fit.value == pytest.approx(0.5, abs=0.1)
    assert fit.low < 0.5 < fit.high


# Defect 7: Student's t as if rows were independent, one correction only.
def test_dependence_within_clusters_is_not_taken_for_evidence() -> None:
    rng = np.random.default_rng(0)
    robust, student = [], []
    for _ in range(80):
        clusters = np.repeat(np.arange(40), 15)
        concept = (rng.random(40) < 0.5)[clusters].astype(float)[:, None]
        outcome = rng.standard_normal(40)[clusters] + rng.standard_normal(600)
        design = HoldoutDesign(concept, outcome, clusters, np.zeros((600, 0)), "regression")
        robust.append(test_hypotheses(design)[0].separation.p_value < 0.05)
        student.append(reference_table(concept, outcome, "regression").rows[0].separation_pval < 0.05)
    assert np.mean(robust) <= 0.13  # 5 % and three standard errors
    assert np.mean(student) > 0.4
    p_values = np.array([0.001, 0.02, 0.03, 0.2])
    np.testing.assert_allclose(holm(p_values), [0.004, 0.06, 0.06, 0.2])
    np.testing.assert_allclose(benjamini_hochberg(p_values), [0.004, 0.04, 0.04, 0.2])


# Defect 8: a concept is scored on texts that its author saw.
def test_who_writes_a_concept_and_who_scores_it_read_different_texts(world: World) -> None:
    seen = world.workspace.current("tiny", "interpretations").json("seen.json")
    texts = read_frame(world.workspace.current("tiny", "corpus").file("texts.parquet"))
    split = dict(texts.select("text_id", "split").iter_rows())
    assert {split[text_id(text)] for text in world.shown} == {"train"}
    for name, ids in seen.items():
        assert ids
        assert {split[key] for key in ids} == {name}
    # Claims found offline are tested as they read, so all but the holdout may find them.
    seen = world.workspace.current("offline", "interpretations").json("seen.json")
    assert {key for ids in seen.values() for key in ids} == {key for key, name in split.items() if name != "holdout"}
    for dataset in ("tiny", "offline"):
        judged = read_frame(world.workspace.current(dataset, "annotation_matrix").file("annotations.parquet"))
        assert {split[key] for key in judged["text_id"]} == {"holdout"}


# Defect 10: concepts of equal wording collapse without a word.
def test_two_neurons_with_one_concept_are_judged_once_and_counted_once() -> None:
    said = [Concept(name, "somebody") for name in ("a", "b", "a", "c")]
    found = [FoundConcept(rank, rank, "sae", rank, 1.0, 1.0, concept) for rank, concept in enumerate([*said, None])]
    written = StoredInterpretations(None)  # type: ignore[arg-type]
    vars(written)["concepts"] = tuple(found)
    assert [(concept.rank, concept.claim) for concept in written.distinct] == [(0, "a"), (1, "b"), (3, "c")]


# Defect 19: a checkpoint's name leaves out most of what it depends on.
def test_other_settings_never_find_an_old_autoencoder(world: World) -> None:
    def trained(**sae) -> dict:
        world.workspace.declare("tiny", None, saes=[{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32, **sae}])
        assert world.workspace.run("tiny", "sae_checkpoints").success
        return world.workspace.current("tiny", "sae_checkpoints").json("saes.json")[0]

    first = trained()
    others = [trained(batch_topk=True), trained(seed=1), trained(learning_rate=1e-2), trained(multi_k=4)]
    assert others[0]["config"]["batch_topk"] is True
    assert len({record["sae_id"] for record in [first, *others]}) == 5
    assert trained() == first


# Defect 22: vectors are kept as pickled lists.
def test_a_stored_vector_costs_its_float32_bytes_and_is_read_by_key(tmp_path: Path) -> None:
    n, d = 2000, 256
    vectors = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    table = VectorTable(tmp_path, "any", EmbeddingSet("m", d, "0" * 32))
    ids = [f"{i:032x}" for i in range(n)]
    table.append(ids, vectors)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 1.1 * n * (4 * d + 40)
    read = table.read([ids[7], ids[3]])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, vectors[[7, 3]])


# Defects 20, 22 and 29: files that run code when they are read.
def test_nothing_in_the_package_unpickles() -> None:
    unsafe = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                unsafe += [f"{path.name}: {name}" for name in names if name.split(".")[0] in _PICKLERS]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if ast.unparse(node.func) == "torch.load" and options.get("weights_only") != "True":
                    unsafe.append(f"{path.name}: torch.load")
                if options.get("allow_pickle") == "True":
                    unsafe.append(f"{path.name}: allow_pickle")
    assert unsafe == []


_PICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


# Defect 23: a run that dies loses what it has paid for.
def test_a_killed_embedding_run_keeps_every_finished_batch(world: World, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.declare("cut", tiny_texts(seed=5), embedding={"batch_size": 64})
    before, world.embedder = world.embedder, WordVectors(fail_at=3)
    try:
        assert not workspace.run("cut", upto="embeddings").success
        first = list(world.embedder.asked)
        assert len(first) == 2 * 64
        assert workspace.run("cut", "embeddings").success
        assert sorted(world.embedder.asked) == sorted(tiny_texts(seed=5)["text"])
        assert not set(first) & set(world.embedder.asked[len(first) :])
    finally:
        world.embedder = before


def test_marks_of_a_tokeniser_in_a_text_are_text() -> None:
    assert cut_to_tokens("say <|endoftext|> twice", 100) == "say <|endoftext|> twice"


# Defect 24: texts that occur twice are paid for twice.
def test_a_text_that_occurs_twice_is_embedded_once(world: World) -> None:
    asked = world.embedder.asked
    assert len(set(asked)) == len(asked)
    texts = set(tiny_texts()["text"])
    assert texts <= set(asked)
    # Besides texts only the terms of claims, which are words of theirs.
    assert all(any(term in text.lower() for text in texts) for term in set(asked) - texts)


# Defects 26 and 28: one unusable answer ends the run; texts with equal ends share their answers.
def test_answers_belong_to_whole_texts_and_settings_and_a_missing_one_ends_nothing(tmp_path: Path) -> None:
    ends = "x" * 120
    texts = [ends + middle + ends for middle in ("yes", "no", "silence")]
    asked: list[str] = []

    def answer(body: dict[str, Any], call: int) -> Any:
        (text,) = shown_texts(body)
        asked.append(text)
        told = {"yes": True, "no": False}.get(text.strip("x"))
        return completion(None, refusal="no") if told is None else {"c1": told}

    def judged(model: str, texts: list[str]) -> Annotations:
        annotator = accounts.judge(model, Annotation(), server.server(), account=account(tmp_path))
        return annotator.annotate([Concept(predicate="says yes", author="test")], texts, lambda line: None)

    with Loopback(answer) as server:
        with_gap = judged("a", texts)
        assert with_gap.answers[:, 0].tolist() == [1, 0, -1]
        assert [reason for _, _, reason in with_gap.reasons] == ["the model refused: no"]
        assert judged("a", texts[:2]).answers[:, 0].tolist() == [1, 0]
        assert len(asked) == 3
        judged("b", texts[:2])
        assert len(asked) == 5


# Defects 9 and 36: nothing is seeded, and a second run pays for everything again.
def test_running_again_changes_nothing_and_asks_nothing(world: World) -> None:
    names = ("corpus", "embeddings", "sae_checkpoints", "interpretations", "annotation_matrix")
    world.workspace.declare("tiny", None, **READERS)

    def versions() -> dict[tuple[str, str], str]:
        return {(d, n): world.workspace.current(d, n).data_version for d in ("tiny", "offline") for n in names}

    before = versions()
    asked, interpreted = len(world.embedder.asked), world.interpreted
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state must not move
    for dataset in ("tiny", "offline"):
        assert world.workspace.run(dataset, upto="annotation_matrix").success
    assert versions() == before
    assert (len(world.embedder.asked), world.interpreted) == (asked, interpreted)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


# Defect 37: caches live where the package is installed.
def test_a_run_writes_into_the_project_and_never_into_the_package(world: World) -> None:
    before = package_files()
    world.workspace.declare("elsewhere", tiny_texts(seed=3), saes=[{"m": 4, "k": 1, "max_epochs": 2}])
    assert world.workspace.run("elsewhere", upto="sae_checkpoints").success
    assert package_files() == before
    assert {path.name for path in world.workspace.root.iterdir()} == {"data", "results"}
    assert {path.name for path in (world.workspace.root / "data" / "elsewhere").iterdir()} == {
        "dataset.yaml",
        "texts.parquet",
    }
