"""`labelled_texts` and `dataset_catalog`: what lies under data/, for the graph and for terminal users."""

from collections.abc import Callable

import dagster as dg

from hsae_dagster.assets.stage import explained, table
from hsae_dagster.dataset.discovery import Dataset, badly_named_folders, dataset_names, files_fingerprint, load_dataset
from hsae_dagster.errors import DatasetError, FilesMissingError
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project

labelled_texts = dg.AssetSpec(
    "labelled_texts",
    partitions_def=datasets,
    kinds={"file"},
    description="The files under data/<dataset>/. Not made here: the discovery sensor reports a new data version when "
    "a file or dataset.yaml changes.",
)


@dg.asset(group_name="catalog", kinds={"yaml"})
def dataset_catalog(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Registers every dataset under data/ as a partition; what the discovery sensor does, for a terminal."""
    with explained():
        found, problems = scan(project)
        names = [dataset.name for dataset, _ in found]
        context.instance.add_dynamic_partitions(project.partitions_name, names)
        for problem in problems:
            context.log.warning(problem)
        pending = waiting(project)
        rows = [
            {"dataset": d.name, "task": d.spec.task, "description": d.spec.description, "data version": version[:12]}
            for d, version in found
        ]
        problem_rows = [{"problem": problem} for problem in problems]
        gone = retired(context.instance, project)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(rows),
                "datasets": table(rows),
                "not usable": table(problem_rows) if problem_rows else "none",
                "retired": ", ".join(gone) or "none",
                "not usable yet": table([{"waiting": w} for w in pending.values()]) if pending else "none",
            }
        )


def retired(instance: dg.DagsterInstance, project: Project) -> list[str]:
    """Datasets that were analysed once and have no declaration under data/ any more, sorted.

    Their partitions are taken away, so that nothing runs them; their records, results and reports stay, and belong to
    them again when the folder returns.
    """
    recorded = {
        name
        for asset in ("labelled_texts", "corpus")
        for name in instance.get_materialized_partitions(project.key(asset))
    }
    return sorted(recorded - set(dataset_names(project.data)))


def scan(
    project: Project, fingerprint: Callable[[Dataset], str] = files_fingerprint
) -> tuple[list[tuple[Dataset, str]], list[str]]:
    """Usable datasets with the fingerprint of their files, and a sentence for each that cannot be used."""
    found, problems = [], []
    for name in dataset_names(project.data):
        try:
            dataset = load_dataset(project.data, name)
            found.append((dataset, fingerprint(dataset)))
        except FilesMissingError:
            continue  # nothing is wrong: see `waiting`
        except DatasetError as error:
            problems.append(str(error))
        except OSError as error:  # one folder that cannot be read must not hide the others
            problems.append(f"{project.data / name} cannot be read: {error}. Make its files readable, or remove it.")
    for name in badly_named_folders(project.data):
        problems.append(f"{project.data / name} is not a dataset: use 1 to 64 of a-z, 0-9, `_` and `-` as its name.")
    return found, problems


def waiting(project: Project) -> dict[str, str]:
    """By dataset whose files have yet to be obtained, a sentence with how that is done."""
    found = {}
    for name in dataset_names(project.data):
        try:
            load_dataset(project.data, name).file_paths()
        except FilesMissingError as error:
            found[name] = str(error)
        except DatasetError:
            continue  # `scan` tells
    return found
