"""The register: plans written once, looks counted, families remembered."""

import re

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.inference.plan import AnalysisPlan, PlannedTest, holdout_fingerprint, holdout_keys
from hsae_dagster.errors import StorageError
from hsae_dagster.storage.holdouts import HoldoutRegister


def altered(root, written, instead, times=1):
    """Change what stands in the file of the records, as a disk may."""
    path = root / "records.sqlite"
    data = path.read_bytes()
    assert data.count(written) == times
    path.write_bytes(data.replace(written, instead))


def keys(n=300, seed=0, first=0):
    label = np.random.default_rng(seed).normal(size=1000)[first : first + n]
    ids = [f"{i:032x}" for i in range(first, first + n)]
    return holdout_keys(pl.DataFrame({"text_id": ids, "label": label}), pl.DataFrame({"text_id": ids, "text": ids}))


def plan(holdout, *concepts):
    tests = tuple(PlannedTest(concept, concept, "found", 1) for concept in concepts)
    return AnalysisPlan(holdout_fingerprint(holdout), tests, {"model": "lexical"}, {}, {"alpha": 0.05, "level": 0.05})


def looked(register, holdout, made, **kept):
    register.freeze(made, holdout)
    look = register.look(made, dataset="d", judged_under=made.fingerprint)
    register.keep(made, {made.test_key(name): p for name, p in kept.items()})
    return look


def test_one_plan_looks_once_however_often_it_is_evaluated(tmp_path):
    register, holdout = HoldoutRegister(tmp_path), keys()
    first = plan(holdout, "a", "b")
    assert looked(register, holdout, first, a=0.01, b=0.2).number == 1
    second = plan(holdout, "a", "c")
    look = looked(register, holdout, second, a=0.01, c=0.3)
    assert look.number == 2
    assert look.earlier == {first.test_key("a"): 0.01, first.test_key("b"): 0.2}
    again = looked(register, holdout, first, a=0.9)
    assert (again.number, again.earlier) == (1, {})
    # The first record of p-values is the one that stays.
    assert looked(register, holdout, plan(holdout, "z")).earlier[first.test_key("a")] == 0.01


def test_a_grown_holdout_is_looked_at_again_and_a_fresh_one_is_not(tmp_path):
    register = HoldoutRegister(tmp_path)
    looked(register, keys(), plan(keys(), "a"), a=0.5)
    assert looked(register, keys(400), plan(keys(400), "a"), a=0.4).number == 2
    fresh = keys(300, first=500)
    assert looked(register, fresh, plan(fresh, "a"), a=0.4).number == 1
    other_outcome = keys(300, seed=9)
    assert looked(register, other_outcome, plan(other_outcome, "a"), a=0.4).number == 1


def test_classes_of_one_column_are_one_family_even_where_texts_have_several(tmp_path):
    register = HoldoutRegister(tmp_path)

    def of_class(name, column, seed):
        rows = keys(300, seed).with_columns((pl.col("label") > 0.8).cast(pl.Float64))
        tests = (PlannedTest("a", "a", "found", 1),)
        model = {"label": column, "positive": name}
        return rows, AnalysisPlan(
            holdout_fingerprint(rows), tests, {"model": "lexical"}, model, {"alpha": 0.05, "level": 0.05}
        )

    numbers = []
    for name, column, seed in (("joy", "emotions", 1), ("fear", "emotions", 2), ("yes", "recommended", 3)):
        rows, made = of_class(name, column, seed)
        register.freeze(made, rows)
        numbers.append(register.look(made, dataset="d", judged_under=None).number)
    assert numbers == [1, 2, 1]


def test_a_look_that_broke_off_before_any_figure_counts_all_it_planned(tmp_path):
    register, holdout = HoldoutRegister(tmp_path), keys()
    broken = plan(holdout, "a", "b", "c")
    register.freeze(broken, holdout)
    register.look(broken, dataset="d", judged_under=None)
    look = looked(register, holdout, plan(holdout, "z"))
    assert len(look.earlier) == 3
    assert all(np.isnan(p) for p in look.earlier.values())


def test_a_plan_changed_after_judging_is_told_from_one_that_was_frozen_before(tmp_path):
    register, holdout = HoldoutRegister(tmp_path), keys()
    made, changed = plan(holdout, "a"), plan(holdout, "a", "b")
    register.freeze(changed, holdout)
    assert not register.look(changed, dataset="d", judged_under=made.fingerprint).frozen_before
    register.freeze(made, holdout)
    assert register.look(made, dataset="d", judged_under=made.fingerprint).frozen_before


def test_a_damaged_record_is_a_sentence_and_wrong_keys_are_refused(tmp_path):
    register, holdout = HoldoutRegister(tmp_path), keys()
    made = plan(holdout, "a")
    looked(register, holdout, made, a=0.5)
    altered(tmp_path, b'"number": 1', b'"number": 7')
    with pytest.raises(StorageError, match=r"records.sqlite are damaged: the look .*not what was written.*Restore"):
        register.look(made, dataset="d", judged_under=None)
    with pytest.raises(ValueError, match="not the keys"):
        register.freeze(made, keys(10))


def test_a_changed_figure_in_a_record_and_changed_keys_are_noticed(tmp_path):
    register, holdout = HoldoutRegister(tmp_path), keys()
    made, later = plan(holdout, "a"), plan(holdout, "b")
    looked(register, holdout, made, a=0.5)
    altered(tmp_path, b": 0.5}", b": 0.7}")
    with pytest.raises(StorageError, match=r"the p-values of the look .*not what was written.*Restore"):
        looked(register, holdout, later, b=0.1)
    altered(tmp_path, b": 0.7}", b": 0.5}")
    altered(tmp_path, b"PAR1", b"PAR2", times=2)
    other = keys(290)
    with pytest.raises(StorageError, match=r"the holdout keys .*not what was written.*Restore"):
        looked(register, other, plan(other, "a"), a=0.2)
    # Whoever evaluates that holdout again knows its keys, and writes them again.
    assert looked(register, holdout, later, b=0.1).number == 2


@pytest.mark.parametrize("place", [0, 1])
def test_a_look_that_its_index_does_not_know_is_not_overlooked(tmp_path, place):
    register, holdout = HoldoutRegister(tmp_path), keys()
    made, later = plan(holdout, "a"), plan(holdout, "b")
    register.freeze(made, holdout)
    register.look(made, dataset="d", judged_under=None)
    register.freeze(later, holdout)
    path, named = tmp_path / "records.sqlite", f"look{made.holdout}".encode()
    data = bytearray(path.read_bytes())
    places = [found.start() for found in re.finditer(named, data)]
    assert len(places) == 2, "in its row and in the index"
    data[places[place]] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"records.sqlite are damaged.*Restore"):
        register.look(later, dataset="d", judged_under=None)
