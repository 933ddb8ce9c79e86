"""`hsae lineage`: where a hypothesis comes from, and which hypotheses came of a dataset or of one version of anything.

Belongs here: arguments and lines for people. Does not belong here: keeping records (`storage.lineage`) or their words
(`report.provenance`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.core.lineage import EvaluationRecord
    from hsae_dagster.storage.lineage import LineageLog

_LEAST_KEY = 6  # characters of a data version below which too much would begin so


@click.command()
@click.argument("what")
@click.option("--prov", type=click.Path(dir_okay=False, path_type=Path), help="Also write it as W3C PROV (JSON) here.")
@click.option("--evaluation", type=int, help="Number of the evaluation to walk (default: the last that had it).")
def lineage(what: str, prov: Path | None, evaluation: int | None) -> None:
    """Show where the hypothesis WHAT comes from, down to texts and files.

    WHAT may also be a dataset, or (the beginning of) the data version of any result or of a dataset's files: then the
    hypotheses that came of it are shown.
    """
    from hsae_dagster.storage.lineage import LineageLog

    prepare_home(project_root())
    log = LineageLog(Project.here().store)
    records = [] if what in log.datasets() else log.find(what)
    if records:
        _walk(log, what, records, prov, evaluation)
    elif prov:
        raise click.ClickException(f"`{what}` is no hypothesis id, and --prov needs one.")
    else:
        _from_the_other_side(log, what)


def _walk(
    log: "LineageLog", what: str, records: Sequence["EvaluationRecord"], prov: Path | None, number: int | None
) -> None:
    from importlib.metadata import version

    from hsae_dagster.report.provenance import lineage_lines, prov_document
    from hsae_dagster.storage.lineage import staleness

    chosen = next((record for record in reversed(records) if number in (None, record.number)), None)
    if chosen is None:
        known = ", ".join(str(record.number) for record in records)
        raise click.ClickException(f"Evaluation {number} has no hypothesis `{what}`. These have: {known}.")
    key = next(row["hypothesis_id"] for row in chosen.hypotheses if row["hypothesis_id"].startswith(what))
    quoted = log.quoted(chosen, key)
    for line in lineage_lines(chosen, key, records, quoted):
        click.echo(line)
    for reason in staleness(log.store, chosen, _files_now(chosen.dataset)):
        click.echo(f"Stale: {reason}")
    if prov is not None:
        document = prov_document(chosen, key, quoted, version("hsae_dagster"))
        try:
            prov.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{prov} cannot be written: {error}. Choose another place.") from error
        click.echo(f"PROV written to {prov}")


def _files_now(dataset: str) -> str | None:
    """Data version of a dataset's files as they are, or None when they are not there."""
    from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset

    try:
        return files_fingerprint(load_dataset(Project.here().data, dataset))
    except (HsaeError, OSError):
        return None


def _from_the_other_side(log: "LineageLog", what: str) -> None:
    """Hypotheses that came of a dataset or of one version of something."""
    from hsae_dagster.core.comparison import Standing
    from hsae_dagster.report.changes import standing_effect
    from hsae_dagster.report.links import when
    from hsae_dagster.report.wording import short_claim

    if what in log.datasets():
        found = [(record, record.dataset) for record in log.records(what)]
    else:
        found = log.using(what) if len(what) >= _LEAST_KEY else []
    if not found:
        raise click.ClickException(
            f"Nothing is known of `{what}`. Give a hypothesis id, a dataset that was evaluated "
            f"({', '.join(log.datasets()) or 'none yet'}), or at least {_LEAST_KEY} characters of a data version."
        )
    for record, asset in found:
        click.echo(f"{asset} → {record.dataset}, evaluation {record.number}, published {when(record.published)}:")
        for row in record.hypotheses:
            effect = standing_effect(Standing.of(row), str(record.summary["task"]))
            click.echo(f"  {row['hypothesis_id']}  {row['badge']:<13} {effect:<24} {short_claim(row['claim'], 60)}")
