"""What claims depend on is part of what a result is reused by."""

from pathlib import Path

import pytest

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.stages import annotation as annotation_matrix
from hsae_dagster.stages.interpretation import config_of
from hsae_dagster_tests.assets.workspace import declaration


def config(**changes: object) -> dict:
    return config_of(DatasetSpec.model_validate(declaration(**changes)))


def test_texts_that_a_claim_needs_are_among_what_interpretations_are_reused_by() -> None:
    # Claims that could not be tested are not taken, so another least number of texts finds other claims.
    assert config(inference={"min_positives": 5}) != config(inference={"min_positives": 40})
    assert config(inference={"alpha": 0.05}) == config(inference={"alpha": 0.01}), "what only tests read"


READERS = {"interpretation": {"model": "openai:m"}, "annotation": {"model": "openai:m"}}


@pytest.mark.parametrize("section", ["interpretation", "annotation"])
def test_how_a_server_is_asked_makes_no_other_result_and_which_one_does(section: str) -> None:
    def both(**fields: object) -> tuple[dict, dict]:
        declared = declaration(**{**READERS, section: {"model": "openai:m", **fields}})
        spec = DatasetSpec.model_validate(declared)
        return config_of(spec), annotation_matrix.config_of(Dataset("d", Path(), spec))

    manner = {"key": "A_KEY", "timeout": 7, "concurrency": 3}
    assert both(server={"url": "http://a/v1", **manner}) == both(server={"url": "http://a/v1"})
    for fields in ({"server": {"url": "http://b/v1"}}, {"temperature": 0.5}, {"effort": "low"}, {"prompt": "Read."}):
        assert both(**fields)[0] != both()[0], fields
        assert (both(**fields)[1] != both()[1]) is (section == "annotation"), fields
