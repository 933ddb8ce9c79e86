"""Words that are revised by what they get wrong: better, never read on what scores them, and reported as they are.

The model and the judge are oracles by rule. The model knows which words are mere fillers, and of the neurons nothing
but its prompts: it names the word that sets the groups shown apart, then takes in what it missed and leaves out what
misled it. The judge holds a text to have a phrase if any of its words is in it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.observations import text_rows
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.providers import registry
from hsae_dagster.providers.base import Annotations, AnnotationTask
from hsae_dagster.providers.spending import Estimate
from hsae_dagster.stages.paid import asked_for_words
from hsae_dagster.storage.artifacts import read_codes, read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.core.reference import load_reference_module
from hsae_dagster_tests.providers.loopback import Loopback, user_message

pytestmark = [pytest.mark.usefixtures("environment"), pytest.mark.slow]

THEMES, WORDS, TEXTS = 8, 6, 2400
# Of a theme's words, from the commonest to the rarest.
SHARES = np.array([0.3, 0.22, 0.17, 0.13, 0.1, 0.08])
FILLERS = 60
FIELDS = {
    "units": "text",
    "saes": [{"m": 8, "k": 2, "checkpoint": "themes.pt"}],
    "splits": {"holdout": 0.3, "validation": 0.15, "fidelity": 0.2},
    "selection": {"n": THEMES},
    "annotation": {"model": "openai:judge", "calibration": 0},
    "judge": {"texts": 0},
}


def made_texts(seed: int) -> pl.DataFrame:
    """Texts of fillers and one or two words of each of two themes; the themes go with the score."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(TEXTS):
        themes = rng.choice(THEMES, 2, replace=False)
        words = [f"theme{t}word{w}" for t in themes for w in rng.choice(WORDS, rng.integers(1, 3), p=SHARES)]
        words += [f"filler{f}" for f in rng.choice(FILLERS, 12)]
        score = float(sum((-1) ** int(t) * (1 + t / 10) for t in themes)) + rng.normal(0, 0.5)
        rows.append((f"No {n} " + " ".join(rng.permutation(words)), score, f"author {rng.integers(400):03d}"))
    return pl.DataFrame(rows, schema=["text", "score", "author"], orient="row")


class ThemeVectors:
    """An embedder: what a text has of each theme, and something of its fillers."""

    embedding_set = EmbeddingSet("themes", THEMES + 8, "a" * 32)

    def known_set(self) -> EmbeddingSet:
        return self.embedding_set

    def estimate(self, texts: Sequence[str], batch_size: int) -> Estimate:
        return Estimate()

    def order(self, texts: Sequence[str]) -> Sequence[int]:
        return range(len(texts))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        made = np.zeros((len(texts), THEMES + 8), dtype=np.float32)
        for row, text in enumerate(texts):
            for theme in re.findall(r"theme(\d+)word", text):
                made[row, int(theme)] += 1
            for filler in re.findall(r"filler(\d+)", text):
                made[row, THEMES + int(filler) % 8] += 0.15
        return made

    def embed_all(self, texts: Sequence[str], batch_size: int, keep: Any, report: Any) -> None:
        keep(range(len(texts)), self.embed(texts))


def save_themes(path: Path) -> None:
    """An autoencoder whose neurons are the themes: what is tested is words, not training."""
    model = load_reference_module("sae").SparseAutoencoder(
        input_dim=THEMES + 8, m_total_neurons=THEMES, k_active_neurons=2, device="cpu"
    )
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
        for weight in (model.encoder.weight, model.decoder.weight):
            weight[:THEMES, :THEMES] = torch.eye(THEMES)
    model.save(str(path))


def holds(predicate: str, text: str) -> bool:
    return any(word in text.split() for word in predicate.removeprefix("mentions any of ").split(", "))


class Judge:
    """By rule, but paid: it reads samples."""

    free, prompt_hash = False, "oracle"

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Any) -> list[Annotations]:
        return [
            Annotations(
                np.array([[holds(c.predicate, text) for c in task.concepts] for text in task.texts], np.int8).reshape(
                    len(task.texts), len(task.concepts)
                ),
                calls=len(task.texts),
            )
            for task in tasks
        ]

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Any) -> Annotations:
        return self.annotate_all([AnnotationTask(concepts, texts)], report)[0]

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        return Estimate(calls=sum(len(task.texts) for task in tasks if task.concepts))


def groups(body: dict[str, Any]) -> dict[str, list[set[str]]]:
    """The words of each text shown, by its group."""
    found: dict[str, list[set[str]]] = {"A": [], "B": [], "C": []}
    for group, text in re.findall(r'<text group="(\w)"[^>]*>\n(.*?)\n</text>', user_message(body), re.DOTALL):
        found[group].append({word.strip("⟦⟧…") for word in text.split()})
    return found


def tally(texts: list[set[str]]) -> Counter[str]:
    return Counter(word for text in texts for word in text if word.startswith("theme"))


