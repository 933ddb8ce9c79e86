"""`hsae compare`: two evaluations, of one dataset or of two, in the terminal; of one dataset, as a page too.

Belongs here: arguments and lines for people. Does not belong here: finding what changed (`core.comparison`).
"""

from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.core.lineage import EvaluationRecord
    from hsae_dagster.storage.lineage import LineageLog

_SHOWN_WORDS = 60


@click.command()
@click.argument("dataset")
@click.argument("before", required=False)
@click.argument("after", required=False)
def compare(dataset: str, before: str | None, after: str | None) -> None:
    """Show what differs between two evaluations.

    Of DATASET, by their numbers BEFORE and AFTER (default: the last two); or, with another dataset's name as BEFORE,
    between the current evaluations of the two datasets, concept by concept.
    """
    from hsae_dagster.storage.lineage import LineageLog

    prepare_home(project_root())
    log = LineageLog(Project.here().store)
    if before is not None and not before.isdecimal() and after is None and log.latest(before) is not None:
        _two_datasets(log, dataset, before)
        return
    for given in (before, after):
        if given is not None and not given.isdecimal():
            raise click.ClickException(_what_it_takes(log, dataset, given))
    numbers = [None if given is None else int(given) for given in (before, after)]
    _one_dataset(log, dataset, *numbers)


def _what_it_takes(log: "LineageLog", dataset: str, given: str) -> str:
    numbers = ", ".join(str(record.number) for record in log.records(dataset)) or "none"
    return (
        f"`{given}` is neither the number of an evaluation of `{dataset}` (known: {numbers}) nor, alone, another "
        f"dataset with an evaluation (known: {', '.join(log.datasets()) or 'none'}). Type `hsae compare <dataset>`, "
        "`hsae compare <dataset> <number> <number>` or `hsae compare <dataset> <dataset>`."
    )


def _two_datasets(log: "LineageLog", first: str, second: str) -> None:
    from hsae_dagster.core.comparison import by_concept
    from hsae_dagster.core.comparison import compare as compared
    from hsae_dagster.report.changes import side_words
    from hsae_dagster.report.wording import short_claim

    records = [log.latest(name) for name in (first, second)]
    if records[0] is None:
        raise click.ClickException(f"`{first}` has no evaluation yet. `hsae run {first}` makes one.")
    old, new = (record for record in records if record is not None)
    changes = compared(by_concept(old.hypotheses), by_concept(new.hypotheses))
    kinds = [change.kind for change in changes]
    alike, moved = kinds.count("unchanged"), kinds.count("moved")
    click.echo(
        f"{alike + moved} concepts are in both, {alike} of them alike in verdict, effect and rank; "
        f"{kinds.count('vanished')} are in `{first}` alone, {kinds.count('appeared')} in `{second}` alone.\n"
    )
    if not alike + moved:
        click.echo("Datasets share concepts where they share texts and autoencoders.\n")
    p_values = [{row["concept_id"]: row["p_holm"] for row in record.hypotheses} for record in (old, new)]
    tasks = [str(record.summary["task"]) for record in (old, new)]
    for change in changes:
        if change.kind != "unchanged":
            click.echo(f"  {short_claim(change.standing.claim, _SHOWN_WORDS)}")
            sides = (change.before, change.after)
            for name, side, p, task in zip((first, second), sides, p_values, tasks, strict=True):
                click.echo(f"    {name}: {side_words(side, None if side is None else p[side.hypothesis_id], task)}")


def _one_dataset(log: "LineageLog", dataset: str, before: int | None, after: int | None) -> None:
    from hsae_dagster.assets.publishing import comparison_page
    from hsae_dagster.core.comparison import Standing
    from hsae_dagster.core.comparison import compare as compared
    from hsae_dagster.report.archive import comparison_headline
    from hsae_dagster.report.changes import change_words
    from hsae_dagster.report.wording import short_claim
    from hsae_dagster.whole_files import write_atomically

    records = {record.number: record for record in log.records(dataset)}
    old, new = _chosen(dataset, records, before, after)
    changes = compared(*([Standing.of(row) for row in record.hypotheses] for record in (old, new)))
    click.echo(f"{dataset}, evaluation {old.number} → {new.number}: {comparison_headline(changes)}\n")
    for change in changes:
        if change.kind != "unchanged":
            click.echo(f"  {change.standing.hypothesis_id}  {short_claim(change.standing.claim, _SHOWN_WORDS)}")
            click.echo(f"    {change_words(change, str(new.summary['task']))}")
    page = log.store.root / "reports" / dataset / f"{old.number}-to-{new.number}.html"
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
