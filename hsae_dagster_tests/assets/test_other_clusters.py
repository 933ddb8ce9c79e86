"""Lessons dealt anew: which clusters validate, and that no text is on both sides."""

from typing import Any, cast

import polars as pl
import pytest

from hsae_dagster.assets.autoencoders import Lessons


def lessons(pairs: bool, clusters: dict[str, int] | None = None) -> Lessons:
    """Texts t000, t001, …, three to a cluster, the first of a cluster in an observation of the next cluster, too."""
    observations, ids, number = {}, {}, 0
    for split, count in (clusters or {"train": 50, "validation": 10}).items():
        rows = []
        first = 3 * number
        for cluster in range(count):
            mine = [f"t{3 * number + i:03d}" for i in range(3)]
            neighbour = f"t{3 * (number - 1):03d}" if cluster else mine[0]
            name = f"c{number:02d}"
            number += 1
            if pairs:
                texts = [{"text_id_a": mine[0], "text_id_b": mine[1]}, {"text_id_a": mine[2], "text_id_b": neighbour}]
            else:
                texts = [{"text_id": text} for text in dict.fromkeys([*mine, neighbour])]
            rows += [{"cluster_id": name, "label": 0.0, **one} for one in texts]
        observations[split] = pl.DataFrame(rows)
        ids[split] = pl.Series("text_id", [f"t{i:03d}" for i in range(first, 3 * number)])
    return Lessons(cast(Any, None), "set", ids, cast(Any, None), observations)


def sides(frame: pl.DataFrame) -> list[set[str]]:
    return [set(frame[name]) for name in frame.columns if name.startswith("text_id")]


@pytest.mark.parametrize("pairs", [False, True])
def test_other_clusters_validate_and_no_text_is_on_both_sides(pairs: bool) -> None:
    made = lessons(pairs)
    everything = set(pl.concat(made.ids.values()))
    training = set(made.observations["train"]["cluster_id"])
    seen: set[str] = set()
    for part in (1, 2, 3, 4, 5):
        other = made.on_other_clusters(part)
        assert other is not None
        train, validation = other.observations["train"], other.observations["validation"]
        judged = set(validation["cluster_id"])
        assert 2 <= len(judged) <= 25, "about as many as the ten of the split itself"
        assert judged <= training
        assert not judged & seen
        seen |= judged
        assert not judged & set(train["cluster_id"])
        assert set(made.observations["validation"]["cluster_id"]) & set(train["cluster_id"])
        learned, unseen = set(other.ids["train"]), set(other.ids["validation"])
        assert not learned & unseen
        assert learned | unseen == everything
        assert all(texts <= learned for texts in sides(train))
        assert all(texts <= unseen for texts in sides(validation))
        assert all(ids.is_sorted() for ids in other.ids.values())
    assert seen == training
    assert made.on_other_clusters(6) is None


def test_without_enough_training_clusters_there_is_no_other_part() -> None:
    assert lessons(False, {"train": 5, "validation": 10}).on_other_clusters(1) is None
