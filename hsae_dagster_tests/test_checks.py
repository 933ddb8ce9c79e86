"""Checks: structural ones block, scientific ones warn, and each declared one is given by its asset."""

import dagster as dg
import pytest

from hsae_dagster.definitions import STAGES
from hsae_dagster.orchestration.stage import CHECKS, check_result

ALL = [(asset, name, blocking) for asset, found in CHECKS.items() for name, (blocking, _) in found.items()]


@pytest.mark.parametrize(("asset", "name", "blocking"), ALL)
def test_a_failed_check_stops_what_follows_or_warns(asset: str, name: str, blocking: bool) -> None:
    failed = check_result(asset, name, False, {"rows": 3})
    assert not failed.passed
    assert failed.severity is (dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN)
    assert failed.metadata["rows"].value == 3


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.key.path[-1])
def test_each_stage_declares_its_checks_and_blocks_on_at_least_one(stage: dg.AssetsDefinition) -> None:
    declared = {spec.name: spec for spec in stage.check_specs}
    listed = CHECKS[stage.key.path[-1]]
    assert set(declared) == set(listed)
    assert {name: spec.blocking for name, spec in declared.items()} == {
        n: blocking for n, (blocking, _) in listed.items()
    }
    assert any(blocking for blocking, _ in listed.values())
    assert all(spec.description and spec.description.endswith(".") for spec in declared.values())


def test_an_undeclared_check_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        check_result("corpus", "no_such_check", True)


def test_what_numpy_says_of_truth_is_understood() -> None:
    import numpy as np

    assert check_result("corpus", "labels_vary", np.bool_(True)).passed is True
