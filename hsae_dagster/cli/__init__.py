"""`hsae`: the few things that are easier in a terminal than in the Dagster UI."""

import os
from typing import Any

import click

from hsae_dagster.cli import inspect, new, run
from hsae_dagster.errors import HsaeError, refusal


class _Sentences(click.Group):
    """Shows our errors, and what the machine refuses, as sentences, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HsaeError as error:
            raise click.ClickException(str(error)) from error
        except (OSError, MemoryError) as error:
            if isinstance(error, BrokenPipeError):  # whoever reads has had enough, as `head` does
                raise
            raise click.ClickException(refusal(error)) from error


@click.group(cls=_Sentences)
@click.version_option(package_name="hsae_dagster")
def main() -> None:
    """What in these texts predicts this outcome, and can I trust the answer?"""
    # Lance warns of every table that does not exist yet, in the middle of the progress.
    os.environ.setdefault("LANCEDB_LOG", "error")


main.add_command(run.init)
main.add_command(run.sample)
main.add_command(run.run)
main.add_command(run.demo)
main.add_command(run.ui)
main.add_command(run.serve)
main.add_command(new.new)
main.add_command(new.check)
main.add_command(inspect.cost)
main.add_command(inspect.ask_again)
main.add_command(inspect.asked)
main.add_command(new.fields)
main.add_command(inspect.lineage)
main.add_command(inspect.text)
main.add_command(inspect.try_text)
main.add_command(inspect.compare)
main.add_command(run.fetch)
main.add_command(inspect.gold)
