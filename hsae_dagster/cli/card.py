"""`hsae card`: a hypothesis as a picture.

Belongs here: arguments. Does not belong here: drawing (`report.card_image`).
"""

from pathlib import Path

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root


@click.command()
@click.argument("hypothesis")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def card(hypothesis: str, file: Path) -> None:
    """Draw HYPOTHESIS (its id), its figures and where it comes from as an SVG picture into FILE, without any text."""
    import polars as pl

    from hsae_dagster.report.card_image import card_svg
    from hsae_dagster.storage.frames import read_frame
    from hsae_dagster.storage.lineage import LineageLog

    prepare_home(project_root())
    log = LineageLog(Project.here().store)
    records = log.find(hypothesis)
    if not records:
        raise click.ClickException(
            f"No evaluation has a hypothesis `{hypothesis}`. `hsae lineage <dataset>` lists them."
        )
    stored = log.store.verified(records[-1].dataset, log.store.at(records[-1].evaluation.place))
    found = read_frame(stored.file("hypotheses.parquet")).filter(pl.col("hypothesis_id").str.starts_with(hypothesis))
    try:
        file.write_text(card_svg(records[-1], found.row(0, named=True)), encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error}. Choose another place.") from error
    click.echo(f"Drawn: {file}")
