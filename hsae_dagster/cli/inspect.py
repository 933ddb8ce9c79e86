"""Commands that look at what is there: lineage, comparisons, texts, costs, questions asked, labels by people."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsae_dagster.cli.run import columns, opened, terminal_width
from hsae_dagster.errors import HsaeError
from hsae_dagster.orchestration.project import Project

if TYPE_CHECKING:
    from hsae_dagster.core.evaluations import EvaluationRecord
    from hsae_dagster.stages.paid import Asked
    from hsae_dagster.stages.publishing import TextTrail, Tried
    from hsae_dagster.storage.lineage import LineageLog

_LEAST_KEY = 6  # characters of a data version below which too much would begin so


@click.command()
@click.argument("what")
@click.option("--evaluation", type=int, help="Number of the evaluation to walk (default: the last that had it).")
def lineage(what: str, evaluation: int | None) -> None:
    """Show where the hypothesis WHAT comes from, down to texts and files.

    WHAT may also be a dataset, or (the beginning of) the data version of any result or of a dataset's files: then the
    hypotheses that used it are shown.
    """
    from hsae_dagster.storage.lineage import LineageLog

    log = LineageLog(opened().store)
    records = [] if what in log.datasets() else log.find(what)
    if records:
        _walk(log, what, records, evaluation)
    else:
        _from_the_other_side(log, what)


def _walk(log: "LineageLog", what: str, records: Sequence["EvaluationRecord"], number: int | None) -> None:
    from hsae_dagster.report.page import lineage_lines
    from hsae_dagster.storage.lineage import staleness

    chosen = next((record for record in reversed(records) if number in (None, record.number)), None)
    if chosen is None:
        known = ", ".join(str(record.number) for record in records)
        raise click.ClickException(f"Evaluation {number} has no hypothesis `{what}`. These have: {known}.")
    key = next(row["hypothesis_id"] for row in chosen.hypotheses if row["hypothesis_id"].startswith(what))
    quoted = log.quoted(chosen, key)
    click.echo("\n".join(lineage_lines(chosen, key, records, quoted)))
    for reason in staleness(log.store, chosen, _files_now(chosen.dataset)):
        click.echo(f"Stale: {reason}")


def _files_now(dataset: str) -> str | None:
    """Data version of a dataset's files as they are, or None when they are not there."""
    from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset

    try:
        return files_fingerprint(load_dataset(Project.here().data, dataset))
    except (HsaeError, OSError):
        return None


def _from_the_other_side(log: "LineageLog", what: str) -> None:
    """Hypotheses that came of a dataset or of one version of something."""
    from hsae_dagster.core.evaluations import Standing
    from hsae_dagster.report.wording import short_claim, standing_effect, when

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

    log = LineageLog(opened().store)
    if before is not None and not before.isdecimal() and after is None and log.latest(before) is not None:
        _two_datasets(log, dataset, before)
        return
    for given in (before, after):
        if given is not None and not given.isdecimal():
            numbers = ", ".join(str(record.number) for record in log.records(dataset)) or "none"
            raise click.ClickException(
                f"`{given}` is neither the number of an evaluation of `{dataset}` (known: {numbers}) nor, alone, "
                f"another dataset with an evaluation (known: {', '.join(log.datasets()) or 'none'}). Type `hsae "
                "compare <dataset>`, `hsae compare <dataset> <number> <number>` or `hsae compare <dataset> <dataset>`."
            )
    _one_dataset(log, dataset, int(before) if before else None, int(after) if after else None)


def _two_datasets(log: "LineageLog", first: str, second: str) -> None:
    from hsae_dagster.core.evaluations import by_concept
    from hsae_dagster.core.evaluations import compare as compared
    from hsae_dagster.report.wording import short_claim, side_words

    old, new = log.latest(first), log.latest(second)
    if old is None or new is None:
        raise click.ClickException(f"`{first}` has no evaluation yet. `hsae run {first}` makes one.")
    changes = compared(by_concept(old.hypotheses), by_concept(new.hypotheses))
    kinds = [change.kind for change in changes]
    alike, moved = kinds.count("unchanged"), kinds.count("moved")
    click.echo(
        f"Concepts in both: {alike + moved}, of which {alike} alike in verdict and effect; in `{first}` alone: "
        f"{kinds.count('vanished')}; in `{second}` alone: {kinds.count('appeared')}.\n"
    )
    if not alike + moved:
        click.echo("Datasets share concepts where they share texts and autoencoders.\n")
    p_values = [{row["concept_id"]: row["p_holm"] for row in record.hypotheses} for record in (old, new)]
    titles = {"moved": "In both, but not alike", "vanished": f"In `{first}` alone", "appeared": f"In `{second}` alone"}
    for kind in (kind for kind in titles if kind in kinds):
        click.echo(f"{titles[kind]}:")
        for change in (change for change in changes if change.kind == kind):
            click.echo(f"  {short_claim(change.standing.claim, _SHOWN_WORDS)}")
            for record, side, p in zip((old, new), (change.before, change.after), p_values, strict=True):
                if side:
                    words = side_words(side, p[side.hypothesis_id], str(record.summary["task"]))
                    click.echo(f"    {record.dataset}: {words}")


