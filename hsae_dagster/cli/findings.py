"""What a finished run says in a terminal.

Belongs here: tables for people. Does not belong here: the report (`report`) or running anything (`run`).
"""

from typing import Any

import click

from hsae_dagster.resources import Project


def print_findings(dataset: str, seconds: float) -> None:
    """Print the hypotheses, the joint fit and where the report lies."""
    project = Project.here()
    stored = project.store.current(dataset, "evaluation_report")
    summary, rows = stored.json("evaluation.json"), stored.json("_table.json")
    click.echo(f"\nWhat goes with {summary['outcome']} in `{dataset}`, tested on texts never used before:\n")
    for line in columns(rows):
        click.echo(line)
    metric = "R²" if summary["metric"] == "R2" else "AUC"
    click.echo(
        f"\n{summary['confirmed']} of {summary['tested']} hypotheses confirmed (Holm, family-wise error "
        f"{summary['alpha']:g}); {summary['unreadable']} neurons have no readable concept."
    )
    click.echo(f"\nJoint fit on the holdout ({metric}):")
    for name, value in summary["fits"].items():
        click.echo(f"  {name:<32} {value:6.3f}")
    click.echo(f"  {'floor (permuted outcomes)':<32} {summary['floor'][0]:6.3f}")
    click.echo(f"\nReport: {project.results / 'reports' / f'{dataset}.html'}")
    click.echo(f"Done in {seconds:.0f} s.")


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as aligned text; the first column takes what width is left."""
    if not rows:
        return ["(no hypothesis could be tested)"]
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in [dict(zip(names, names, strict=True)), *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(names))]
    widths[0] = min(widths[0], 78)
    return ["  ".join(_fit(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"
