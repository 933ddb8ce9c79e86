"""`hsae gold`: a sheet of texts for people to label, by which annotation errors are measured and corrected.

Belongs here: the command and what it tells. Does not belong here: which texts are drawn (`core.annotation_error`) or
the sheet's form (`dataset.gold`).
"""

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root


@click.command()
@click.argument("dataset")
@click.option(
    "--per-concept", type=click.IntRange(20, 5000), default=400, show_default=True, help="Texts drawn for each concept."
)
def gold(dataset: str, per_concept: int) -> None:
    """Draw held-out texts of DATASET for people to label, half judged to have each concept and half not."""
    prepare_home(project_root())
    from hsae_dagster.assets.gold import draw_sheet
    from hsae_dagster.dataset.discovery import load_dataset

    project = Project.here()
    found = load_dataset(project.data, dataset)
    path, rows = draw_sheet(project, found, per_concept)
    click.echo(f"{rows} rows are in {path}")
    click.echo(
        f"Fill in `label` (yes or no) and your name in `annotator`, save it as {found.folder / 'gold.csv'}, and "
        "materialize evaluation_report again. Rows may stay empty; the sheet does not say what the judge said."
    )
