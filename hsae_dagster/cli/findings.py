"""What a finished run says in a terminal.

Belongs here: tables for people. Does not belong here: the report (`report`) or running anything (`run`).
"""

from math import nan
from typing import Any

import click

from hsae_dagster.resources import Project


def print_findings(dataset: str, seconds: float) -> None:
    """Print the claims, the joint fit and where the report lies."""
    from hsae_dagster.core.joint_fit import Fit
    from hsae_dagster.report.cards import FOUND_IN
    from hsae_dagster.report.rungs import grouped, rung_name
    from hsae_dagster.report.wording import metric_name, plural

    project = Project.here()
    stored = project.store.current(dataset, "evaluation_report")
    summary, rows = stored.json("evaluation.json"), stored.json("_table.json")
    halves = bool(rows) and FOUND_IN in rows[0]
    where = "each on the half of the texts that it was not found in" if halves else "on texts never used before"
    click.echo(f"\nWhat goes with {summary['outcome']} in `{dataset}`, tested {where}:\n")
    for line in columns(rows):
        click.echo(line)
    found, tested = summary["confirmed"], summary["tested"]
    click.echo(f"\n{found} of {tested} claims confirmed (corrected for all tests; alpha {summary['alpha']:g}).")
    if summary["unreadable"]:
        click.echo(f"No claim speaks for {plural(summary['unreadable'], 'selected neuron')}.")
    click.echo(f"\nHow well they predict together, on held-out texts ({metric_name(summary['metric'])}):")
    for title, own in grouped([Fit(name, "", value, nan, nan, "") for name, value in summary["fits"].items()]):
        for fit in own:
            click.echo(f"  {title:<22} {rung_name(fit.name):<24} {fit.value:6.3f}")
    click.echo(f"  {'Chance':<22} {'shuffled outcomes':<24} {summary['floor'][0]:6.3f}")
    click.echo(f"\nReport: {project.results / 'reports' / f'{dataset}.html'}")
    click.echo(f"Done in {seconds:.0f} s.")


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as aligned text; the first column takes what width is left."""
    if not rows:
        return ["(nothing found: no claim was tested)"]
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in [dict(zip(names, names, strict=True)), *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(names))]
    widths[0] = min(widths[0], 78)
    return ["  ".join(_fit(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"