def _one_dataset(log: "LineageLog", dataset: str, before: int | None, after: int | None) -> None:
    from hsae_dagster.core.evaluations import Standing
    from hsae_dagster.core.evaluations import compare as compared
    from hsae_dagster.report.page import comparison_headline, inputs_words, render_comparison
    from hsae_dagster.report.wording import change_words, short_claim
    from hsae_dagster.storage.files import write_atomically

    records = {record.number: record for record in log.records(dataset)}
    old, new = _chosen(dataset, records, before, after)
    changes = compared(*([Standing.of(row) for row in record.hypotheses] for record in (old, new)))
    click.echo(f"{dataset}, evaluation {old.number} → {new.number}: {comparison_headline(changes)}")
    click.echo(f"{inputs_words(old, new)}\n")
    for change in changes:
        if change.kind != "unchanged":
            click.echo(f"  {change.standing.hypothesis_id}  {short_claim(change.standing.claim, _SHOWN_WORDS)}")
            click.echo(f"    {change_words(change, str(new.summary['task']))}")
    page = log.store.root / "reports" / dataset / f"{old.number}-to-{new.number}.html"
    write_atomically(page, render_comparison(old, new).encode())
    click.echo(f"\nPage: {page}")


def _chosen(
    dataset: str, records: "dict[int, EvaluationRecord]", before: int | None, after: int | None
) -> "tuple[EvaluationRecord, EvaluationRecord]":
    known = ", ".join(str(number) for number in records) or "none"
    if len(records) < 2 and before is None:
        raise click.ClickException(f"`{dataset}` has fewer than two evaluations to compare (known: {known}).")
    new = after if after is not None else max(records, default=0)
    old = before if before is not None else new - 1
    for number in (old, new):
        if number not in records:
            raise click.ClickException(f"`{dataset}` has no evaluation {number}. Known: {known}.")
    return records[old], records[new]


_MOST_SHOWN = 400


@click.command()
@click.argument("wanted", nargs=-1, required=True)
@click.option("--dataset", help="Look in this dataset only.")
@click.option("--most", type=click.IntRange(1, 100), default=3, show_default=True, help="Texts to show per dataset.")
def text(wanted: tuple[str, ...], dataset: str | None, most: int) -> None:
    """Show rows, neurons and hypotheses of a text: WANTED is (the beginning of) its key, or words that it contains."""
    from hsae_dagster.stages.publishing import find_texts, text_trail

    project, words = opened(), " ".join(wanted)
    names = [dataset] if dataset else [name for name in project.store.datasets() if project.store.has(name, "corpus")]
    shown = 0
    for name in names:
        for key in find_texts(project, name, words, most):
            click.echo("\n".join(_lines(text_trail(project, name, key))))
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
        used = f"  → hypothesis {firing.hypothesis_id}, no. {firing.number} of the report" if firing.number else ""
        lines.append(f"    {firing.sae_id[:8]}/{firing.sae_column:<5} {number(firing.activation, 3)}{used}")
    if trail.split != "holdout" and not trail.split.startswith("half"):
        lines.append(f"  not judged: it is a {trail.split} text, and only holdout texts test hypotheses")
    for support in trail.supports:
        answer = {True: "holds", False: "does not", None: "no answer"}[support.has]
        named = f"no. {support.number:<3} {support.hypothesis_id}"
        lines.append(f"  {answer:<10} {named}  {support.badge:<13} {shorten(support.claim, 80)}")
    return lines


_MOST_CLAIMS = 160


