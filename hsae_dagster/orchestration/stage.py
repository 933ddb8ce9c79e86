"""What every stage does around its own work: partitions, reuse, checks, errors as sentences, the status of cards."""

import base64
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from hsae_dagster.core.evaluations import EvaluationRecord
from hsae_dagster.dataset.discovery import Dataset, files_fingerprint, load_dataset
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import HsaeError, refusal
from hsae_dagster.extensions import Registry
from hsae_dagster.orchestration.executors import end_with_worker
from hsae_dagster.orchestration.project import Project, datasets
from hsae_dagster.report.page import card_partition
from hsae_dagster.storage.lineage import LineageLog, staleness
from hsae_dagster.storage.objects import StageInputs
from hsae_dagster.storage.outputs import Output, OutputT, StoredEmbeddings, inputs_of

CARD = "hypothesis_card"
STATUS, CURRENT, RETIRED = "status", "current", "retired"


def status_words(reasons: Sequence[str]) -> str:
    """`current`, or `stale` with what has changed."""
    return f"stale: {' '.join(reasons)} Materialize the dataset again." if reasons else CURRENT


def restated_cards(
    instance: dg.DagsterInstance, project: Project, record: EvaluationRecord, reasons: Sequence[str]
) -> Iterator[dg.AssetMaterialization]:
    """The cards of an evaluation as they were last written, under a new status.

    Nothing when they are stale (or current) already: during a run several results change one after the other, and one
    warning is enough.
    """
    for number in range(1, len(record.hypotheses) + 1):
        partition = card_partition(record.dataset, number)
        wanted = dg.AssetRecordsFilter(asset_key=project.key(CARD), asset_partitions=[partition])
        found = instance.fetch_materializations(wanted, limit=1).records
        event = found[0].asset_materialization if found else None
        if event is None or event.metadata.get("evaluation data version") != dg.MetadataValue.text(
            record.evaluation.data_version
        ):
            continue
        told = event.metadata.get(STATUS)
        was_current = told is not None and told.value == CURRENT
        if was_current == (not reasons):
            continue
        yield dg.AssetMaterialization(
            project.key(CARD),
            partition=partition,
            metadata={**event.metadata, STATUS: status_words(reasons)},
            tags={key: value for key, value in (event.tags or {}).items() if key == "dagster/data_version"},
        )


def outdated_cards(
    instance: dg.DagsterInstance, project: Project, versions: Mapping[str, str]
) -> Iterator[dg.AssetMaterialization]:
    """Cards to mark stale or current, given the data version that each dataset's files have now."""
    store = project.store
    log = LineageLog(store)
    for dataset, version in versions.items():
        record = log.latest(dataset)
        if record is not None:
            yield from restated_cards(instance, project, record, staleness(store, record, version))


# A terminal command attaches a handler to show progress without Dagster's own events.
PROGRESS = logging.getLogger("hsae_dagster.progress")


@contextmanager
def heard_by(listener: logging.Handler) -> Iterator[None]:
    """Meanwhile `listener` is told how far the work is."""
    before = PROGRESS.level, PROGRESS.propagate
    PROGRESS.addHandler(listener)
    PROGRESS.setLevel(logging.INFO)
    PROGRESS.propagate = False
    try:
        yield
    finally:
        PROGRESS.removeHandler(listener)
        PROGRESS.setLevel(before[0])
        PROGRESS.propagate = before[1]


# Of an asset that is one step, or of one step of an asset that is several.
StepContext = dg.AssetExecutionContext | dg.OpExecutionContext


@contextmanager
def explained() -> Iterator[None]:
    """Show an error meant for people as the step's failure, without a traceback as its explanation.

    What the machine refuses (a full disk, a file that may not be read, no memory left) is such an error too.
    """
    try:
        yield
    except HsaeError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except (OSError, MemoryError) as error:
        raise dg.Failure(description=refusal(error), allow_retries=False) from None


def check_names(spec: DatasetSpec) -> None:
    """Whether all that a declaration chooses by name is there, before the first stage works for what a later one lacks.

    Raises:
        HsaeError: a name stands for nothing, or the user's own cannot be imported.
    """
    from hsae_dagster.core.concepts.candidates import SOURCES
    from hsae_dagster.core.selection.methods import METHODS
    from hsae_dagster.providers.registry import ANNOTATORS, EMBEDDERS, INTERPRETERS
    from hsae_dagster.report.page import OWN_SECTIONS

    registries: tuple[Registry[Any], ...] = (METHODS, EMBEDDERS, SOURCES, INTERPRETERS, ANNOTATORS, OWN_SECTIONS)
    for registry in registries:
        for name in registry.names(spec):
            registry.find(name)


