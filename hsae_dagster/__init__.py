"""Labelled texts to tested hypotheses, as Dagster assets. Importing the package imports nothing else."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The component for other people's Dagster projects, imported when it is asked for."""
    if name == "HsaeComponent":
        from hsae_dagster.component import HsaeComponent

        return HsaeComponent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Also what is imported later: Dagster looks for components here."""
    return [*globals(), "HsaeComponent"]
