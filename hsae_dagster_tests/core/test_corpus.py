"""Splits, keys and duplicates."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.core.corpus import SPLITS, SplitShares, assign_split, build_corpus
from hsae_dagster.errors import MethodError
from hsae_dagster.keys import set_fingerprint, text_id

SHARES = SplitShares(validation=0.1, fidelity=0.1, holdout=0.3, salt="s")


def rows(texts: list[str], clusters: list[str] | None = None, labels: list[float] | None = None) -> pl.DataFrame:
    n = len(texts)
    return pl.DataFrame(
        {
            "file": ["f"] * n,
            "row": list(range(1, n + 1)),
            "declared_split": pl.Series([None] * n, dtype=pl.String),
            "text": texts,
            "label": labels or [float(i % 5) for i in range(n)],
            "cluster": pl.Series(clusters or [None] * n, dtype=pl.String),
        }
    )


def test_shares_are_kept_over_many_clusters() -> None:
    counts = pl.Series([assign_split(f"c{i}", SHARES) for i in range(20_000)]).value_counts()
    found = dict(counts.iter_rows())
    for split, share in (("train", 0.5), ("validation", 0.1), ("fidelity", 0.1), ("holdout", 0.3)):
        # five standard errors of a share of 20,000
        assert abs(found[split] / 20_000 - share) < 5 * np.sqrt(share * (1 - share) / 20_000)


def test_clusters_stay_whole_and_new_rows_never_move_old_ones() -> None:
    texts, clusters = [f"text {i}" for i in range(400)], [f"c{i % 40}" for i in range(400)]
    before = build_corpus(rows(texts, clusters), SHARES)
    after = build_corpus(rows([*texts, "a new one"], [*clusters, "c_new"]), SHARES)
    assert before.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    joined = before.texts.join(after.texts, on="text_id")
    assert joined.height == 400
    assert (joined["split"] == joined["split_right"]).all()


def test_the_order_of_rows_does_not_matter() -> None:
    frame = rows([f"text {i % 150}" for i in range(200)], [f"c{i % 40}" for i in range(200)])
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    first, second = build_corpus(frame, SHARES), build_corpus(shuffled, SHARES)
    assert first.texts.equals(second.texts)
    assert first.observations.equals(second.observations)


def test_a_text_in_two_splits_stays_with_the_protected_one() -> None:
    clusters = [f"c{i}" for i in range(60)]
    texts = [f"text {i}" for i in range(60)]
    holdout = next(i for i in range(60) if assign_split(clusters[i], SHARES) == "holdout")
    train = next(i for i in range(60) if assign_split(clusters[i], SHARES) == "train")
    texts[train] = f"  {texts[holdout]} "
    made = build_corpus(rows(texts, clusters), SHARES)
    assert made.dropped == {"text also in a more protected split": 1}
    kept = made.texts.filter(pl.col("text_id") == text_id(texts[holdout]))
    assert kept["split"].to_list() == ["holdout"]
    assert clusters[train] not in made.observations["cluster_id"].to_list()


def test_exact_duplicates_are_dropped_and_counted_but_other_labels_kept() -> None:
    made = build_corpus(
        rows(
            [*[f"t{i}" for i in range(60)], "t1", "t1"],
            ["x"] * 0 or None,
            [*[float(i % 3) for i in range(60)], 1.0, 9.0],
        ),
        SHARES,
    )
    assert made.dropped == {"exact duplicate": 1}
    assert made.texts.height == 60
    assert made.observations.height == 61


def test_pairs_share_texts_and_equal_pairs_are_left_out() -> None:
    n = 80
    frame = rows([f"t{i}" for i in range(n)], [f"c{i // 2}" for i in range(n)], [float(i % 2) for i in range(n)])
    pairs = frame.rename({"text": "text_a"}).with_columns(
        pl.Series("text_b", [f"t{(i // 2) * 2 + 1 - i % 2}" if i else "t0" for i in range(n)])
    )
    made = build_corpus(pairs, SHARES)
    assert made.dropped == {"pair of equal texts": 1}
    assert set(made.observations["text_id_a"]) | set(made.observations["text_id_b"]) == set(made.texts["text_id"])


def test_too_little_data_is_said_with_figures() -> None:
    with pytest.raises(MethodError, match=r"Only \d+ observations landed in the (train|holdout) split"):
        build_corpus(rows(["a", "b", "c"]), SHARES)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 25), st.integers(0, 3)), min_size=120, max_size=200),
    st.text(max_size=4),
)
def test_no_text_and_no_cluster_on_two_sides(triples: list[tuple[int, int, int]], salt: str) -> None:
    frame = rows([f"t{t}" for t, _, _ in triples], [f"c{c}" for _, c, _ in triples], [float(y) for _, _, y in triples])
    try:
        made = build_corpus(frame, SplitShares(0.2, 0.2, 0.2, salt))
    except MethodError:
        return
    sides = made.observations.group_by("text_id").agg(pl.col("split").n_unique())
    assert sides["split"].max() == 1
    assert made.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(made.texts["split"]) <= set(SPLITS)
    assert set(made.observations["text_id"]) == set(made.texts["text_id"])
    assert made.texts["text_id"].is_sorted()


def test_keys_fold_white_space_and_composition_but_not_case() -> None:
    assert text_id(" a  b\n") == text_id("a b")
    assert text_id("e\u0301") == text_id("\u00e9")
    assert text_id("A") != text_id("a")
    assert text_id("\ud800") != text_id("")  # a lone surrogate is a text like any other


@given(st.lists(st.text(max_size=5), max_size=20, unique=True), st.randoms(use_true_random=False))
def test_a_set_fingerprint_is_blind_to_order_and_sees_members(texts: list[str], shuffler: object) -> None:
    ids = sorted({text_id(text) for text in texts})
    mixed = list(ids)
    shuffler.shuffle(mixed)  # type: ignore[attr-defined]
    assert set_fingerprint(ids, "m") == set_fingerprint(mixed, "m")
    assert set_fingerprint(ids, "m") != set_fingerprint(ids, "n")
    assert set_fingerprint(ids, "m") != set_fingerprint([*ids, text_id("one more, never drawn")], "m")
