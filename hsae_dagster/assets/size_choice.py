"""What `saes: auto` tried and took, read back from the autoencoders it left.

Belongs here: reading grid.parquet and choice.json for those who speak about them. Does not belong here: making them
(`assets.sae_sizes`) or the words (`report.ladder`).
"""

import polars as pl

from hsae_dagster.report.content import SizeChoice
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject


def read_choice(checkpoints: StoredObject) -> SizeChoice | None:
    """The measured choice behind the autoencoders; None where they were declared or could not be measured."""
    if not checkpoints.file("grid.parquet").is_file():
        return None
    grid = read_frame(checkpoints.file("grid.parquet"))
    taken, choice = grid.filter(pl.col("chosen")).row(0, named=True), checkpoints.json("choice.json")
    return SizeChoice(
        tried=grid.height,
        sizes=tuple(sorted(set(grid.select("m", "k").iter_rows()))),
        label_weights=tuple(sorted(set(grid["label_weight"]))),
        m=taken["m"],
        k=taken["k"],
        label_weight=taken["label_weight"],
        reason=choice["reason"],
        head_share=choice.get("head_share", 1.0),  # choices from before it could be a share have none
    )
