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
        except BrokenPipeError:  # whoever reads has had enough, as `head` does
            raise
        except (OSError, MemoryError) as error:
            raise click.ClickException(refusal(error)) from error


@click.group(cls=_Sentences)
@click.version_option(package_name="hsae_dagster")
def main() -> None:
    """What in these texts predicts this outcome, and can I trust the answer?"""
    # Lance warns of every table that does not exist yet, in the middle of the progress.
    os.environ.setdefault("LANCEDB_LOG", "error")


for command in (
    *(run.init, run.sample, run.run, run.demo, run.ui, run.serve, run.fetch),
    *(new.new, new.check),
    *(inspect.cost, inspect.ask_again, inspect.asked, inspect.lineage, inspect.text, inspect.try_text),
    *(inspect.compare, inspect.gold),
):
    main.add_command(command)
