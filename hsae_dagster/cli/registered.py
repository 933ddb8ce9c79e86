"""Datasets as partitions, for commands.

Belongs here: making what lies under data/ known to Dagster. Does not belong here: finding it.
"""

import click

from hsae_dagster.resources import Project


def register(*, others: bool = True) -> list[str]:
    """Make every usable dataset a partition; returns their names.

    Args:
        others: say which datasets cannot be used, and why.
    """
    import dagster as dg

    from hsae_dagster.assets.dataset_catalog import scan, waiting

    project = Project.here()
    found, problems = scan(project)
    names = [dataset.name for dataset, _ in found]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(project.partitions_name, names)
    if not others:
        return names
    for problem in problems:
        click.echo(f"  not usable: {problem}")
    if pending := waiting(project):
        click.echo(f"Without texts yet: {', '.join(pending)} (`hsae sample NAME` or `hsae fetch NAME` gets them)")
    return names