def writes(body: dict[str, Any], call: int) -> dict[str, str]:
    """The oracle as a model."""
    shown = {group: tally(texts) for group, texts in groups(body).items()}
    old = re.search(r"The text mentions any of (.*?)\.\n", user_message(body))
    if old is None:
        word = max(sorted(shown["A"]), key=lambda w: shown["A"][w] - shown["B"][w])
        return {"observations": f"{word} recurs", "concept": f"mentions any of {word}"}
    words = [word for word in old[1].split(", ") if shown["C"][word] <= shown["A"][word]]
    missed = [w for w in sorted(shown["B"]) if w not in words and shown["B"][w] > shown["C"][w]]
    words += sorted(missed, key=lambda w: -(shown["B"][w] - shown["A"][w] - shown["C"][w]))[:1]
    return {"observations": "some are missed", "concept": f"mentions any of {', '.join(words or ['nothing'])}"}


@dataclass(frozen=True)
class Ready:
    workspace: Workspace
    server: Loopback


def interpretation(revisions: int) -> dict[str, Any]:
    return {"model": "openai:writer", "candidates": 3, "revisions": revisions, "scoring_texts": 200}


@pytest.fixture(scope="module", params=[0])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    workspace = Workspace(tmp_path_factory.mktemp("revised"))
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict("os.environ"),
        Loopback(writes) as server,
    ):
        scripted.use(server)
        patch.setattr(registry, "make_embedder", lambda settings, account=None: ThemeVectors())
        patch.setattr(registry, "make_annotator", lambda settings, account=None, **more: Judge())
        workspace.declare("made", made_texts(request.param), interpretation=interpretation(0), **FIELDS)
        save_themes(workspace.root / "data" / "made" / "themes.pt")
        run = workspace.run("made", upto="selected_neurons")
        assert run.success, {step: run.sentence(step) for step in run.failures}
        yield Ready(workspace, server)


def agreement(workspace: Workspace) -> tuple[np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each chosen phrase: as reported, and over every text that there is."""
    texts = read_frame(workspace.current("made", "corpus").file("texts.parquet"))
    activations = workspace.current("made", "activations")
    rows = text_rows(read_frame(activations.file("texts.parquet"))["text_id"], texts["text_id"])
    codes = read_codes(activations.file("codes.safetensors"))[rows].tocsc()
    reported, true = [], []
    for record in workspace.current("made", "interpretations").json("concepts.json"):
        if record["concept"] is None:
            continue
        fires = codes[:, [record["column"]]].toarray()[:, 0] > 0
        said = np.array([holds(record["concept"]["predicate"], text) for text in texts["text"]])
        both = float((fires & said).sum())
        true.append([both / said.sum(), both / fires.sum(), 2 * both / (said.sum() + fires.sum())])
        reported.append([record["fidelity"][f"natural_{name}"] for name in ("precision", "recall", "f1")])
    return np.array(reported), np.array(true)


def test_three_revisions_lift_natural_f1_and_what_is_reported_is_true(ready: Ready) -> None:
    workspace, server = ready.workspace, ready.server
    found, asked = {}, {}
    for revisions in (0, 3):
        workspace.declare("made", None, interpretation=interpretation(revisions), **FIELDS)
        run = workspace.run("made", "interpretations")
        assert run.success, {step: run.sentence(step) for step in run.failures}
        found[revisions], asked[revisions] = agreement(workspace), len(server.bodies())
    # Each round writes once for a neuron; the first phrases are known by then.
    assert THEMES <= asked[3] - asked[0] <= 3 * len(workspace.current("made", "interpretations").json("concepts.json"))
    for revisions, (reported, true) in found.items():
        assert len(true) >= THEMES - 2, revisions
        np.testing.assert_allclose(reported.mean(axis=0), true.mean(axis=0), atol=0.02, err_msg=str(revisions))
    assert found[3][1][:, 2].mean() - found[0][1][:, 2].mean() >= 0.10
    assert found[3][0][:, 2].mean() - found[0][0][:, 2].mean() >= 0.10
    # The model has read training texts only, the judge's mistakes among them.
    split = dict(
        read_frame(workspace.current("made", "corpus").file("texts.parquet")).select("text", "split").iter_rows()
    )
    shown = {text for body in server.bodies() for text in re.findall(r"^No \d+ .*$", user_message(body), re.MULTILINE)}
    assert len(shown) > 100
    assert {split[text] for text in shown} == {"train"}
    said = run.metadata("interpretations")
    assert said["estimated calls"] > 0
    records = workspace.current("made", "interpretations").json("concepts.json")
    revised = [each for record in records for each in record["candidates"] if "revises" in each["details"]]
    assert len(revised) > THEMES
    # What was asked for the words of a revised phrase is shown, letter by letter.
    prompts = [user_message(body) for body in server.bodies()]
    row = next(record for record in records if record["chosen"] and record["chosen"] >= 3)
    words = asked_for_words(
        workspace.project, load_dataset(workspace.project.data, "made"), {"hypothesis_id": "x", **row}
    )
    assert all(each.messages[1][1] in prompts and each.entry for each in words)
    assert any(each.what.startswith("better words than") for each in words)
    assert any(row["concept"]["predicate"] in str(each.entry and each.entry.answer) for each in words)
