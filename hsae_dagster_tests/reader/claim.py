"""A printed claim taken apart.

Belongs here: the forms in which claims are printed. Does not belong here: whether a text has one.
"""

import re
from dataclasses import dataclass

_LISTED = r"“[^”]+”(?:, “[^”]+”)*(?: or “[^”]+”)?"
_WITH_LIST = re.compile(rf"(?P<name>.+?): (?P<terms>{_LISTED})")
_EXEMPLARS = re.compile(
    r"has a sentence like “(?P<sentences>.+)” \(similarity at least (?P<least>[01](?:\.\d+)?)\)", re.DOTALL
)
# Between quoted sentences; a sentence may hold quotation marks of its own.
_BETWEEN = re.compile(r"”(?:,? or |, )“")
_SAYS = "says "


class NotUnderstoodError(ValueError):
    """A claim is printed in a form that nobody told the reader of."""


@dataclass(frozen=True)
class Listed:
    """A claim that lists its terms: a word group (name `says`) or a closed class of words (any other name)."""

    name: str
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """A claim that is a rule known by its name."""

    name: str


@dataclass(frozen=True)
class Exemplars:
    """A claim that quotes sentences; `least` is the smallest cosine at which another is like one of them."""

    sentences: tuple[str, ...]
    least: float


def parse(claim: str) -> Listed | Named | Exemplars:
    """What a printed claim says.

    Raises:
        NotUnderstoodError: it begins like a word group or exemplars and does not go on like one.
    """
    if found := _EXEMPLARS.fullmatch(claim):
        return Exemplars(tuple(_BETWEEN.split(found["sentences"])), float(found["least"]))
    if found := re.fullmatch(rf"says (?P<terms>{_LISTED})", claim):
        return Listed("says", tuple(re.findall(r"“([^”]+)”", found["terms"])))
    if found := _WITH_LIST.fullmatch(claim):
        return Listed(found["name"], tuple(re.findall(r"“([^”]+)”", found["terms"])))
    if claim.startswith((_SAYS, "has a sentence like ")) or not claim.strip() or ": “" in claim:
        raise NotUnderstoodError(
            f"The claim `{claim}` does not read as `says “term” or “term”`, as `NAME: “word”, …`, nor as "
            "`has a sentence like “…” (similarity at least 0.55)`."
        )
    return Named(claim)
