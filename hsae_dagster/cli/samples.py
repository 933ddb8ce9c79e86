"""`hsae sample` and `hsae demo`: real texts to begin with.

Belongs here: fetching samples for people. Does not belong here: how a sample is made (`sample_data`).
"""

import click

from hsae_dagster.cli.run import materialize
from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

DEMO, FALLBACK = "movie_reviews", "planted"


@click.command()
@click.argument("names", nargs=-1)
def sample(names: tuple[str, ...]) -> None:
    """Fetch sample datasets by name (all of them without a name)."""
    prepare_home(project_root())
    for name in names or tuple(sample_names()):
        problem = fetch(name)
        if problem and names:
            raise click.ClickException(problem)


@click.command()
def demo() -> None:
    """The main job on real texts, offline and without a key, from download to report."""
    # First, because .env may say that the data lie elsewhere.
    prepare_home(project_root())
    problem = fetch(DEMO)
    if problem:
        click.echo(f"\n{problem}\nGoing on with `{FALLBACK}`, texts made by this project, which need no network.\n")
        fetch(FALLBACK)
    dataset = FALLBACK if problem else DEMO
    materialize(dataset)
    click.echo("\nLook at it in Dagster:  make ui")


def sample_names() -> list[str]:
    """Names of the samples that this project can make."""
    from hsae_dagster.sample_data.registry import SAMPLES

    return list(SAMPLES)


def fetch(name: str) -> str | None:
    """Fetch one sample; returns what went wrong in a sentence, or None."""
    from hsae_dagster.sample_data.registry import prepare_sample

    root = project_root()
    try:
        prepare_sample(name, Project.here().data, root / "downloads", lambda message: click.echo(f"  {message}"))
    except HsaeError as error:
        click.echo(f"  {name}: {error}")
        return f"`{name}` could not be fetched: {error}"
    return None
