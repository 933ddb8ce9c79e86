"""Pages beside the report: a dataset's evaluations, and what changed between two of them.

Belongs here: putting records of evaluations into words and templates. Does not belong here: the report of one
evaluation (`page`), finding what changed (`core.comparison`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hsae_dagster.core.comparison import Change, Standing
from hsae_dagster.report.changes import change_words, standing_effect
from hsae_dagster.report.links import when
from hsae_dagster.report.templates import style, template
from hsae_dagster.report.wording import one_line, plural

_GROUPS = (
    ("appeared", "Appeared", "Hypotheses that the earlier evaluation did not have."),
    ("moved", "Moved", "The same hypotheses with another verdict, effect, rank or wording."),
    ("vanished", "Vanished", "Hypotheses that the later evaluation does not have."),
    ("unchanged", "Unchanged", "The same in every respect."),
)


@dataclass(frozen=True)
class EvaluationLine:
    """One evaluation in a list.

    Attributes:
        number: from 1, in the order of publication.
        key: its short name; its page is `<key>.html`.
        published: ISO 8601.
        tested: hypotheses.
        confirmed: of them.
        versions: data version of every result it rests on, by asset.
        run_id: of the evaluation.
    """

    number: int
    key: str
    published: str
    tested: int
    confirmed: int
    versions: Mapping[str, str]
    run_id: str

    @property
    def day(self) -> str:
        """When, for people."""
        return when(self.published)


def render_index(dataset: str, lines: Sequence[EvaluationLine]) -> str:
    """The evaluations of a dataset as one HTML document, newest first."""
    return str(
        template("index.html.j2").render(
            css=style(), title=f"{dataset}: all evaluations", eyebrow="hsae_dagster", dataset=dataset, lines=lines[::-1]
        )
    )


def with_places(page: bytes, key: str, dagster: str, folder: str = "") -> bytes:
    """A report's page with links to its tables, to earlier evaluations and to Dagster.

    Args:
        page: as it was made, one file that leads nowhere.
        key: short name of the evaluation.
        dagster: address of the evaluation's page there.
        folder: of the dataset's evaluations, as seen from the page, with its slash.
    """
    places = template("places.html.j2").render(folder=folder, key=key, dagster=dagster)
    return page.replace(b"<!-- places -->\n", places.encode(), 1)


def render_tables(dataset: str, key: str, number: int, tables: Sequence[tuple[str, int]]) -> str:
    """The list of an evaluation's tables, each with its number of rows, as one HTML document."""
    return str(
        template("tables.html.j2").render(
            css=style(),
            title=f"{dataset}: tables",
            eyebrow=f"evaluation {number}",
            dataset=dataset,
            key=key,
            number=number,
            tables=tables,
        )
    )


def render_comparison(
    dataset: str, before: EvaluationLine, after: EvaluationLine, changes: Sequence[Change], task: str
) -> str:
    """What appeared, moved, vanished between two evaluations, as one HTML document."""
    groups = [
        (kind, title, note, [_row(change, task) for change in changes if change.kind == kind])
        for kind, title, note in _GROUPS
    ]
    differing = [
        f"`{asset}`"
        for asset in {**before.versions, **after.versions}
        if before.versions.get(asset) != after.versions.get(asset)
    ]
    return str(
        template("comparison.html.j2").render(
            css=style(),
            title=f"{dataset}: what changed",
            eyebrow=f"evaluation {before.number} and evaluation {after.number}",
            before=before,
            after=after,
            headline=comparison_headline(changes),
            causes=", ".join(differing).replace("`", ""),
            groups=groups,
        )
    )


def comparison_headline(changes: Sequence[Change]) -> str:
    """How many appeared, vanished, moved."""
    kinds: list[str] = [change.kind for change in changes]
    told = [(kinds.count(kind), kind) for kind, _, _ in _GROUPS]
    return f"Of {plural(len(kinds), 'hypothesis')}, {', '.join(f'{n} {kind}' for n, kind in told)}."


def _row(change: Change, task: str) -> dict[str, str]:
    return {
        "key": change.standing.hypothesis_id,
        "claim": one_line(change.standing.claim),
        "before": _standing(change.before, task),
        "after": _standing(change.after, task),
        "words": change_words(change, task),
    }


def _standing(standing: Standing | None, task: str) -> str:
    return f"{standing.badge}, {standing_effect(standing, task)}" if standing else "–"
