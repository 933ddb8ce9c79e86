"""`hsae`: the few things that are easier in a terminal than in the Dagster UI."""

import os
from typing import Any

import click

from hsae_dagster.cli import inspect as ask_again
from hsae_dagster.cli import inspect as asked
from hsae_dagster.cli import inspect as card
from hsae_dagster.cli import inspect as compare
from hsae_dagster.cli import inspect as cost
from hsae_dagster.cli import inspect as gold
from hsae_dagster.cli import inspect as lineage
from hsae_dagster.cli import inspect as text
from hsae_dagster.cli import inspect as try_text
from hsae_dagster.cli import new, run
from hsae_dagster.cli import run as fetch
from hsae_dagster.cli import run as samples
from hsae_dagster.cli import run as serve
from hsae_dagster.cli import run as start
from hsae_dagster.errors import HsaeError


class _Sentences(click.Group):
    """Shows our errors as sentences, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HsaeError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Sentences)
@click.version_option(package_name="hsae_dagster")
def main() -> None:
    """What in these texts predicts this outcome, and can I trust the answer?"""
    # Lance warns of every table that does not exist yet, in the middle of the progress.
    os.environ.setdefault("LANCEDB_LOG", "error")


main.add_command(start.init)
main.add_command(samples.sample)
main.add_command(run.run)
main.add_command(samples.demo)
main.add_command(start.ui)
main.add_command(serve.serve)
main.add_command(new.new)
main.add_command(new.check)
main.add_command(cost.cost)
main.add_command(ask_again.ask_again)
main.add_command(asked.asked)
main.add_command(new.fields)
main.add_command(lineage.lineage)
main.add_command(text.text)
main.add_command(try_text.try_text)
main.add_command(compare.compare)
main.add_command(fetch.fetch)
main.add_command(card.card)
main.add_command(gold.gold)