@dataclass(frozen=True)
class Stage:
    """One stage of one dataset in one run."""

    context: StepContext
    project: Project
    dataset: Dataset
    asset: str
    code_version: str

    @staticmethod
    def open(context: StepContext, project: Project, asset: str, code_version: str) -> "Stage":
        """Open the partition of this step.

        Raises:
            DatasetError: the dataset's declaration cannot be used.
        """
        end_with_worker(context.instance, context.run.run_id)
        dataset = project.run_settings.applied(load_dataset(project.data, context.partition_key))
        check_names(dataset.spec)
        return Stage(context, project, dataset, asset, code_version)

    def report(self, message: str) -> None:
        """Tell the run's log, and whoever listens to this package's logger, how far the work is."""
        self.context.log.info(f"{self.dataset.name} · {self.asset}: {message}")
        PROGRESS.info("%-18s %s", self.asset, message)

    def upstream(self, kind: type[OutputT]) -> OutputT:
        """Current, verified result of an upstream asset of this dataset."""
        return kind.current(self.project.store, self.dataset.name)

    def pointed(self, kind: type[OutputT]) -> OutputT:
        """Current result of an upstream asset, its files unread; `verify` before they are."""
        return kind(self.project.store.pointed(self.dataset.name, kind.asset))

    @cached_property
    def embeddings(self) -> StoredEmbeddings:
        """The dataset's current ones."""
        return self.upstream(StoredEmbeddings)

    def verify(self, output: Output) -> None:
        """Compare the files of an upstream result with their hashes."""
        self.project.store.verified(self.dataset.name, output.stored)

    def build(
        self, kind: type[OutputT], config: Mapping[str, Any], upstream: Sequence[Output], make: Callable[[Path], None]
    ) -> OutputT:
        """Make the stage's result, or find it finished from equal inputs.

        What an earlier step of the same run has made is new, not reused.
        """
        stored = self.project.store.build(
            self._inputs(config, upstream),
            self.context.run.run_id,
            make,
            lambda: self.report("another run is making the same result; waiting to reuse it"),
        )
        if stored.run_id == self.context.run.run_id:
            return kind(replace(stored, reused=False))
        if stored.reused:
            self.report("nothing it depends on has changed; the finished result is kept")
        return kind(stored)

    def is_finished(self, config: Mapping[str, Any], upstream: Sequence[Output]) -> bool:
        """Whether `build` would find the stage's result."""
        return self.project.store.finished(self._inputs(config, upstream))

    def _inputs(self, config: Mapping[str, Any], upstream: Sequence[Output]) -> StageInputs:
        return inputs_of(self.asset, self.code_version, config, upstream)

    def finish(
        self, output: Output, metadata: Mapping[str, Any], checks: Sequence[dg.AssetCheckResult] = ()
    ) -> dg.MaterializeResult:
        """Publish the result as current, unless a structural check fails, and report it to Dagster."""
        stored = output.stored
        if sound(checks):
            self.project.store.point(self.dataset.name, stored, output.passing)
            self._restate_cards()
        shown = {
            **metadata,  # first what people look for
            **_tabular(output),
            **metadata,
            "folder": dg.MetadataValue.path(str(stored.folder)),
            "made by run": stored.run_id,
            "reused": stored.reused,
            **({"told at launch": dg.MetadataValue.json(told)} if (told := self.project.run_settings.told) else {}),
            "upstream versions": dg.MetadataValue.json(dict(stored.inputs.upstream)),
        }
        return dg.MaterializeResult(
            asset_key=self.project.key(self.asset),
            metadata=shown,
            data_version=dg.DataVersion(stored.data_version),
            check_results=list(checks),
        )

    def _restate_cards(self) -> None:
        """Cards that are out say *stale* as soon as what they rest on changes, and *current* if it changes back."""
        record = LineageLog(self.project.store).latest(self.dataset.name)
        if record is None or record.origin(self.asset) is None:
            return
        reasons = staleness(self.project.store, record, files_fingerprint(self.dataset))
        for event in restated_cards(self.context.instance, self.project, record, reasons):
            self.context.log_event(event)


