"""What claims depend on is part of what a result is reused by."""

from hsae_dagster.assets.interpretations import config_of
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster_tests.assets.workspace import declaration


def config(**changes: object) -> dict:
    return config_of(DatasetSpec.model_validate(declaration(**changes)))


def test_texts_that_a_claim_needs_are_among_what_interpretations_are_reused_by() -> None:
    # Claims that could not be tested are not taken, so another least number of texts finds other claims.
    assert config(inference={"min_positives": 5}) != config(inference={"min_positives": 40})
    assert config(inference={"alpha": 0.05}) == config(inference={"alpha": 0.01}), "what only tests read"
