"""Texts that try to be markup: a dataset in which every name and text carries HTML and markdown."""

import polars as pl

from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts

EVIL = (
    "<script>document.title='owned'</script> ![x](https://127.0.0.1:9/x.png) [y](javascript:alert(1)) "
    "<img src=x onerror=alert(2)>"
)
NAME = "injected"


def declare_injected(workspace: Workspace, name: str = NAME) -> None:
    """The tiny texts, each followed by markup; the description, outcome and authors carry it too."""
    texts = tiny_texts().with_columns(
        (pl.col("text") + f" {EVIL}").alias("text"), (pl.col("author") + f" {EVIL}").alias("author")
    )
    workspace.declare(
        name,
        texts.rename({"score": "score <b>bold</b> | `code`"}),
        description=EVIL,
        columns={"text": "text", "label": "score <b>bold</b> | `code`", "cluster_by": "author"},
        # With so long an ending in common all texts are nearly one.
        splits={"holdout": 0.35, "validation": 0.2, "fidelity": 0.15, "near_texts": 1.1},
    )
