"""What every part of dataset.yaml has in common.

Belongs here: the base of the declared sections. Does not belong here: any field.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of dataset.yaml: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
