"""Splits, keys and duplicates."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.core.corpus import build_corpus, row_keys
from hsae_dagster.core.observations import SPLITS, SplitShares, folded_keys
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


def test_clusters_stay_whole_and_new_rows_never_move_old_ones() -> None:
    texts, clusters = [f"text {i}" for i in range(400)], [f"c{i % 40}" for i in range(400)]
    before = build_corpus(rows(texts, clusters), SHARES)
    after = build_corpus(rows([*texts, "a new one"], [*clusters, "c_new"]), SHARES)
    assert before.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    joined = before.texts.join(after.texts, on="text_id")
    assert joined.height == 400
    assert (joined["split"] == joined["split_right"]).all()


def test_the_order_of_rows_does_not_matter() -> None:
    frame = rows([f"text {i % 160}" for i in range(200)], [f"c{i % 40}" for i in range(200)])
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    first, second = build_corpus(frame, SHARES), build_corpus(shuffled, SHARES)
    assert first.texts.equals(second.texts)
    assert first.observations.equals(second.observations)


def test_no_row_is_left_out_for_its_outcome() -> None:
    """300 times "thanks", 85 % of them positive, are 300 rows with that share."""
    texts = [*["thanks"] * 300, *[f"reply {i}" for i in range(700)]]
    labels = [*[float(i >= 45) for i in range(300)], *[float(i % 20 > 2) for i in range(700)]]
    made = build_corpus(rows(texts, labels=labels), SHARES)
    assert made.dropped == {}
    stock = made.observations.filter(pl.col("text_id") == text_id("thanks"))
    assert stock.height == 300 and stock["label"].mean() == 0.85
    assert made.observations["obs_id"].n_unique() == 1000


def test_only_a_row_of_the_same_id_and_content_is_a_repeat() -> None:
    texts = [f"reply {i}" for i in range(100)]
    frame = rows([*texts, texts[3]], labels=[*[float(i % 2) for i in range(100)], 1.0])
    numbered = frame.with_columns(pl.Series("id", [str(i) for i in range(100)] + ["3"]))
    made = build_corpus(numbered, SHARES)
    assert made.dropped == {"repeated row": 1} and made.observations.height == 100
    other = frame.with_columns(pl.Series("id", [str(i) for i in range(100)] + ["4"]))
    with pytest.raises(MethodError, match=r"'4' belongs to rows that differ .*row 5 and .*row 101"):
        build_corpus(other, SHARES)


def test_cluster_keys_are_one_whatever_their_case_and_spaces() -> None:
    names = ["Fenn Care", "FENN CARE ", " fenn  care", "Fenn\u00a0Care"]
    clusters = [names[i % 4] if i < 40 else f"company {i // 10}" for i in range(300)]
    made = build_corpus(rows([f"reply {i}" for i in range(300)], clusters), SHARES)
    held = made.observations.filter(pl.col("cluster_id") == "fenn care")
    assert held.height == 40 and held["split"].n_unique() == 1


def test_cluster_keys_are_one_where_capitals_are_spelled_otherwise() -> None:
    # In pairs: ß has no capital of its own in most files, and sigma has two small letters.
    names = ["Anna Weiß", "ANNA WEISS", "Νίκος", "ΝΊΚΟΣ", "İnci", "I\u0307NCI", None]
    assert folded_keys(pl.Series(names)).to_list() == [*["anna weiss"] * 2, *["νίκοσ"] * 2, *["i\u0307nci"] * 2, None]
    assert folded_keys(pl.Series([None, None], dtype=pl.String)).to_list() == [None, None]
    clusters = [names[i % 2] if i < 40 else f"writer {i // 10}" for i in range(300)]
    made = build_corpus(rows([f"reply {i}" for i in range(300)], clusters), SHARES)
    assert made.observations["cluster_id"].n_unique() == 27


def test_copies_of_a_post_stay_together_whatever_handle_link_and_number_they_have() -> None:
    words = np.random.default_rng(3).permuted(np.tile([f"w{chr(97 + i)}x" for i in range(26)], (40, 1)), axis=1)
    texts = [
        f"RT @user{c}{i}: {' '.join(words[i][:12])}, {c}! https://t.co/{i}{c}" for i in range(40) for c in range(5)
    ]
    made = build_corpus(rows(texts), SHARES)
    assert made.observations["cluster_id"].n_unique() == 40
    assert made.joined == {"equal texts": 200}
    # One word in 26 differs: nearly equal.
    slots = [" ".join([*words[i][:5], f"slot{chr(97 + c)}", *words[i][6:]]) for i in range(40) for c in range(5)]
    assert build_corpus(rows(slots), SHARES).observations["cluster_id"].n_unique() == 40
    apart = build_corpus(rows(slots), SHARES, near=1.1)
    assert apart.observations["cluster_id"].n_unique() == 200


def test_headlines_that_differ_in_a_number_are_two_texts_on_one_side() -> None:
    heads = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}x ways to save more of it in a year" for i in range(100)]
    texts = [f"{number} {head}" for number in (7, 9) for head in heads]
    made = build_corpus(rows(texts), SHARES)
    assert made.texts.height == made.observations.height == 200
    assert made.observations["cluster_id"].n_unique() == 100
    apart = build_corpus(rows(texts), SHARES, near=1.1)
    assert apart.observations["cluster_id"].n_unique() == 200
    # A pair of them is no pair of equal texts.
    sides = rows(texts[:100]).rename({"text": "text_a"}).with_columns(pl.Series("text_b", texts[100:]))
    assert build_corpus(sides, SHARES).observations.height == 100


def test_one_text_but_for_its_numbers_is_refused_by_name() -> None:
    texts = [f"We stayed in room {n} of the old hotel" for n in range(60)]
    with pytest.raises(MethodError, match=r"60 of them are one text, `we stayed in room of .*set splits.near_texts to"):
        build_corpus(rows(texts), SHARES)
    assert build_corpus(rows(texts), SHARES, near=1.1).observations.height == 60


def test_rows_that_share_any_of_several_columns_stay_together() -> None:
    n = 600
    frame = rows([f"reply {i}" for i in range(n)], [f"author {i // 3}" for i in range(n)])
    frame = frame.with_columns(pl.Series("cluster:company", [f"firm {i // 12}" for i in range(n)]))
    made = build_corpus(frame, SHARES)
    assert made.observations["cluster_id"].n_unique() == 50
    assert made.joined == {"cluster:company": 600}


def test_a_phrase_that_everybody_writes_is_named_and_can_be_left_out() -> None:
    n, rng = 2000, np.random.default_rng(0)
    texts = ["Thanks!" if rng.random() < 0.1 else f"reply {i}" for i in range(n)]
    frame = rows(texts, [f"author {i // 10}" for i in range(n)])
    with pytest.raises(MethodError, match=r"the text `thanks` occurs in .* splits.shared_texts"):
        build_corpus(frame, SHARES)
    made = build_corpus(frame, SHARES, shared_texts="leave_out")
    assert set(made.dropped) == {"text of another split"}
    assert made.observations.group_by("text_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert made.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert made.observations.height > 0.85 * n


def test_a_class_of_three_authors_is_refused() -> None:
    clusters = [f"author {i // 20}" for i in range(600)]
    labels = [float(i < 60) for i in range(600)]
    with pytest.raises(
        MethodError, match=r"Only \d independent clusters of the (train|holdout) split have the label 1"
    ):
        build_corpus(rows([f"reply {i}" for i in range(600)], clusters, labels), SHARES)


def test_three_clusters_are_refused() -> None:
    frame = rows([f"reply {i}" for i in range(400)], [f"party {i % 3}" for i in range(400)])
    with pytest.raises(MethodError, match="of 3 clusters in all"):
        build_corpus(frame, SHARES)


def test_shares_of_rows_are_kept_where_clusters_are_few_and_unequal() -> None:
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.normal(2, 1.5, 100)).astype(int) + 1
    clusters = [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]
    made = build_corpus(rows([f"reply {i}" for i in range(len(clusters))], clusters), SHARES)
    found = dict(made.observations.group_by("split").len().iter_rows())
    for split, share in (("train", 0.5), ("validation", 0.1), ("fidelity", 0.1), ("holdout", 0.3)):
        assert abs(found[split] / len(clusters) - share) <= 0.06
    assert not made.cuts.declared


def test_declared_shares_are_the_cuts_where_they_give_those_shares() -> None:
    made = build_corpus(rows([f"reply {i}" for i in range(20_000)]), SHARES)
    assert made.cuts.declared
    found = dict(made.observations.group_by("split").len().iter_rows())
    for split, share in (("train", 0.5), ("validation", 0.1), ("fidelity", 0.1), ("holdout", 0.3)):
        # five standard errors of a share of 20,000
        assert abs(found[split] / 20_000 - share) < 5 * np.sqrt(share * (1 - share) / 20_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(60, 200), st.integers(1, 60))
def test_rows_that_are_added_move_nothing_towards_training(seed: int, n: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [f"reply {i}" for i in rng.integers(0, 150, n + more)]
    clusters = [f"c{i}" for i in rng.integers(0, 120, n + more)]
    try:
        before = build_corpus(rows(texts[:n], clusters[:n]), SHARES)
        after = build_corpus(rows(texts, clusters), SHARES, cuts=before.cuts)
    except MethodError:
        return
    rank = {split: i for i, split in enumerate(SPLITS)}
    both = before.texts.join(after.texts, on="text_id")
    old, new = (both[name].replace_strict(rank, return_dtype=pl.Int8) for name in ("split", "split_right"))
    assert both.height == before.texts.height and (new >= old).all()


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
    with pytest.raises(
        MethodError, match=r"Only \d+ observations of \d independent clusters landed in the (train|holdout) split"
    ):
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


def test_rows_of_a_later_round_are_its_holdout_unless_something_joins_them_to_older_ones() -> None:
    n = 400
    texts = [f"reply {i}" for i in range(n)]
    clusters = [f"c{i // 4}" for i in range(n)]
    first = build_corpus(rows(texts, clusters), SHARES)
    held = set(first.observations.filter(pl.col("split") == "holdout")["text_id"])
    late = [f"late {i}" for i in range(60)]
    # Forty of new clusters, ten of a known one, ten that repeat a known text.
    of = [f"new{i // 4}" for i in range(40)] + ["c0"] * 10 + [f"copy{i}" for i in range(10)]
    late[50:] = texts[20:30]
    frame = rows([*texts, *late], [*clusters, *of])
    frame = frame.with_columns(pl.Series("round", [1] * n + [2] * 60))
    made = build_corpus(frame, SHARES, cuts=first.cuts)
    assert made.round == 2
    where = dict(made.texts.select("text", "split").iter_rows())
    assert {where[text] for text in late[:40]} == {"holdout"}
    assert "holdout" not in {where[text] for text in [*texts, *late[40:]]}
    # What was tested is learned from now; what was learned from stays where it was.
    now = dict(made.observations.select("text_id", "split").iter_rows())
    assert {now[text] for text in held} == {"train"}
    old = first.observations.filter(pl.col("split") != "holdout").select("text_id", "split")
    assert all(now[text] == split for text, split in old.iter_rows())


def test_in_a_later_round_a_phrase_that_is_not_new_stays_out_of_the_reserve() -> None:
    n = 400
    texts = [f"reply {i}" for i in range(n)]
    clusters = [f"c{i // 4}" for i in range(n)]
    late = [f"late {i}" if i % 4 else "reply 7" if i % 8 else "a new phrase" for i in range(80)]
    frame = rows([*texts, *late], [*clusters, *[f"new{i // 4}" for i in range(80)]])
    frame = frame.with_columns(pl.Series("round", [1] * n + [2] * 80))
    first = build_corpus(rows(texts, clusters), SHARES)
    made = build_corpus(frame, SHARES, shared_texts="leave_out", cuts=first.cuts)
    held = set(made.texts.filter(pl.col("split") == "holdout")["text"])
    assert held == {text for text in late if text != "reply 7"}


def test_a_row_is_known_again_by_its_text_and_cluster_and_copies_are_counted() -> None:
    before = rows(["Thanks!", "thanks", "Good point", "A third"], ["a", "a", "b", "c"], labels=[1.0, 0.0, 1.0, 0.0])
    after = rows(
        ["THANKS", "Good point.", "thanks!", "a  third", "thanks", "Good point"],
        ["A", "b ", "a", "C", "a", "c"],
        labels=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    )
    known, now = set(row_keys(before)), row_keys(after).to_list()
    assert [key in known for key in now] == [True, True, True, True, False, False]
    pair = pl.DataFrame({"text_a": ["one"], "text_b": ["two"], "cluster": ["x"]})
    turned = pl.DataFrame({"text_a": ["two"], "text_b": ["one"], "cluster": ["x"]})
    assert row_keys(pair).to_list() == row_keys(turned).to_list()


FORWARD = SplitShares(validation=0.1, fidelity=0.1, holdout=0.3, salt="s", forward=True)


def in_time(days: list[int], clusters: list[str] | None = None) -> pl.DataFrame:
    frame = rows([f"reply {i}" for i in range(len(days))], clusters)
    return frame.with_columns(pl.Series("time", [1.7e9 + 86_400.0 * day for day in days]))


def test_a_forward_split_holds_out_what_is_later_and_what_comes_later_still() -> None:
    frame = in_time([i // 2 for i in range(400)]).sample(fraction=1.0, shuffle=True, seed=1)
    made = build_corpus(frame, FORWARD)
    spans = {s: made.observations.filter(pl.col("split") == s)["time"] for s in SPLITS}
    for earlier, later in pairwise(SPLITS):
        assert spans[earlier].max() < spans[later].min()  # type: ignore[operator]
    assert [spans[s].len() for s in SPLITS] == [200, 40, 40, 120]
    grown = build_corpus(in_time([i // 2 for i in range(500)]), FORWARD, cuts=made.cuts)
    assert grown.observations.filter(pl.col("split") == "train").height == 200
    assert grown.observations.filter(pl.col("split") == "holdout").height == 220


def test_in_a_forward_split_clusters_stay_whole_and_no_training_row_is_later_than_the_cut() -> None:
    made = build_corpus(in_time(list(range(400)), [f"c{i // 8}" for i in range(400)]), FORWARD)
    assert made.observations.group_by("cluster_id").agg(pl.col("split").n_unique())["split"].max() == 1
    spans = {s: made.observations.filter(pl.col("split") == s)["time"] for s in ("train", "holdout")}
    assert spans["train"].max() < spans["holdout"].min()  # type: ignore[operator]


def test_a_holdout_of_few_times_is_refused_with_what_to_do() -> None:
    with pytest.raises(MethodError, match="finer times"):
        build_corpus(in_time([365 * (i // 40) for i in range(400)]), FORWARD)
