"""`hsae cost`: what asking paid models for a dataset would take, before anything is spent.

Belongs here: the table for people. Does not belong here: counting (`assets.cost_estimate`).
"""

import click

from hsae_dagster.cli.findings import columns, terminal_width
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root


@click.command()
@click.argument("dataset")
@click.option("--trial", is_flag=True, help="Send a few of the requests to servers not asked before, to time them.")
def cost(dataset: str, trial: bool) -> None:
    """Estimate calls, tokens, dollars and minutes of DATASET's paid stages; without --trial nothing is sent."""
    prepare_home(project_root())
    from hsae_dagster.assets.cost_estimate import estimate_costs
    from hsae_dagster.assets.gold import gold_offer
    from hsae_dagster.assets.spending import open_account
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.providers.estimate import Estimate, dollars

    project = Project.here()
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
    for line in columns(rows, terminal_width()):
        click.echo(line)
    spending = declared.spec.spending
    spent = open_account(project, declared, "cost", "estimate").ledger.spent(dataset)
    unpriced = f" and {spent.unpriced:,} calls of unknown price" if spent.unpriced else ""
    worst = [
        f"{spent.uncounted:,} calls whose tokens the server did not count" if spent.uncounted else "",
        f"{spent.lost:,} calls whose answer never arrived" if spent.lost else "",
    ]
    unpriced += f" (with {' and '.join(filter(None, worst))}, at the most they can have cost)" if any(worst) else ""
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
    from hsae_dagster.errors import HsaeError, StorageError

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
