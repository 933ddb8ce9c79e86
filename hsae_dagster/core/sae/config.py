"""What decides what an autoencoder becomes: its one declaration, in dataset.yaml and in training."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hsae_dagster.errors import MethodError


class SAEConfig(BaseModel):
    """Everything that decides what an autoencoder becomes, given the embeddings.

    Raises:
        MethodError: a setting is out of range or two settings contradict each other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)

    m: int = Field(64, ge=2, description="Number of neurons.")
    k: int = Field(16, ge=1, description="Neurons that may fire per text.")
    prefixes: tuple[int, ...] | None = Field(None, description="Matryoshka prefixes, rising, the last equal to m.")
    batch_topk: bool = Field(False, description="Share k over the batch instead of fixing it per text.")
    aux_k: int | None = Field(None, ge=1, description="Dead neurons revived per step; default min(2k, m).")
    aux_coef: float = Field(1 / 32, ge=0.0, description="Weight of the loss that revives dead neurons.")
    multi_k: int | None = Field(None, ge=1, description="k of a second, denser reconstruction.")
    multi_coef: float = Field(0.0, ge=0.0, description="Weight of the multi_k reconstruction.")
    dead_after_steps: int = Field(256, ge=1, description="Training steps without firing after which a neuron is dead.")
    batch_size: int = Field(512, ge=2, description="Texts per step.")
    learning_rate: float = Field(1e-3, gt=0.0, description="Adam's step size.")
    max_epochs: int = Field(200, ge=1, description="Most passes over the training texts.")
    patience: int = Field(5, ge=1, description="Epochs without improvement before stopping.")
    clip_grad: float | None = Field(1.0, gt=0.0, description="Gradient clipping norm; null for none.")
    seed: int = Field(0, ge=0, description="Seed of this autoencoder.")
    label_weight: float = Field(
        0.0, ge=0.0, description="Weight of predicting the training labels from the neurons; 0: unguided."
    )
    start: Literal["random", "centroids"] = Field(
        "random",
        description="Initial directions: random, as in the reference, or centroids of the training units, on "
        "which more seeds agree.",
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            first = error.errors()[0]
            place = f"{'.'.join(map(str, first['loc']))} is {first['input']}: " if first["loc"] else ""
            said = first["msg"].removeprefix("Value error, ")
            raise MethodError(f"An autoencoder cannot be made: {place}{said}.") from error

    @model_validator(mode="after")
    def _settings_agree(self) -> "SAEConfig":
        if self.k > self.m:
            raise ValueError(f"k is {self.k} and m is {self.m}, but k may be at most m; lower k or raise m")
        for name in ("aux_k", "multi_k"):
            value = getattr(self, name)
            if value is not None and value > self.m:
                raise ValueError(f"{name} is {value} but must lie between 1 and m = {self.m}; leave it out or lower it")
        if self.multi_coef and self.multi_k is None:
            raise ValueError(
                f"multi_coef needs multi_k; set it (4k = {4 * self.k} is a good start), or multi_coef to 0"
            )
        ends = self.prefixes
        if ends is not None and not (ends and list(ends) == sorted({*ends}) and ends[0] > 0 and ends[-1] == self.m):
            wanted = f"must rise strictly and end at m = {self.m}; write them so, or leave them out"
            raise ValueError(f"prefixes {list(ends)} {wanted}")
        return self

    @property
    def effective_aux_k(self) -> int:
        """`aux_k`, or its default min(2k, m)."""
        return min(2 * self.k, self.m) if self.aux_k is None else self.aux_k

    @property
    def segments(self) -> tuple[int, ...]:
        """Ends of the Matryoshka prefixes; (m,) without them."""
        return self.prefixes or (self.m,)
