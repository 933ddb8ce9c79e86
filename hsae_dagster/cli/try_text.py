"""`hsae try`: which claims of a dataset hold for a text of one's own, and what makes them hold.

Belongs here: arguments and lines for people. Does not belong here: judging (`assets.trial`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    from hsae_dagster.assets.trial import Tried

_MOST_SHOWN = 160


@click.command("try")
@click.argument("text", required=False)
@click.option("--dataset", required=True, help="Whose claims to try.")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read the text from here (UTF-8)."
)
def try_text(text: str | None, dataset: str, file: Path | None) -> None:
    """Say which claims of a dataset's last evaluation hold for TEXT, and what makes them hold."""
    from hsae_dagster.assets.trial import try_claims

    prepare_home(project_root())
    if (text is None) == (file is None):
        raise click.ClickException('Give one text: as an argument, as in `hsae try "some text"`, or with --file.')
    words = text if file is None else _read(file)
    if not (words or "").strip():
        raise click.ClickException("The text is empty, so no claim can hold for it.")
    record, tried = try_claims(Project.here(), dataset, words or "")
    for line in _lines(tried, str(record.summary["task"])):
        click.echo(line)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8 text: {error}.") from error


def _lines(tried: "list[Tried]", task: str) -> Iterator[str]:
    from hsae_dagster.report.changes import standing_effect
    from hsae_dagster.report.wording import count, one_line, plural, shorten

    held = [each for each in tried if each.because]
    yield f"{count(len(held))} of {count(len(tried))} claims {'holds' if len(held) == 1 else 'hold'}."
    for each in held:
        yield ""
        yield f"  {shorten(each.standing.claim, _MOST_SHOWN)}"
        yield f"    {each.standing.badge}, {standing_effect(each.standing, task)}"
        if each.because and each.because != (each.standing.claim,):
            yield f"    because: {shorten(', '.join(f'“{one_line(part)}”' for part in each.because), _MOST_SHOWN)}"
    unread = sum(each.because is None for each in tried)
    if unread:
        yield ""
        were = "was" if unread == 1 else "were"
        yield f"{plural(unread, 'claim')} can only be judged by a reader and {were} not tried."
