"""What every part of dataset.yaml has in common.

Belongs here: the base of all sections and kinds of numbers that several use. Does not belong here: any field (`spec`).
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Range = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) else value


# A list of names or values; a single one may stand without brackets.
Names = Annotated[tuple[str, ...], BeforeValidator(_several)]
Values = Annotated[tuple[str | int | float, ...], BeforeValidator(_several)]


class Section(BaseModel):
    """A part of dataset.yaml: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
