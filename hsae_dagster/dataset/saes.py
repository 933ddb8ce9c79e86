"""The autoencoders of dataset.yaml: one by one, by the reference's rule of thumb, or chosen by measurement.

Belongs here: the fields of `saes` and their limits. Does not belong here: the grid that is measured (`core.sae_grid`).
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from hsae_dagster.dataset.section import Section


class SAE(Section):
    """One sparse autoencoder. A dataset may have several; their neurons stand side by side."""

    m: int = Field(64, ge=2, description="Neurons in all.")
    k: int = Field(16, ge=1, description="Neurons that may fire per text.")
    prefixes: tuple[int, ...] | None = Field(None, description="Matryoshka prefixes, rising, the last equal to m.")
    batch_topk: bool = Field(False, description="Share k over the batch instead of fixing it per text.")
    aux_k: int | None = Field(None, ge=1, description="Dead neurons revived per step; default min(2k, m).")
    aux_coef: float = Field(1 / 32, ge=0.0, description="Weight of the loss that revives dead neurons.")
    dead_after_steps: int = Field(256, ge=1, description="Training steps without firing after which one is dead.")
    multi_k: int | None = Field(None, ge=1, description="A second, denser reconstruction.")
    multi_coef: float = Field(0.0, ge=0.0, description="Weight of the multi_k reconstruction.")
    learning_rate: float = Field(1e-3, gt=0.0, description="Adam's step size.")
    batch_size: int = Field(512, ge=2, description="Texts per step.")
    clip_grad: float | None = Field(1.0, gt=0.0, description="Longest gradient of a step; null for any length.")
    max_epochs: int = Field(200, ge=1, description="Most passes over the training texts.")
    patience: int = Field(5, ge=1, description="Epochs without improvement before stopping.")
    seed: int = Field(0, ge=0, description="Start of this SAE's own random stream.")
    checkpoint: str | None = Field(
        None,
        description="A checkpoint of HypotheSAEs (SAE_M=…_K=….pt) beside dataset.yaml, taken as it is, not trained.",
    )
    label_weight: float = Field(
        0.0, ge=0.0, description="Weight of predicting the training labels from the neurons; 0: labels play no part."
    )
    head_neurons: int | None = Field(
        None, ge=1, description="With label_weight: only so many neurons, the first ones, predict the label."
    )
    distinct_weight: float = Field(
        0.0, ge=0.0, description="With label_weight: weight of keeping the predicting neurons uncorrelated."
    )

    input_noise: float = Field(
        0.0,
        ge=0.0,
        description="Noise added to training embeddings, as a multiple of their spread; it acts like ridge.",
    )

    start: Literal["random", "centroids"] = Field(
        "random",
        description="Where neurons start: in random directions, as the reference's, or at centroids of the training "
        "units, which more seeds agree on.",
    )

    @model_validator(mode="after")
    def _sizes_agree(self) -> "SAE":
        if self.k > self.m:
            raise ValueError(f"k is {self.k} but m is only {self.m}; k may be at most m")
        if self.head_neurons and self.head_neurons > self.m:
            raise ValueError(f"head_neurons is {self.head_neurons} but m is only {self.m}; leave it out for all")
        if self.label_weight == 0 and (self.head_neurons or self.distinct_weight):
            raise ValueError("head_neurons and distinct_weight shape guidance by the label; set label_weight above 0")
        if self.prefixes and (list(self.prefixes) != sorted(set(self.prefixes)) or self.prefixes[-1] != self.m):
            raise ValueError(f"prefixes {list(self.prefixes)} must rise strictly and end at m = {self.m}")
        return self

    @model_validator(mode="after")
    def _what_is_loaded_is_not_trained(self) -> "SAE":
        settings = sorted(self.model_fields_set - {"checkpoint", "m", "k", "prefixes", "batch_topk"})
        if self.checkpoint is not None and settings:
            raise ValueError(
                f"a checkpoint is taken as it is, so {', '.join(settings)} would have no effect; leave out either"
            )
        return self


class Auto(Section):
    """How the size is chosen: candidates are raced for a few epochs, and what is taken is trained to the end."""

    race_epochs: int = Field(
        20, ge=1, description="Passes over the units after which candidates are compared; fewer over more than 20,000."
    )
    learning_rate: float = Field(2e-3, gt=0.0, description="Adam's step size for every candidate.")
    max_epochs: int = Field(
        60, ge=1, description="Most passes over the units for the one that is taken; fewer over more than 20,000."
    )
    patience: int = Field(5, ge=1, description="Epochs without improvement before stopping.")
    seed: int = Field(0, ge=0, description="Start of the random stream of every candidate.")


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
            f"{value!r} tells no sizes; write `auto`, `reference`, or a list of autoencoders such as [{{m: 64, k: 16}}]"
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
