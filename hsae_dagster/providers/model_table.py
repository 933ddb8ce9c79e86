"""What is known of models by name: prices and quirks.

Belongs here: reading models.yaml and the user's own file over it, and the cost of tokens. Does not belong here:
counting tokens (`openai_replies`, `estimate`) or what may be spent (`account`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hsae_dagster.errors import ProviderError
from hsae_dagster.plain_yaml import load_yaml

BUILT_IN = Path(__file__).with_name("models.yaml")
SETTING = "HSAE_MODELS"
Tier = Literal["standard", "flex", "batch"]
# A model nobody knows may think before it answers; without a price its tokens are not reserved in dollars.
UNKNOWN_THINKING = 2048
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as the server counted them. Cached ones are part of the input; thoughts of the output."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input + other.input, self.cached + other.cached, self.output + other.output)


NO_TOKENS = Usage()


class ModelProfile(BaseModel):
    """One model: prices in USD per million tokens, and what it is particular about (models.yaml names each field)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float | None = Field(None, ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float | None = Field(None, ge=0)
    discount: float = Field(0.5, gt=0, le=1)
    temperature: bool = True
    reasoning_effort: str | None = None
    thinking_tokens: int = Field(0, ge=0)
    flex: bool = False

    @property
    def priced(self) -> bool:
        """Whether dollars can be told."""
        return self.input is not None and self.output is not None

    def cost(self, usage: Usage, tier: str = "standard") -> float | None:
        """USD for some tokens, or None where no price is known."""
        if self.input is None or self.output is None:
            return None
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input - usage.cached
        usd = (fresh * self.input + usage.cached * cached_price + usage.output * self.output) / 1e6
        return usd if tier == "standard" else usd * self.discount


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    as_of: object = None
    source: str | None = None
    models: Mapping[str, Mapping[str, object]]


def profile_of(model: str, environment: Mapping[str, str] = os.environ) -> ModelProfile:
    """What is known of a model; a dated snapshot (`…-2025-08-07`) is its model. Unknown: no price, room to think.

    Raises:
        ProviderError: the file that HSAE_MODELS names cannot be used.
    """
    own = environment.get(SETTING, "").strip()
    known = _profiles(Path(own).expanduser() if own else None)
    found = known.get(model) or known.get(_SNAPSHOT.sub("", model))
    return found or ModelProfile(thinking_tokens=UNKNOWN_THINKING)


@cache
def _profiles(own: Path | None) -> dict[str, ModelProfile]:
    fields = {name: dict(values) for name, values in _read(BUILT_IN).items()}
    for name, values in (_read(own) if own else {}).items():
        fields[name] = {**fields.get(name, {}), **values}
    found = {}
    for name, values in fields.items():
        try:
            found[name] = ModelProfile.model_validate(values)
        except ValidationError as error:
            raise _unusable(own, f"model `{name}`: {_first(error)}") from None
    return found


def _read(path: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        return _Table.model_validate(load_yaml(path.read_text(encoding="utf-8"))).models
    except ValidationError as error:
        raise _unusable(path, _first(error)) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _unusable(path, " ".join(str(error).split())) from None


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def _unusable(path: Path | None, problem: str) -> ProviderError:
    return ProviderError(
        f"The table of models {path}, named by {SETTING}, cannot be used: {problem}. Write it like "
        "`models: {my-model: {input: 0.10, output: 0.40}}`, in USD per million tokens, or unset the variable."
    )
