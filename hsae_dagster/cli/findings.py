"""What a finished run says in a terminal.

Belongs here: tables for people. Does not belong here: the report (`report`) or running anything (`run`).
"""

import shutil
import sys
from math import nan
from typing import Any

import click

from hsae_dagster.resources import Project

_WIDEST, _NARROWEST = 78, 16  # characters of a column, and of one that gives way


def print_findings(dataset: str, seconds: float) -> None:
    """Print the claims, the joint fit and where the report lies."""
    from hsae_dagster.core.joint_fit import Fit
    from hsae_dagster.report.cards import FOUND_IN
    from hsae_dagster.report.rungs import grouped, rung_name
    from hsae_dagster.report.wording import metric_name, plural

    project = Project.here()
    stored = project.store.current(dataset, "evaluation_report")
    summary, rows = stored.json("evaluation.json"), stored.json("_table.json")
    used = (
        "on texts never tested on before" if summary["look"] == 1 else "on held-out texts that an earlier look has used"
    )
    if rows and FOUND_IN in rows[0]:
        used = "each on the half of the texts that it was not found in"
        used += "" if summary["look"] == 1 else ", which an earlier look has used"
    click.echo(f"\nWhat goes with {summary['outcome']} in `{dataset}`, tested {used}:\n")
    for line in columns(rows, terminal_width()):
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


def terminal_width() -> int | None:
    """Characters that fit a line, or None where nobody reads it on a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(rows: list[dict[str, Any]], width: int | None = None) -> list[str]:
    """Rows as aligned text, no line longer than `width`; the widest columns give way."""
    if not rows:
        return ["(nothing found: no claim was tested)"]
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in [dict(zip(names, names, strict=True)), *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(names))]
    widths = [min(size, _WIDEST) for size in widths]
    if width is not None:
        for j in sorted(range(len(widths)), key=lambda j: -widths[j]):
            spare = width - sum(widths) - 2 * (len(widths) - 1)
            widths[j] = min(widths[j], max(_NARROWEST, widths[j] + spare))
    lines = ["  ".join(_fit(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [_fit(line, width).rstrip() for line in lines] if width else lines


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"
