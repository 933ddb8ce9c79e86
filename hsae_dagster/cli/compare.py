"""`hsae compare`: two evaluations of a dataset, in the terminal and as a page.

Belongs here: arguments and lines for people. Does not belong here: finding what changed (`core.comparison`).
"""

from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.core.lineage import EvaluationRecord


@click.command()
@click.argument("dataset")
@click.argument("before", type=int, required=False)
@click.argument("after", type=int, required=False)
def compare(dataset: str, before: int | None, after: int | None) -> None:
    """Show what appeared, moved and vanished in DATASET between two evaluations, by number (default: the last two)."""
    from hsae_dagster.assets.publishing import comparison_page
    from hsae_dagster.core.comparison import Standing
    from hsae_dagster.core.comparison import compare as compared
    from hsae_dagster.report.archive import comparison_headline
    from hsae_dagster.report.changes import change_words
    from hsae_dagster.report.wording import short_claim
    from hsae_dagster.storage.lineage import LineageLog
    from hsae_dagster.whole_files import write_atomically

    prepare_home(project_root())
    store = Project.here().store
    records = {record.number: record for record in LineageLog(store).records(dataset)}
    old, new = _chosen(dataset, records, before, after)
    changes = compared(*([Standing.of(row) for row in record.hypotheses] for record in (old, new)))
    click.echo(f"{dataset}, evaluation {old.number} → {new.number}: {comparison_headline(changes)}\n")
    for change in changes:
        if change.kind != "unchanged":
            click.echo(f"  {change.standing.hypothesis_id}  {short_claim(change.standing.claim, 60)}")
            click.echo(f"    {change_words(change, str(new.summary['task']))}")
    page = store.root / "reports" / dataset / f"{old.number}-to-{new.number}.html"
    write_atomically(page, comparison_page(old, new).encode())
    click.echo(f"\nPage: {page}")


def _chosen(
    dataset: str, records: "dict[int, EvaluationRecord]", before: int | None, after: int | None
) -> "tuple[EvaluationRecord, EvaluationRecord]":
    known = ", ".join(str(number) for number in records) or "none"
    if len(records) < 2 and before is None:
        raise click.ClickException(f"`{dataset}` has fewer than two evaluations to compare (known: {known}).")
    last = max(records, default=0)
    new = after if after is not None else last
    old = before if before is not None else new - 1
    for number in (old, new):
        if number not in records:
            raise click.ClickException(f"`{dataset}` has no evaluation {number}. Known: {known}.")
    return records[old], records[new]