@click.command("try")
@click.argument("text", required=False)
@click.option("--dataset", required=True, help="Whose claims to try.")
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read the text from here (UTF-8)."
)
def try_text(text: str | None, dataset: str, file: Path | None) -> None:
    """Say which claims of a dataset's last evaluation hold for TEXT, and what makes them hold."""
    from hsae_dagster.stages.publishing import try_claims

    project = opened()
    if (text is None) == (file is None):
        raise click.ClickException('Give one text: as an argument, as in `hsae try "some text"`, or with --file.')
    try:
        words = file.read_text(encoding="utf-8") if file else text or ""
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} cannot be read as UTF-8 text: {error}.") from error
    if not words.strip():
        raise click.ClickException("The text is empty, so no claim can hold for it.")
    record, tried = try_claims(project, dataset, words)
    click.echo("\n".join(_claim_lines(tried, str(record.summary["task"]))))


def _claim_lines(tried: "list[Tried]", task: str) -> Iterator[str]:
    from hsae_dagster.report.wording import count, one_line, plural, shorten, standing_effect

    held = [each for each in tried if each.because]
    yield f"{count(len(held))} of {count(len(tried))} claims {'holds' if len(held) == 1 else 'hold'}."
    for number, each in enumerate(tried, 1):
        if not each.because:
            continue
        yield ""
        yield f"  no. {number}  {shorten(each.standing.claim, _MOST_CLAIMS)}"
        yield f"    {each.standing.badge}, {standing_effect(each.standing, task)}"
        if each.because and each.because != (each.standing.claim,):
            yield f"    because: {shorten(', '.join(f'“{one_line(part)}”' for part in each.because), _MOST_CLAIMS)}"
    unread = sum(each.because is None for each in tried)
    if unread:
        yield ""
        were = "was" if unread == 1 else "were"
        yield f"{plural(unread, 'claim')} can only be judged by a language model and {were} not tried."


@click.command()
@click.argument("dataset")
@click.option("--trial", is_flag=True, help="Send a few of the requests to servers not asked before, to time them.")
def cost(dataset: str, trial: bool) -> None:
    """Estimate calls, tokens, dollars and minutes of DATASET's paid stages; without --trial nothing is sent."""
    project = opened()
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.providers.spending import Estimate, dollars
    from hsae_dagster.stages.gold import gold_offer
    from hsae_dagster.stages.judging import open_account
    from hsae_dagster.stages.paid import estimate_costs

    declared = load_dataset(project.data, dataset)
    _make_corpus(project, dataset)
    stages = estimate_costs(project, declared, click.echo if trial else None)
    if not stages:
        click.echo(f"`{dataset}` asks no paid model: nothing to pay.")
        return
    total = sum((each.estimate for each in stages), Estimate())
    lines = [(each.stage, each.model, each.estimate, each.basis) for each in stages]
    rows = [
        {
            "stage": stage,
            "model": model,
            "calls": f"{estimate.calls:,}",
            "in ledger": f"{estimate.known:,}",
            "tokens in": f"{estimate.usage.input:,}",
            "out": f"{estimate.usage.output:,}",
            "price": estimate.price.removeprefix("price "),
            "time": estimate.time,
            "basis": basis,
        }
        for stage, model, estimate, basis in [*lines, ("all", "", total, "")]
    ]
    click.echo("\n".join(columns(rows, terminal_width())))
    spending = declared.spec.spending
    spent = open_account(project, declared, "cost", "estimate").ledger.spent(dataset)
    unpriced = f" and {spent.unpriced:,} calls of unknown price" if spent.unpriced else ""
    worst = [
        f"{spent.uncounted:,} calls whose tokens the server did not count" if spent.uncounted else "",
        f"{spent.lost:,} calls whose answer never arrived" if spent.lost else "",
    ]
    unpriced += f" (with {' and '.join(filter(None, worst))}, counted at their maximum cost)" if any(worst) else ""
    click.echo(f"\nSpent so far: {spent.calls:,} calls, {dollars(spent.usd)}{unpriced}.")
    limits = [
        f"{spending.budget_calls:,} calls" if spending.budget_calls else "",
        f"${spending.budget_usd:,.2f}" if spending.budget_usd else "",
    ]
    if offer := gold_offer(declared):
        click.echo(offer)
    click.echo(f"Budget (spending in dataset.yaml): {' and '.join(filter(None, limits)) or 'none'}.")


