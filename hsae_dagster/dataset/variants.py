"""A dataset that extends another: the same files, other settings.

Belongs here: how two declarations become one, and what may extend what. Does not belong here: reading them
(`discovery`). What a variant computes is not decided here either: results are kept by what they were made from, so
whatever is equal is shared without being told.
"""

from typing import Any

from hsae_dagster.errors import DatasetError


def inherit(name: str, own: dict[str, Any], base: Any) -> dict[str, Any]:
    """The declaration of a variant: `own` merged into `base`.

    Args:
        name: of the variant.
        own: its declaration, with `extends`.
        base: the declaration of the dataset it extends.

    Raises:
        DatasetError: the variant extends itself or another variant, or names files.
    """
    extended = own["extends"]
    if extended == name:
        raise DatasetError(f"Dataset `{name}` extends itself. Name another dataset in `extends`, or leave it out.")
    if not isinstance(base, dict):
        raise DatasetError(
            f"Dataset `{name}` extends `{extended}`, whose dataset.yaml holds no fields. Correct that one."
        )
    if "extends" in base:
        raise DatasetError(
            f"Dataset `{name}` extends `{extended}`, which itself extends `{base['extends']}`. Extend a dataset that "
            "has files of its own, and repeat the settings that differ."
        )
    if "files" in own:
        raise DatasetError(
            f"Dataset `{name}` extends `{extended}` and so reads its files; take out `files`, or `extends` to declare "
            "a dataset of its own."
        )
    return merge(base, own)


def merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own`: sections are merged field by field, everything else (lists too) is replaced."""
    merged = dict(base)
    for field, value in own.items():
        below = merged.get(field)
        merged[field] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
