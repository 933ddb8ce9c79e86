"""What every part of dataset.yaml has in common.

Belongs here: the base of all sections and kinds of numbers that several use. Does not belong here: any field (`spec`).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Range = tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]


class Section(BaseModel):
    """A part of dataset.yaml: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