def _make_corpus(project: Project, dataset: str) -> None:
    """The texts, which cost nothing, where they are not there yet."""
    import dagster as dg

    from hsae_dagster.definitions import STAGES
    from hsae_dagster.errors import StorageError

    try:
        project.store.current(dataset, "corpus")
    except StorageError:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        # Not on the records: whoever asks for a price has not asked for the dataset, and `refresh` must not take it so.
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(project.partitions_name, [dataset])
            made = dg.materialize(
                [stage for stage in STAGES if stage.key == project.key("corpus")],
                partition_key=dataset,
                instance=instance,
                resources={"project": project},
                run_config=quiet,
                raise_on_error=False,
            )
        if not made.success:
            raise HsaeError(f"The texts of `{dataset}` cannot be read; `hsae check {dataset}` says why.") from None


@click.command()
@click.argument("hypothesis")
@click.option("--text", "text_id", help="Show instead how it was judged on this holdout text (its key).")
@click.option("--candidate", type=int, help="Show the prompt of this candidate only (from 0).")
def asked(hypothesis: str, text_id: str | None, candidate: int | None) -> None:
    """Show what a language model was asked about HYPOTHESIS (its id), with the texts shown, and what it answered."""
    project = opened()
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.stages.paid import asked_about_text, asked_for_words, hypothesis_of
    from hsae_dagster.storage.lineage import LineageLog

    records = LineageLog(project.store).find(hypothesis)
    if not records:
        raise click.ClickException(
            f"No evaluation has a hypothesis `{hypothesis}`. `hsae lineage <dataset>` lists them."
        )
    dataset = load_dataset(project.data, records[-1].dataset)
    row = hypothesis_of(records[-1], hypothesis)
    click.echo(f"{row['hypothesis_id']}  The text {row['claim']}")
    found = [asked_about_text(project, dataset, row, text_id)] if text_id else asked_for_words(project, dataset, row)
    for number, each in enumerate(found):
        if candidate in (None, number):
            click.echo("\n".join(_question_lines(each)))


def _question_lines(asked: "Asked") -> Iterator[str]:
    yield f"\n=== {asked.what}"
    for role, text in asked.messages:
        yield f"--- {role}"
        yield text
    yield "--- answer"
    entry = asked.entry
    if entry is None:
        yield (
            "The ledger does not know this prompt: texts, settings, prompt file or server (OPENAI_BASE_URL) "
            "have changed since the result was made."
        )
        return
    yield entry.answer if entry.answer is not None else f"(none: {entry.reason})"
    price = "price unknown" if entry.cost_usd is None else f"${entry.cost_usd:.6f}"
    yield f"--- {entry.model} at {entry.server}, run {entry.run_id}, {price}, prompt file {entry.prompt_hash}"


_MOST_REASONS = 5


@click.command("ask-again")
@click.argument("dataset")
@click.option("--refusals", is_flag=True, help="Also what the model refused or a content filter withheld.")
@click.option("--batches", is_flag=True, help="Also batches of which it is unknown whether the server has them.")
def ask_again(dataset: str, refusals: bool, batches: bool) -> None:
    """Have unusable answers of DATASET asked again by its next run; what they cost stays spent."""
    project = opened()
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.stages.paid import ask_again as take_back

    found = take_back(project, load_dataset(project.data, dataset), refusals=refusals, batches=batches)
    if found.batches:
        click.echo(f"{found.batches} batches of `{dataset}` are forgotten; the next run submits others.")
    if not found.reasons and not found.batches:
        click.echo(f"`{dataset}` has no unusable answer: nothing to ask again.")
        return
    if found.reasons:
        click.echo(f"{sum(found.reasons.values()):,} answers of `{dataset}` will be asked again:")
    for reason, count in list(found.reasons.items())[:_MOST_REASONS]:
        click.echo(f"  {count:>6,}  {reason}")
    click.echo(f"`hsae cost {dataset}` says what that takes, `hsae run {dataset}` does it.")


@click.command()
@click.argument("dataset")
@click.option(
    "--per-concept", type=click.IntRange(20, 5000), default=400, show_default=True, help="Texts drawn for each concept."
)
def gold(dataset: str, per_concept: int) -> None:
    """Draw held-out texts of DATASET for people to label, half judged to have each concept and half not.

    Of claims that a language model judges, and of your own hypotheses: the others are read literally.
    """
    project = opened()
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.stages.gold import draw_sheet

    found = load_dataset(project.data, dataset)
    path, rows = draw_sheet(project, found, per_concept)
    click.echo(f"{rows} rows are in {path}")
    click.echo(
        f"Fill in `label` (yes or no) and your name in `annotator`, save it as {found.folder / 'gold.csv'}, and "
        "materialize evaluation_report again. Rows may stay empty; the sheet does not say what the judge said."
    )