def _tabular(output: Output) -> dict[str, Any]:
    """Rows and columns of a stage's table, under the names that Dagster knows; readers see them without opening it."""
    if not output.shown:
        return {}
    frame = pl.scan_parquet(output.stored.file(output.shown))
    columns = [dg.TableColumn(name, type=str(dtype)) for name, dtype in frame.collect_schema().items()]
    return {
        "dagster/row_count": int(frame.select(pl.len()).collect().item()),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
    }


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A figure that the UI shows inline."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


_KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float"}


def table(rows: Sequence[Mapping[str, str | int | float | bool | None]]) -> dg.TableMetadataValue:
    """A table that the UI shows; every row has the keys of the first."""
    first = rows[0] if rows else {"(empty)": ""}
    columns = [dg.TableColumn(name, type=_KINDS.get(type(value), "string")) for name, value in first.items()]
    schema = dg.TableSchema(columns=columns)
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema=schema)


# asset -> check name -> (blocking, description)
CHECKS: dict[str, dict[str, tuple[bool, str]]] = {
    "corpus": {
        "splits_share_no_text": (True, "No text and no cluster is on two sides of a split."),
        "labels_vary": (True, "Train and holdout both have more than one label value."),
        "few_rows_dropped": (False, "Fewer than a quarter of the rows were left out."),
        "labels_balanced": (False, "No single label value makes up more than 95 % of the observations of any split."),
    },
    "embeddings": {
        "every_text_has_a_vector": (True, "Each text of the corpus has one finite vector of the declared length."),
    },
    "sae_checkpoints": {
        "weights_are_finite": (True, "No weight is NaN or infinite."),
        "few_dead_neurons": (False, "Fewer than half of the neurons never fire on training texts."),
        "explains_variance": (False, "The reconstruction explains at least a tenth of validation variance."),
        "fires_as_declared": (False, "At inference k neurons fire per text, give or take a half of k."),
        "training_converged": (
            False,
            "No training ended at saes.max_epochs while its last epochs still took 0.5 % off the loss.",
        ),
    },
    "activations": {
        "one_row_per_text": (True, "Codes have one row per text and one column per neuron, none negative."),
    },
    "selected_neurons": {
        "neurons_are_distinct": (True, "No neuron is selected twice."),
        "as_many_as_asked": (
            False,
            "As many neurons as declared; fewer where no other adds to it or holds across clusters.",
        ),
    },
    "interpretations": {
        "unseen_texts_only": (True, "Fidelity was measured on texts that no candidate was written or chosen on."),
        "most_neurons_are_readable": (False, "At least half of the selected neurons have a readable concept."),
    },
    "annotation_matrix": {
        "every_holdout_text_judged": (True, "One row per holdout text, one column per concept."),
        "few_missing": (True, "No larger share of the answers is missing than annotation.max_missing."),
        "stacked_agrees_with_single": (
            False,
            "Answers to stacked concepts agree with answers to one at a time, at least to annotation.min_agreement.",
        ),
        "two_judges_agree": (False, "A second model, if declared, agrees at least to judge.min_kappa."),
        "concepts_vary": (False, "No concept got the same answer on every text; such a concept cannot be tested."),
    },
    "evaluation_report": {
        "tests_only_holdout": (True, "Every tested observation belongs to the holdout."),
        "effects_estimable": (False, "Every hypothesis could be tested."),
        "signs_agree": (False, "Separation and partial effect agree in sign for every confirmed hypothesis."),
    },
}


def check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Declarations of an asset's checks."""
    return [
        dg.AssetCheckSpec(name=name, asset=asset, blocking=blocking, description=description)
        for name, (blocking, description) in CHECKS[asset].items()
    ]


def declared(asset: str, code_version: str) -> dict[str, Any]:
    """What every asset that is one step declares."""
    return {
        "name": asset,
        "partitions_def": datasets,
        "code_version": code_version,
        "check_specs": check_specs(asset),
    }


def check_result(asset: str, name: str, passed: bool, metadata: Mapping[str, Any] | None = None) -> dg.AssetCheckResult:
    """The verdict of one check: an ERROR where it blocks, a WARN where it does not."""
    blocking = CHECKS[asset][name][0]
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        metadata=dict(metadata or {}),
    )


def sound(results: Sequence[dg.AssetCheckResult]) -> bool:
    """Whether no structural check failed, so that a result may be shown as current."""
    return all(check.passed or check.severity is dg.AssetCheckSeverity.WARN for check in results)
