"""Sections of dataset.yaml that have a life of their own."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from hsae_dagster.core.sae.config import SAEConfig

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Range = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) else value


# A list of names or values; a single one may stand without brackets.
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
Values = Annotated[tuple[str | int | float, ...], BeforeValidator(_several)]


class Section(BaseModel):
    """A part of dataset.yaml: unknown fields are errors, values never change after loading.

    A field is described in its declaration, or below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, use_attribute_docstrings=True)


class ServerFields(Section):
    """Which server is asked; defaults come from the environment."""

    url: str | None = Field(None, description="Address of the server, `http://host:port/v1`; default OPENAI_BASE_URL.")
    key: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key, never the key itself; default OPENAI_API_KEY, and none if
    `url` is given."""
    timeout: float | None = Field(None, gt=0)
    """Seconds without a byte after which a try counts as lost; 300."""
    concurrency: int | None = Field(None, ge=1, le=4096)
    """Most concurrent requests; default HSAE_CONCURRENCY."""


# What says how a server is asked and not which one: it changes no result.
MANNER = {"server": {"key", "timeout", "concurrency"}}


class Inference(Section):
    """What counts as confirmed."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    """Family-wise error rate of `confirmed` (Holm), over all reports of the dataset."""
    first_report: float = Field(0.8, gt=0.0, le=1.0)
    """Share of alpha for the first report; the rest is for refreshes. 1: nothing is left for them."""
    test: Literal["mean", "rank"] = "mean"
    """Which test of a numeric outcome decides. Ranks find more if a few values are very large. Both are reported."""
    min_positives: int = Field(20, ge=1)
    """Fewest holdout rows with and without a concept for it to be tested."""
    folds: int = Field(10, ge=2, le=50, description="Folds of the cross-fitted joint model, by cluster.")
    bootstrap: int = Field(500, ge=0, description="Cluster-bootstrap draws for intervals of joint fit.")
    seed: int = Field(0, ge=0, description="Seed of folds and bootstrap.")
    same_concept: float = Field(0.8, gt=0.5)
    """|phi| of two annotations from which they count as one concept; 1.1 tests all."""
    negative_controls: int = Field(5, ge=0, le=100)
    """Permutations of the labels on which selection and tests are run; 0 for none."""
    judge_sensitivity: Range | None = None
    """Known range of the judge's sensitivity (share of texts with a concept that it finds)."""
    judge_specificity: Range | None = None
    """Known range of the judge's specificity (share of texts without a concept that it rejects)."""

    @field_validator("judge_sensitivity", "judge_specificity")
    @classmethod
    def _ranges_rise(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"{list(value)} goes down; write the lowest share first")
        return value


class Judge(Section):
    """How a language model that judges is examined before it is paid for."""

    texts: int = Field(16, ge=0, le=500, description="Texts to examine it on, six questions each; 0 for none.")
    min_accuracy: float = Field(0.75, ge=0.0, le=1.0, description="Balanced accuracy below which the stage stops.")
    examples: int = Field(0, ge=0, le=8)
    """Texts labelled in gold.csv to show the model for each claim, half of them yes; at most a quarter of the labels.
    Labels that were shown do not check the judge."""
    second: str | None = None
    """A second model (`openai:…`, `local:…`) that judges some of the texts, to measure agreement."""
    second_server: ServerFields = ServerFields()
    second_texts: int = Field(100, ge=20, description="Texts that the second model judges, all concepts on each.")
    min_kappa: float = Field(0.4, ge=-1.0, le=1.0, description="Cohen's κ of both models below which a check warns.")


class Spending(Section):
    """What paid models may cost this dataset, in all runs together."""

    budget_usd: float | None = Field(None, gt=0, description="Most US dollars ever; a run stops before exceeding it.")
    budget_calls: int | None = Field(None, ge=1, description="Most requests ever; a run stops before exceeding it.")
    tier: Literal["standard", "flex", "batch"] = "standard"
    """`standard`; `flex` (half price, slower, some models); `batch` (half price, within a day)."""


class Report(Section):
    """What stands on the report beside the usual sections."""

    sections: Names = ()
    """Sections of your own, as `package.module:function`, shown before the method in this order."""


class OwnHypothesis(Section):
    """Your own hypothesis. A plain string is its claim."""

    claim: str = Field(min_length=3, description="What a text does, as a verb phrase: `mentions a price`.")
    terms: tuple[str, ...] = ()
    """Words, two-word phrases or style cues, any of which is enough; needed with annotation.model `lexical`."""
    direction: Literal["positive", "negative"] | None = None
    """Expected direction; an effect against it is not confirmed."""

    @model_validator(mode="before")
    @classmethod
    def _sentence_is_claim(cls, value: object) -> object:
        return {"claim": value} if isinstance(value, str) else value


class SAE(SAEConfig):
    """A sparse autoencoder. With several, their neurons stand side by side."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    checkpoint: str | None = None
    """A checkpoint of HypotheSAEs (SAE_M=…_K=….pt) beside dataset.yaml, used without training."""

    # Findings about dataset.yaml name the field inside it.
    __init__ = BaseModel.__init__

    @model_validator(mode="after")
    def _what_is_loaded_is_not_trained(self) -> "SAE":
        settings = sorted(self.model_fields_set - {"checkpoint", "m", "k", "prefixes", "batch_topk"})
        if self.checkpoint is not None and settings:
            raise ValueError(
                f"a checkpoint is taken as it is, so {', '.join(settings)} would have no effect; leave out either"
            )
        return self


class Auto(Section):
    """How the size is chosen: candidates race for a few epochs, and the winner is trained to the end."""

    race_epochs: int = Field(20, ge=1)
    """Passes over the units before candidates are compared; fewer over more than 20,000 units."""
    learning_rate: float = Field(2e-3, gt=0.0, description="Adam's step size for every candidate.")
    max_epochs: int = Field(60, ge=1)
    """Most passes over the units for the chosen one; fewer over more than 20,000 units."""
    patience: int = Field(5, ge=1, description="Epochs without improvement before stopping.")
    seed: int = Field(0, ge=0, description="Seed of every candidate.")


class AutoSizes(Section):
    """`saes: auto`, or `saes: {auto: {…}}` with settings of the choice."""

    auto: Auto = Auto()


def _kind_of_saes(value: object) -> str:
    if isinstance(value, str):
        return "=rule"
    return "=list" if isinstance(value, list | tuple) else "=auto"


def _spelled_out(value: object) -> object:
    if value == "auto":
        return AutoSizes()
    if not (value == "reference" or isinstance(value, list | tuple | dict | AutoSizes)):
        raise ValueError(
            f"{value!r} is not a choice of sizes; write `auto`, `reference`, or a list of autoencoders such as "
            "[{m: 64, k: 16}]"
        )
    return {"auto": {}} if value == {"auto": None} else value


# Tags tell which form was used, so that a finding names the field inside it; they are no part of the field's name.
SAEs = Annotated[
    Annotated[tuple[SAE, ...], Field(min_length=1), Tag("=list")]
    | Annotated[AutoSizes, Tag("=auto")]
    | Annotated[Literal["reference"], Tag("=rule")],
    Discriminator(_kind_of_saes),
    BeforeValidator(_spelled_out),
]
