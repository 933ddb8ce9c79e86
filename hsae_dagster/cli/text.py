"""`hsae text`: from a text to the neurons it activates and the claims that hold for it.

Belongs here: arguments and lines for people. Does not belong here: looking it up (`assets.text_trail`).
"""

from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.assets.text_trail import TextTrail

_MOST_SHOWN = 400


@click.command()
@click.argument("wanted", nargs=-1, required=True)
@click.option("--dataset", help="Look in this dataset only.")
@click.option("--most", type=click.IntRange(1, 100), default=3, show_default=True, help="Texts to show per dataset.")
def text(wanted: tuple[str, ...], dataset: str | None, most: int) -> None:
    """Show what came of a text: WANTED is (the beginning of) its key, or words that it contains."""
    from hsae_dagster.assets.text_trail import find_texts, text_trail

    prepare_home(project_root())
    project, words = Project.here(), " ".join(wanted)
    names = [dataset] if dataset else [name for name in project.store.datasets() if project.store.has(name, "corpus")]
    shown = 0
    for name in names:
        for key in find_texts(project, name, words, most):
            for line in _lines(text_trail(project, name, key)):
                click.echo(line)
            click.echo("")
            shown += 1
    if not shown:
        places = ", ".join(names) or "no dataset has a corpus yet"
        raise click.ClickException(f"No text has the key or the words `{words}` ({places}).")


def _lines(trail: "TextTrail") -> list[str]:
    from hsae_dagster.report.wording import number, one_line, plural, shorten

    lines = [f"{trail.text_id}  {trail.dataset}, {trail.split}", f"  {shorten(trail.text, _MOST_SHOWN)}"]
    lines.append(f"  cluster {one_line(trail.cluster_id)}")
    lines += [f"  row {row} of {one_line(file)}" for file, row in trail.rows[:5]]
    if len(trail.rows) > 5:
        lines.append(f"  and {plural(len(trail.rows) - 5, 'more row')}")
    lines.append(f"  activates {plural(trail.n_firing, 'neuron')}" + (", strongest first:" if trail.firing else "."))
    for firing in trail.firing:
        used = f"  → hypothesis {firing.hypothesis_id}, rank {(firing.rank or 0) + 1}" if firing.hypothesis_id else ""
        lines.append(f"    {firing.sae_id[:8]}/{firing.sae_column:<5} {number(firing.activation, 3)}{used}")
    if trail.split != "holdout" and not trail.split.startswith("half"):
        lines.append(f"  not judged: it is a {trail.split} text, and only holdout texts test hypotheses")
    for support in trail.supports:
        answer = {True: "holds", False: "does not", None: "no answer"}[support.has]
        lines.append(f"  {answer:<10} {support.hypothesis_id}  {support.badge:<13} {shorten(support.claim, 80)}")
    return lines
