"""What a dataset declares about its tests: the `inference` section and hypotheses of one's own.

Belongs here: the fields of these two. Does not belong here: the other sections (`spec`).
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from hsae_dagster.dataset.section import Range, Section


class Inference(Section):
    """What counts as confirmed."""

    alpha: float = Field(
        0.05, gt=0.0, lt=0.5, description="Family-wise error rate of `confirmed` (Holm), in all reports together."
    )
    first_report: float = Field(
        0.8,
        gt=0.0,
        le=1.0,
        description="Share of alpha for the first report; the rest is for refreshes on rows that come later. 1: none.",
    )
    test: Literal["mean", "rank"] = Field(
        "mean",
        description="Which test of a number decides: of means, or of ranks, which finds more where a few values are "
        "very large. Both are reported.",
    )
    min_positives: int = Field(20, ge=1, description="Least holdout rows on each side of a concept to be tested.")
    folds: int = Field(10, ge=2, le=50, description="Folds of the cross-fitted joint model, by cluster.")
    bootstrap: int = Field(500, ge=0, description="Cluster-bootstrap draws for intervals of joint fit.")
    seed: int = Field(0, ge=0, description="Start of the random stream of folds and bootstrap.")
    same_concept: float = Field(
        0.8, gt=0.5, description="|phi| of two annotations from which one concept stands for both; 1.1 tests all."
    )
    negative_controls: int = Field(
        5, ge=0, le=100, description="Permutations of the labels that selection and tests are run on; 0 for none."
    )
    judge_sensitivity: Range | None = Field(
        None, description="Lowest and highest share of texts with a concept that the judge finds, where known."
    )
    judge_specificity: Range | None = Field(
        None, description="Lowest and highest share of texts without a concept that the judge passes over, where known."
    )

    @field_validator("judge_sensitivity", "judge_specificity")
    @classmethod
    def _ranges_rise(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"{list(value)} goes down; write the lowest share first")
        return value


class OwnHypothesis(Section):
    """A hypothesis of your own, tested beside those that are found. A bare sentence is its claim."""

    claim: str = Field(min_length=3, description="What a text does, as a verb phrase: `mentions a price`.")
    terms: tuple[str, ...] = Field(
        (), description="Words, two-word phrases or style cues, any of which is enough; for annotation.model `lexical`."
    )
    direction: Literal["positive", "negative"] | None = Field(
        None, description="The direction that you expect; an effect against it is not confirmed."
    )

    @model_validator(mode="before")
    @classmethod
    def _sentence_is_claim(cls, value: object) -> object:
        return {"claim": value} if isinstance(value, str) else value
