"""Labelled texts to tested hypotheses, as Dagster assets. Importing the package imports nothing else."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`analyse`, and the component for other people's Dagster projects, imported when they are asked for."""
    if name == "analyse":
        from hsae_dagster.api import analyse

        return analyse
    if name == "HsaeComponent":
        from hsae_dagster.component import HsaeComponent

        return HsaeComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Also what is imported later: Dagster looks for components here."""
    return [*globals(), "HsaeComponent", "analyse"]
