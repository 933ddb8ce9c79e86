"""What `saes: auto` tried and took, read back from the autoencoders it left.

Belongs here: reading grid.parquet and choice.json for those who speak about them. Does not belong here: making them
(`assets.sae_sizes`) or the words (`report.ladder`).
"""

import polars as pl

from hsae_dagster.report.content import SizeChoice
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject


def read_choice(checkpoints: StoredObject) -> SizeChoice | None:
    """The measured choice behind the autoencoders; None where they were declared or nothing was measured."""
    if not checkpoints.file("grid.parquet").is_file():
        return None
    grid, choice = read_frame(checkpoints.file("grid.parquet")), checkpoints.json("choice.json")
    # Of two halves both were offered the same sizes; the reason says what each took.
    grid = grid.filter(pl.col("half") == grid["half"][0])
    if grid["said"].is_null().all():
        return None
    taken = grid.filter(pl.col("chosen")).row(0, named=True)
    return SizeChoice(tuple(grid.select("m", "k").iter_rows()), taken["m"], taken["k"], choice["reason"])
