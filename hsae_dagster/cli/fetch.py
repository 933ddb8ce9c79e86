"""`hsae fetch`: the published texts of the seed experiments.

Belongs here: what is said. Does not belong here: getting them (`sample_data.published`).
"""

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root


@click.command()
@click.argument("experiments", nargs=-1)
def fetch(experiments: tuple[str, ...]) -> None:
    """Fetch the published files of EXPERIMENTS (headlines, yelp, congress; all without a name) from Hugging Face."""
    from hsae_dagster.sample_data.published import EXPERIMENTS, fetch_published

    prepare_home(project_root())
    for name in experiments or EXPERIMENTS:
        for path in fetch_published(name, Project.here().data, click.echo):
            click.echo(f"  {path}")
