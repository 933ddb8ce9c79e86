"""Labelled texts to tested hypotheses, as Dagster assets. Importing the package imports nothing else."""

__version__ = "0.1.0"
