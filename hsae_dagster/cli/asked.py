"""`hsae asked`: the exact prompt behind a hypothesis' words, or behind one judgement, and what the model answered.

Belongs here: arguments and lines for people. Does not belong here: finding request and answer (`assets.asked`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.assets.asked import Asked


@click.command()
@click.argument("hypothesis")
@click.option("--text", "text_id", help="Show instead how it was judged on this holdout text (its key).")
@click.option("--candidate", type=int, help="Show the prompt of this candidate only (from 0).")
def asked(hypothesis: str, text_id: str | None, candidate: int | None) -> None:
    """Show what a language model was asked about HYPOTHESIS (its id), with the texts shown, and what it answered."""
    prepare_home(project_root())
    from hsae_dagster.assets.asked import asked_about_text, asked_for_words, hypothesis_of
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.storage.lineage import LineageLog

    project = Project.here()
    records = LineageLog(project.store).find(hypothesis)
    if not records:
        raise click.ClickException(
            f"No evaluation has a hypothesis `{hypothesis}`. `hsae lineage <dataset>` lists them."
        )
    dataset = load_dataset(project.data, records[-1].dataset)
    row = hypothesis_of(records[-1], hypothesis)
    click.echo(f"{row['hypothesis_id']}  The text {row['claim']}")
    judged = [asked_about_text(project, dataset, row, text_id)] if text_id else None
    found = judged or asked_for_words(project, dataset, row)
    for number, each in enumerate(found):
        if candidate in (None, number):
            for line in _lines(each):
                click.echo(line)


def _lines(asked: "Asked") -> Iterator[str]:
    yield f"\n=== {asked.what}"
    for role, text in asked.messages:
        yield f"--- {role}"
        yield text
    yield "--- answer"
    entry = asked.entry
    if entry is None:
        yield (
            "The ledger does not know this prompt: texts, settings, prompt file or server (OPENAI_BASE_URL) are not "
            "what they were when the result was made."
        )
        return
    yield entry.answer if entry.answer is not None else f"(none: {entry.reason})"
    price = "price unknown" if entry.cost_usd is None else f"${entry.cost_usd:.6f}"
    yield f"--- {entry.model} at {entry.server}, run {entry.run_id}, {price}, prompt file {entry.prompt_hash}"
