"""Pairs within groups: each two texts once, the winner by the outcomes, nothing by the order of the rows."""

from collections import defaultdict
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.dataset.new import pairs as pairing
from hsae_dagster.dataset.new.columns import mostly_small_groups
from hsae_dagster.dataset.new.pairs import PAIRS_SCHEMA, TABLE_SCHEMA, pair_within
from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import text_id

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["g", "h", "i", "j", None]),
        # Two spellings of one text, and one that differs in case and is another.
        st.sampled_from(["one", "two", "two ", "Two", "three", "four", None]),
        # Means of different rows are often equal, though not to the last bit, or 0; those that are not are far apart.
        st.one_of(st.none(), st.integers(-4, 4).map(lambda n: n / 10)),
    ),
    min_size=1,
    max_size=40,
)
FIXED = [("g", "one", 0.0), ("g", "two", 1.0)]


def table(rows: list[tuple[str | None, str | None, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=TABLE_SCHEMA, orient="row")


def means(rows: list[tuple[str | None, str | None, float | None]]) -> dict[str, dict[str, float]]:
    """group -> text key -> mean outcome, in plain Python."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, text, outcome in rows:
        if group is not None and text is not None and outcome is not None:
            found[group][text_id(text)].append(outcome)
    return {g: {key: sum(sorted(values)) / len(values) for key, values in texts.items()} for g, texts in found.items()}


def keyed(frame: pl.DataFrame) -> list[tuple[str, str, str]]:
    return [(g, text_id(a), text_id(b)) for g, a, b in frame.select("group", "text_a", "text_b").iter_rows()]


@given(ROWS)
def test_every_two_texts_of_a_group_once_and_the_higher_outcome_wins(rows: list) -> None:
    rows = [*rows, *FIXED, ("k", "alone", 1.0), ("k", "with another", 2.0)]
    made = pair_within(table(rows))
    assert dict(made.frame.schema) == PAIRS_SCHEMA
    expected = {}
    for group, texts in means(rows).items():
        for one, two in combinations(sorted(texts), 2):
            if texts[one] != pytest.approx(texts[two], abs=1e-9):
                expected[group, one, two] = texts
    found = {(g, *sorted((a, b))): (a, b) for g, a, b in keyed(made.frame)}
    assert len(found) == made.frame.height
    assert found.keys() == expected.keys()
    for pair, row in zip(keyed(made.frame), made.frame.iter_rows(named=True), strict=True):
        outcomes = [expected[pair[0], *sorted(pair[1:])][key] for key in pair[1:]]
        assert [row["outcome_a"], row["outcome_b"]] == pytest.approx(outcomes)
        assert row["label"] == (row["outcome_a"] > row["outcome_b"])
        assert row["margin"] == abs(row["outcome_a"] - row["outcome_b"]) > 0


@given(ROWS, st.sampled_from(["all", "extremes"]), st.sampled_from([0.0, 1.0]))
def test_the_counts_add_up(rows: list, rule: pairing.Rule, least_margin: float) -> None:
    rows = [*rows, ("k", "alone", 1.0), ("k", "with another", 2.0)]
    counts = pair_within(table(rows), rule=rule, least_margin=least_margin).counts
    by_group = means(rows)
    assert counts.rows == len(rows) == sum(counts.missing.values()) + counts.repeats + counts.texts
    assert sum(counts.missing.values()) == sum(None in row for row in rows)
    assert counts.texts == sum(len(texts) for texts in by_group.values())
    assert counts.single == sum(len(texts) == 1 for texts in by_group.values())
    assert counts.single + counts.undecided + counts.groups == len(by_group)
    sizes = [len(texts) for texts in by_group.values() if len(texts) > 1]
    candidates = len(sizes) if rule == "extremes" else sum(n * (n - 1) // 2 for n in sizes)
    assert counts.pairs + counts.ties + counts.close == candidates


@given(ROWS, st.randoms(use_true_random=False), st.sampled_from(["all", "extremes"]))
def test_neither_the_order_of_rows_nor_other_rows_move_a_pair(rows: list, random, rule: pairing.Rule) -> None:  # type: ignore[no-untyped-def]
    rows = [*rows, *FIXED]
    shuffled = random.sample(rows, len(rows))
    try:
        made = pair_within(table(rows), rule=rule)
    except DatasetError as error:
        with pytest.raises(DatasetError, match="is left"):
            pair_within(table(shuffled), rule=rule)
        assert "equal outcomes" in str(error)
        return
    again = pair_within(table(shuffled), rule=rule)
    assert again.frame.equals(made.frame)
    assert again.counts == made.counts
    more = pair_within(table([*rows, ("other", "one", 1.0), ("other", "two", 2.0)]), rule=rule)
    assert more.frame.filter(pl.col("group") != "other").equals(made.frame)


@given(ROWS)
def test_extremes_are_the_highest_and_the_lowest_of_each_group(rows: list) -> None:
    rows = [*rows, ("k", "alone", 1.0), ("k", "with another", 2.0), ("k", "third", 1.5)]
    made = pair_within(table(rows), rule="extremes")
    assert made.frame["group"].is_unique().all()
    by_group = means(rows)
    for row in made.frame.iter_rows(named=True):
        values = by_group[row["group"]].values()
        assert sorted([row["outcome_a"], row["outcome_b"]]) == pytest.approx([min(values), max(values)])


def test_sides_are_balanced_whatever_the_outcome_follows() -> None:
    # The longer text always wins, and texts are in the order of their outcome in the file.
    rows = [(f"g{i}", f"text {i} " + "x" * j, float(j)) for i in range(1000) for j in range(1, 4)]
    made = pair_within(table(rows))
    assert made.counts.pairs == 3000
    assert made.counts.a_wins == made.frame["label"].sum()
    # Four standard errors of 3,000 coins. Nor is it a text's key that makes it A, or one would be so in all its pairs.
    lower_first = np.mean([a < b for _, a, b in keyed(made.frame)])
    for share in (made.counts.a_wins / 3000, lower_first):
        assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 3000)


def test_outcomes_of_a_repeated_text_are_averaged_and_equal_means_tie() -> None:
    rows = [("g", "one", 0.1), ("g", "one ", 0.2), ("g", "two", 0.15), ("g", "three", 0.5)]
    rows += [("h", "one", 0.1), ("h", "one", 0.2), ("h", "one", -0.3), ("h", "two", 0.0), ("h", "three", 1e-17)]
    made = pair_within(table(rows))
    # The means of 0.1 and 0.2, and of 0.1, 0.2 and -0.3, are not 0.15 and 0 to the last bit. A tiny outcome may be one.
    assert (made.counts.repeats, made.counts.ties, made.counts.pairs) == (3, 3, 3)
    assert made.frame["margin"].to_list() == pytest.approx([0.35, 0.35, 1e-17], abs=0.0, rel=1e-9)


def test_close_pairs_are_left_out_on_demand() -> None:
    rows = [("g", "one", 0.0), ("g", "two", 1.0), ("g", "three", 3.0)]
    assert pair_within(table(rows), least_margin=2.0).frame["margin"].to_list() == pytest.approx([2.0, 3.0], abs=1.0)
    assert pair_within(table(rows), least_margin=2.0).counts.close == 1
    with pytest.raises(DatasetError, match="none is left: 3 differ by less"):
        pair_within(table(rows), least_margin=9.0)


def test_nothing_to_compare_is_a_sentence() -> None:
    with pytest.raises(DatasetError, match=r"No group has two different texts with an outcome \(2 texts of 2 groups\)"):
        pair_within(table([("g", "one", 0.0), ("h", "two", 1.0), ("g", "two", None)]))
    with pytest.raises(DatasetError, match="1 have equal outcomes"):
        pair_within(table([("g", "one", 1.0), ("g", "two", 1.0)]))


def test_a_group_of_everything_is_refused_before_its_pairs_are_made() -> None:
    rows = [("all", f"text {i}", float(i)) for i in range(1001)] + FIXED
    with pytest.raises(DatasetError, match=r"500,501 pairs .* 'all', has 1,001 texts.*--pairs extremes .* here 2\)"):
        pair_within(table(rows))
    assert pair_within(table(rows), rule="extremes").counts.pairs == 2


def test_groups_worth_comparing_within() -> None:
    groups = [f"g{i % 100}" for i in range(300)]
    frame = pl.DataFrame({"group": groups, "y": range(300), "same": groups})
    assert mostly_small_groups(frame, "group", "y")
    assert not mostly_small_groups(frame, "group", "same")
    assert not mostly_small_groups(frame.with_columns(pl.lit("one").alias("group")), "group", "y")
    assert not mostly_small_groups(frame.with_columns(pl.Series("group", range(300))), "group", "y")
