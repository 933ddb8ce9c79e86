"""The world of the rehearsal: texts, labels, vectors and answers follow from one truth."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.rehearsal import SIZES, prepare
from benchmarks.rehearsal_world import EFFECTS, PLANTED, WORDS, World, features_of, make_texts, name_of
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.orchestration.project import Project


def test_a_text_shows_its_features_and_scores_by_them() -> None:
    texts, scores = make_texts(400, np.random.default_rng(1))
    assert len(set(texts)) == 400
    for text, score in zip(texts, scores, strict=True):
        planted = [feature for feature in features_of(text) if feature < PLANTED]
        assert score == pytest.approx(EFFECTS[planted].sum())
    share = np.mean([0 in features_of(text) for text in texts])
    assert 0.1 < share < 0.2
    words = [word for feature in WORDS for word in feature]
    assert len(set(words)) == len(words)


def test_vectors_are_of_unit_length_and_alike_where_features_are() -> None:
    world = World.make()
    one, same, other = (
        np.array(world.vector(text))
        for text in (f"number 1 the {' '.join(WORDS[5][:2])}", f"number 2 the {' '.join(WORDS[5][2:])}", "number 3")
    )
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-4)
    assert one @ same > 0.5 > one @ other


def test_the_server_knows_the_truth() -> None:
    world = World.make()
    asked = {
        "messages": [
            {"role": "user", "content": f"c1: {name_of(3)}\nc2: {name_of(4)}\n<text>\nthe {WORDS[3][1]} x\n</text>"}
        ]
    }
    said = json.loads(world.chat(asked, 0).body["choices"][0]["message"]["content"])
    assert said == {"c1": True, "c2": False}


@pytest.mark.parametrize("preset", sorted(SIZES))
def test_the_files_are_those_that_the_preset_reads(tmp_path: Path, preset: str) -> None:
    project = Project(data_dir=str(tmp_path / "data"), results_dir=str(tmp_path / "results"))
    variant = prepare(project, preset, 0.002, 20)
    dataset = load_dataset(project.data, variant)
    assert dataset.spec.annotation.concepts_per_call == 20
    rows = [pl.read_ndjson(path).height for _, path in dataset.file_paths()]
    assert rows == [round(size * 0.002) for size in SIZES[preset]]
