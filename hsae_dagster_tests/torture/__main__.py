"""python -m hsae_dagster_tests.torture [--short] [--only PART] [--out FILE]: the table; code 1 unless all zeros."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import numpy as np

from hsae_dagster_tests.torture.tally import Tally, table, write
from hsae_dagster_tests.torture.yard import Yard

# By the module that does it, in the order in which they are done.
PARTS = ("kills", "corruption", "machine", "together", "fuzz", "determinism", "security", "newcomer", "load")


def tortures(part: str) -> Callable[[Yard], list[Tally]]:
    """The function of a part: of the same name as its module."""
    return getattr(import_module(f"hsae_dagster_tests.torture.{part}"), part)


@click.command()
@click.option("--short", is_flag=True, help="As the slow suite does it, in minutes.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="These parts alone.")
@click.option("--seed", default=0, show_default=True, help="Of what happens at random.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="torture.json", show_default=True)
@click.option("--keep", is_flag=True, help="Keep the folder that was worked in.")
def main(short: bool, only: tuple[str, ...], seed: int, out: Path, keep: bool) -> None:
    """Kills, damage, full disks, two at once, bad input, load, hostile files: what is lost, and what is wrong?"""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    tallies: list[Tally] = []
    try:
        for part in only or PARTS:
            begun = time.monotonic()
            (folder / part).mkdir()
            found = tortures(part)(Yard(folder / part, np.random.default_rng(seed), short))
            click.echo(f"{part}: {time.monotonic() - begun:.0f} s", err=True)
            tallies += found
            if not all(tally.well for tally in found):
                click.echo(table(found), err=True)
    finally:
        if keep:
            click.echo(f"worked in {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    click.echo(table(tallies))
    write(tallies, out)
    sys.exit(0 if all(tally.well for tally in tallies) else 1)


if __name__ == "__main__":
    main()
