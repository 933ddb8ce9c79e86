"""`hsae ask-again`: unusable answers of a paid model are asked again by the next run.

Belongs here: the command and what it tells. Does not belong here: what is taken back (`assets.asking_again`).
"""

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

_MOST_REASONS = 5


@click.command("ask-again")
@click.argument("dataset")
@click.option("--refusals", is_flag=True, help="Also what the model refused or a content filter withheld.")
def ask_again(dataset: str, refusals: bool) -> None:
    """Have unusable answers of DATASET asked again by its next run; what they cost stays spent."""
    prepare_home(project_root())
    from hsae_dagster.assets.asking_again import ask_again as take_back
    from hsae_dagster.dataset.discovery import load_dataset

    project = Project.here()
    found = take_back(project, load_dataset(project.data, dataset), refusals=refusals)
    if not found.reasons:
        click.echo(f"`{dataset}` has no unusable answer: nothing to ask again.")
        return
    click.echo(f"{sum(found.reasons.values()):,} answers of `{dataset}` will be asked again:")
    for reason, count in list(found.reasons.items())[:_MOST_REASONS]:
        click.echo(f"  {count:>6,}  {reason}")
    click.echo(f"`hsae cost {dataset}` says what that takes, `hsae run {dataset}` does it.")
