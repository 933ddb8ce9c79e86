"""`hsae new` and `hsae check`: from somebody's file to a dataset that can be run."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsae_dagster.errors import DatasetError, MethodError
from hsae_dagster.orchestration.project import Project, prepare_home, project_root

if TYPE_CHECKING:
    from hsae_dagster.dataset.discovery import Dataset
    from hsae_dagster.dataset.new.intake import Intake
    from hsae_dagster.dataset.new.pairs import PairWishes, Rule
    from hsae_dagster.dataset.new.proposal import Proposal, Wishes
    from hsae_dagster.dataset.new.roles import Field
    from hsae_dagster.dataset.rows import Rows

# Bytes of a file that `hsae check` reads a second time, to see whether it can be read otherwise.
LARGEST_READ_TWICE = 200_000_000
_FILE = "name of the file"


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="FILE_OR_FOLDER")
@click.option("--name", help="Name of the dataset; default from the file's.")
@click.option("--task", type=click.Choice(["regression", "classification", "pairwise"]), help="Default: found out.")
@click.option("--text", metavar="COLUMN", help="Column with the text.")
@click.option("--text-a", metavar="COLUMN", help="Column with the first text of a pair.")
@click.option("--text-b", metavar="COLUMN", help="Column with the second text of a pair.")
@click.option("--label", metavar="COLUMN", help="Column with the outcome.")
@click.option("--positive", metavar="VALUE", help="The class that counts as 1.")
@click.option("--outcome", metavar="WORDS", help="The outcome in words, its unit in brackets: “star rating (1 to 5)”.")
@click.option("--cluster-by", metavar="COLUMN", help="Column of what rows have in common; `none` to have none.")
@click.option("--pairs-within", metavar="COLUMN", help="Pair texts that share a value of this column; see above.")
@click.option(
    "--pairs", type=click.Choice(["all", "extremes"]), help="Every two texts of a group (default), or one pair."
)
@click.option("--least-margin", type=click.FloatRange(min=0), help="Leave out pairs whose outcomes differ by less.")
@click.option("--encoding", metavar="NAME", help="Of a text file that is not UTF-8, such as cp1252; default found out.")
@click.option("--sheet", metavar="NAME", help="Sheet of a workbook.")
@click.option("--dry-run", is_flag=True, help="Show the proposal and write nothing.")
def new(
    source: Path,
    name: str | None,
    dry_run: bool,
    encoding: str | None,
    sheet: str | None,
    pairs_within: str | None,
    pairs: "Rule | None",
    least_margin: float | None,
    **wishes: str | None,
) -> None:
    """Make a dataset of a CSV, TSV, Parquet, JSON, Excel, Stata or SPSS file, or of a folder of them.

    Looks at the columns, proposes a dataset.yaml with the reasons for each choice, and checks that it works.

    With --pairs-within it writes pairs of the texts that share a value of that column (an experiment, a product, an
    author): label is 1 where text_a has the higher outcome. Left out and counted are ties, groups with one text, and
    rows without group, text or outcome; outcomes of the same text in one group are averaged; which text is A is drawn
    by a hash. See docs/pairs.md.
    """
    from hsae_dagster.dataset.discovery import check_name
    from hsae_dagster.dataset.new.intake import exists_already, name_for, publish, take_in, write_plain
    from hsae_dagster.dataset.new.proposal import Wishes, propose, render

    prepare_home(project_root())
    how = _how_to_pair(pairs_within, pairs, least_margin)
    name = check_name(name or (f"{name_for(source)[:58]}_pairs" if how else name_for(source)))
    target = Project.here().data / name
    if (target / "dataset.yaml").exists():
        raise DatasetError(exists_already(source, target))
    intake = take_in(source, encoding=encoding, sheet=sheet)
    with tempfile.TemporaryDirectory() as aside:
        if how:
            intake, proposal, unsure = _pair(intake, source, Wishes(**wishes), how, Path(aside))
        else:
            proposal = propose(intake.frame, intake.files, Wishes(**wishes), intake.notes)
            unsure = proposal.unsure
        text = render(proposal, source.name)
        click.echo(text)
        write_plain(intake, Path(aside))
        try:
            said = _try_out(name, text, intake, Path(aside))
        except MethodError as error:
            raise MethodError(f"{error}{_about_cluster(proposal)}") from None
        _say_unsure(unsure)
        click.echo(said)
        if not dry_run:
            publish(intake, Path(aside), text, target)
    for made in intake.rewritten:
        form = " (UTF-8, commas)" if made.name.endswith(".csv") else ""
        verb = "would be" if dry_run else "was"
        click.echo(f"{made.path.name} {verb} written as {made.name}{form}, because {made.unusual}.")
    if dry_run:
        click.echo("Nothing was written (--dry-run).")
        return
    click.echo(f"\nWrote {target / 'dataset.yaml'}. Review it, then:\n\n  {_command()} run {name}")


@click.command()
@click.argument("dataset")
def check(dataset: str) -> None:
    """Check that DATASET can be run: its dataset.yaml, its files, every row, the splits."""
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.dataset.new.proposal import strange_texts
    from hsae_dagster.dataset.rows import read_rows
    from hsae_dagster.dataset.values import missing_codes

    prepare_home(project_root())
    project = Project.here()
    loaded = load_dataset(project.data, dataset)
    rows = read_rows(loaded)
    click.echo(describe(loaded, rows, project.results))
    texts = [rows.frame[name].rename("text") for name in ("text", "text_a", "text_b") if name in rows.frame.columns]
    bundled, notes = loaded.spec.embedding.model == "minilm", []
    if loaded.spec.task == "regression" and (codes := missing_codes(rows.frame["label"])):
        notes.append(
            f"`{loaded.spec.columns.label}` is {' or '.join(map(str, codes))} in some rows, far from all other values: "
            f"codes for missing answers? If so, set columns.missing to {list(codes)} and columns.on_missing to drop."
        )
    notes += [*_otherwise(loaded), *_settling(loaded), *_about_gold(loaded), *strange_texts(texts, bundled=bundled)]
    for said in notes:
        click.echo(f"Note: {said}")


def describe(dataset: "Dataset", rows: "Rows | None" = None, results: Path | None = None) -> str:
    """What the loader makes of a dataset, in a paragraph.

    `results` has the record of which rows are new; None for a dataset that is not there yet.

    Raises:
        DatasetError: it cannot be used.
        MethodError: it is too small to be split, or its strata are too many.
    """
    from hsae_dagster.core.selection.stability import placed_in, views
    from hsae_dagster.dataset.rows import check_labels, check_levels, check_sizes, read_rows, training_units
    from hsae_dagster.dataset.units import make_units
    from hsae_dagster.dataset.values import among_others
    from hsae_dagster.report.wording import left_out_words
    from hsae_dagster.stages.holdout import admit, check_own, level_of

    admitted = admit(results, dataset, rows or read_rows(dataset))
    rows, corpus = admitted.rows, admitted.corpus(dataset)
    if results:
        level_of(results, dataset, corpus.round)
    check_own(dataset)
    for view in views(corpus.observations):
        check_levels(dataset.spec.selection, view)
        check_labels(dataset, view)
    placed = ", ".join(f"{name} {part.height:,}" for name, part in placed_in(corpus.observations).items())
    units = make_units(corpus.texts, dataset.spec.units)
    check_sizes(dataset, training_units(corpus.texts, units.text_units), units.kind)
    said = (
        f"`{dataset.name}` can be run: {corpus.observations.height:,} observations of "
        f"{corpus.observations['cluster_id'].n_unique():,} clusters ({placed})."
    )
    if corpus.dropped:
        said += f" Left out: {', '.join(f'{n:,} {left_out_words(reason)}' for reason, n in corpus.dropped.items())}."
    columns = dataset.spec.columns
    if columns.listed is None and (found := among_others(rows.classes, columns.positive)):
        said += (
            f" {found[1]:,} rows list `{columns.positive}` among other classes of `{columns.label}` and count as 0: "
            f"set columns.listed to `{found[0]}` if they are to count as 1."
        )
    if corpus.one_holdout:
        said += f" One holdout, as {corpus.one_holdout}."
    if corpus.joined:
        because = [f"{n:,} rows because of {_joining(by)}" for by, n in corpus.joined.items()]
        said += f" What shares something is one cluster; in a larger one than otherwise lie {', '.join(because)}."
    if admitted.said:
        said += f" {admitted.said}"
    if corpus.observations.height < 300:
        said += " That is few: only obvious concepts will be found."
    return said


def _joining(by: str) -> str:
    return f"`{by.removeprefix('cluster:')}`" if by.startswith("cluster:") else by


def _otherwise(dataset: "Dataset") -> list[str]:
    """What `hsae new` would read otherwise in files that somebody declared by hand."""
    from hsae_dagster.dataset.new.intake import DELIMITED, read_leniently

    said = []
    for _, path in dataset.file_paths():
        if path.suffix.lower() not in DELIMITED or path.stat().st_size > LARGEST_READ_TWICE:
            continue
        try:
            found = read_leniently(path)
        except DatasetError as error:
            said.append(str(error))
            continue
        if found.unusual:
            said.append(
                f"`hsae new` would read {path.name} otherwise, because {' and '.join(found.unusual)}. Create "
                "the dataset with it, or save the file as plain CSV."
            )
        said += found.notes.remarks
    return said


def _settling(dataset: "Dataset") -> list[str]:
    """Columns of the files within which the outcome does not differ, where no cluster is declared."""
    import polars as pl

    from hsae_dagster.dataset.new.columns import profile, with_plain_types
    from hsae_dagster.dataset.new.roles import with_settling
    from hsae_dagster.dataset.rows import READERS, plain_headers

    columns = dataset.spec.columns
    paths = [path for _, path in dataset.file_paths()]
    if columns.clusters or sum(path.stat().st_size for path in paths) > LARGEST_READ_TWICE:
        return []
    read = [with_plain_types(plain_headers(READERS[path.suffix.lower()](path))) for path in paths]
    parts = [part.with_columns(pl.lit(path.name).alias(_FILE)) for part, path in zip(read, paths, strict=True)]
    frame = pl.concat(parts, how="diagonal_relaxed")
    found = {column.name: column for column in profile(frame)}
    used = [name for name in (columns.text, columns.text_a, columns.text_b, columns.exclude, columns.id) if name]
    cluster = with_settling(frame, list(found.values()), found[columns.label], used, None)
    if cluster is None:
        return []
    if cluster.name == _FILE:
        return [f"{cluster.why} The outcome cannot be separated from other peculiarities of a file."]
    return [f"{cluster.why} Declare columns.cluster_by: {cluster.name}, or the test treats every text as independent."]


def _about_gold(dataset: "Dataset") -> list[str]:
    """What is to be said of labels by people, or of the lack of them."""
    from hsae_dagster.stages.gold import check_gold, gold_offer
    from hsae_dagster.storage.outputs import StoredCorpus, StoredInterpretations

    store, name = Project.here().store, dataset.name
    said = [gold_offer(dataset)]
    if store.has(name, "corpus") and store.has(name, "interpretations"):
        found = StoredInterpretations.current(store, name), StoredCorpus.current(store, name)
        said.append(check_gold(dataset, *found))
    return [each for each in said if each]


def _how_to_pair(within: str | None, rule: "Rule | None", least_margin: float | None) -> "PairWishes | None":
    from hsae_dagster.dataset.new.pairs import PairWishes

    if within is None:
        if rule or least_margin is not None:
            raise DatasetError("--pairs and --least-margin say how pairs are made: name their group in --pairs-within.")
        return None
    return PairWishes(within, rule or "all", least_margin or 0.0)


def _pair(
    intake: "Intake", source: Path, wishes: "Wishes", how: "PairWishes", aside: Path
) -> "tuple[Intake, Proposal, list[Field]]":
    """Write the pairs of a table into `aside` and go on with them as if they had been given."""
    from hsae_dagster.dataset.new.intake import Intake
    from hsae_dagster.dataset.new.pairs import FILE, pair_up

    if isinstance(intake.files, dict):
        raise DatasetError(
            f"The files of {source} are splits by their names, and pairs are split by `{how.within}`. Give one file "
            "with all rows."
        )
    frame, proposal, unsure = pair_up(intake.frame, source.name, wishes, how)
    frame.write_parquet(aside / FILE)
    return Intake(frame, (aside / FILE,), FILE), proposal, unsure


def _about_cluster(proposal: "Proposal") -> str:
    """What made the clusters of a proposal that cannot be split."""
    for field in proposal.fields:
        if field.active and field.path == "columns.cluster_by" and field.why != "As you said.":
            return (
                f" The clusters are those of `{field.value}`: {field.why[0].lower()}{field.why[1:]} Another column is "
                "named with --cluster-by; `--cluster-by none` counts every text as independent."
            )
    return ""


def _try_out(name: str, declaration: str, intake: "Intake", plain: Path) -> str:
    """Read the files by the proposed declaration, as every stage will, before anything is written."""
    import shutil

    from hsae_dagster.dataset.discovery import Dataset, load_yaml, parse_declaration

    folder = intake.paths[0].parent
    if intake.rewritten:
        folder, new_names = plain, {made.path for made in intake.rewritten}
        for path in set(intake.paths) - new_names:
            shutil.copyfile(path, plain / path.name)
    spec = parse_declaration(load_yaml(declaration), Path("The proposed dataset.yaml"))
    return describe(Dataset(name, folder, spec))


def _command() -> str:
    """How this command was called, as it can be typed again."""
    called = Path(sys.argv[0])
    if called.name != "hsae":
        return "hsae"
    inside = called.is_absolute() and called.is_relative_to(Path.cwd())
    return str(called.relative_to(Path.cwd()) if inside else called)


def _say_unsure(unsure: "list[Field]") -> None:
    if not unsure:
        return
    click.echo("Not sure about:")
    for field in unsure:
        option = "--" + field.path.removeprefix("columns.").replace("_", "-")
        others = f"; or {', '.join(field.others)}" if field.others else ""
        others += f" ({option} …)" if any(option in parameter.opts for parameter in new.params) else ""
        click.echo(f"  {field.path}: {field.value}{others}")
        if not field.others:
            click.echo(f"    {field.why}")
    click.echo("")
