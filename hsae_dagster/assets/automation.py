"""What runs by itself, schedules and sensors of files, stale results and batches, and what people are told of it."""

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg

from hsae_dagster.assets.catalog import scan
from hsae_dagster.core.evaluations import EvaluationRecord, Standing, compare
from hsae_dagster.dataset.discovery import Dataset, dataset_names, files_fingerprint, files_stamp
from hsae_dagster.dataset.sections import ServerFields
from hsae_dagster.errors import DatasetError, HsaeError
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import CHECKS, outdated_cards
from hsae_dagster.providers.openai.batch import BatchRecord, BatchRegister
from hsae_dagster.providers.spending import Account, Ledger
from hsae_dagster.report.page import asset_address, card_partition, dataset_of_card, report_address
from hsae_dagster.report.wording import one_line, shorten
from hsae_dagster.storage.lineage import LineageLog

if TYPE_CHECKING:
    from hsae_dagster.providers.openai.requests import Server


# Seconds between two looks at data/, and between two decisions of `refresh`.
LOOK_SECONDS = int(os.environ.get("HSAE_LOOK_SECONDS") or 30)


@dg.sensor(
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A new folder under data/ becomes a partition; changed files become a new version of `labelled_texts`; "
    "the partitions of a folder that is gone are removed, its results stay. Costs nothing, starts nothing.",
)
def dataset_arrivals(context: dg.SensorEvaluationContext, folders: Project) -> dg.SensorResult | dg.SkipReason:
    """A new folder under data/ becomes a partition; changed files become a new data version of `labelled_texts`.

    The folder of a dataset that is gone takes its partition along; records, results and report stay, and are found
    again when it returns. Files are read only if their size or time of change differ from the last tick's.

    Raises:
        DatasetError: some dataset cannot be used and there is nothing else to tell: the sentences of all of them, as
            the tick's error. Whatever changed in the others was told by the tick before.
    """
    if not folders.data.is_dir():  # a drive that is not mounted retires nobody
        return dg.SkipReason(f"there is no folder {folders.data}")
    seen = json.loads(context.cursor or "{}")
    stamps: dict[str, str] = {}

    def fingerprint(dataset: Dataset) -> str:
        stamps[dataset.name] = files_stamp(dataset)
        version, stamp = seen.get(dataset.name, ("", ""))
        return version if stamp == stamps[dataset.name] else files_fingerprint(dataset)

    found, problems = scan(folders, fingerprint)
    now = {dataset.name: (version, stamps[dataset.name]) for dataset, version in found}
    for problem in problems:
        context.log.warning(problem)
    changed = [name for name, (version, _) in now.items() if seen.get(name, ("", ""))[0] != version]
    known = set(context.instance.get_dynamic_partitions(folders.partitions_name))
    new = [name for name in now if name not in known]
    gone = sorted(known - set(dataset_names(folders.data)))
    texts = folders.key("labelled_texts")
    cursor = json.dumps({**seen, **now}, sort_keys=True)
    if not (changed or new or gone):
        if problems:
            raise DatasetError(" ".join(problems))
        context.update_cursor(cursor)  # a file written again with the same content is read once, not at every tick
        return dg.SkipReason(f"none of {len(now)} datasets changed")
    return dg.SensorResult(
        dynamic_partitions_requests=list(_partition_requests(context.instance, folders, new, gone)),
        asset_events=[
            *(
                dg.AssetMaterialization(texts, partition=name, tags={"dagster/data_version": now[name][0]})
                for name in changed
            ),
            # An observation, because a materialization would ask for a refresh.
            *(
                dg.AssetObservation(
                    texts,
                    partition=name,
                    metadata={"state": "retired", "why": f"{folders.data / name / 'dataset.yaml'} is gone"},
                )
                for name in gone
            ),
            *outdated_cards(context.instance, folders, {name: now[name][0] for name in changed}),
        ],
        cursor=cursor,
    )


def _partition_requests(
    instance: dg.DagsterInstance, project: Project, new: list[str], gone: list[str]
) -> Iterator[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    """Partitions of datasets that have come or gone, and of the hypotheses that they have."""
    log = LineageLog(project.store)
    records = [record for record in map(log.latest, new) if record]
    cards = [card_partition(each.dataset, number + 1) for each in records for number in range(len(each.hypotheses))]
    left = [key for key in instance.get_dynamic_partitions(project.cards_name) if dataset_of_card(key) in gone]
    for name, added, removed in ((project.partitions_name, new, gone), (project.cards_name, cards, left)):
        if added:
            yield dg.AddDynamicPartitionsRequest(name, added)
        if removed:
            yield dg.DeleteDynamicPartitionsRequest(name, removed)


class OutdatedAtFirst(dg.AutomationCondition[dg.AssetKey]):
    """On the first tick that sees a stage: results made from other inputs, or by other code, than there are now.

    Dagster's operators tell what changed between two ticks, so that a change from before the first one, as when the
    sensor is switched on after files have changed, would wait for ever. From then on it is true of nothing.
    """

    def evaluate(self, context: dg.AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        """The outdated among the candidates; none of them once there has been a tick before."""
        view, datasets = context.asset_graph_view, context.partitions_def
        if context.previous_temporal_context is not None or datasets is None:
            return dg.AutomationResult(context, context.get_empty_subset())
        stage = view.asset_graph.get(context.key)
        outdated = {
            partition
            for partition in context.candidate_subset.expensively_compute_partition_keys()
            if _is_outdated(view.instance, stage, partition)
        }
        return dg.AutomationResult(context, view.get_subset_from_partition_keys(context.key, datasets, outdated))


def _is_outdated(instance: dg.DagsterInstance, stage: Any, partition: str) -> bool:
    """Whether a result that there is came from other code, or from other content of something it reads.

    Dagster's own staleness overlooks files that change, as it knows an external asset by its observations alone.
    """

    def latest(key: dg.AssetKey, before: int | None = None) -> Mapping[str, str]:
        chosen = dg.AssetRecordsFilter(key, asset_partitions=[partition], before_storage_id=before)
        for record in instance.fetch_materializations(chosen, limit=1).records:
            if record.asset_materialization is not None:
                return record.asset_materialization.tags or {}
        return {}

    made, version = latest(stage.key), "dagster/data_version"
    if not made:
        return False
    if made.get("dagster/code_version") != stage.code_version:
        return True
    # What it read is named by the number of the event that told of it.
    read = {key: int(made.get(f"dagster/input_event_pointer/{key.to_user_string()}") or 0) for key in stage.parent_keys}
    return any(latest(key).get(version) != latest(key, number + 1).get(version) for key, number in read.items())


def refresh_condition(stages: Sequence[dg.AssetKey], *, new_too: bool = False) -> dg.AutomationCondition[dg.AssetKey]:
    """When a stage of a dataset is due: it is missing, its code changed, or an input has new content.

    Datasets that were never run, which have no corpus yet, are not due.

    Everything downstream is in the same run, so that a change is one run of its dataset; a stage of that run
    whose inputs have come out equal keeps its result. Content that comes out equal outside of such a run (the same
    data version) asks for nothing. While a run of the dataset is under way, the next one waits for it.

    Unlike `AutomationCondition.eager`, datasets that were there before the rule was first switched on count as missing,
    and a parent made again with the same data version does not count as updated.

    Stages are all of a dataset, the corpus first; with `new_too` datasets that nobody has asked for are due as well.
    """
    rule = dg.AutomationCondition
    # `updated & new content & not by a run that makes this stage too`, written with `since` because only that operator
    # keeps the time of the update, by which a change that came while a stage ran is told from one its run has seen.
    same, together = ~rule.data_version_changed(), rule.data_version_changed() & rule.executed_with_root_target()
    new_input = rule.any_deps_match(rule.newly_updated().since(same | together))
    unseen = new_input.since(rule.newly_updated()) & new_input.since(rule.newly_requested())
    # Not on the tick that sees another stage's update: of several datasets that were updated since the last tick,
    # `executed_with_root_target` knows only the latest, and whether this stage followed is certain one tick later.
    stages_read = dg.AssetSelection.assets(*stages)
    settling = rule.any_deps_match(rule.newly_updated()).allow(stages_read)
    # In the same run as what it reads. Needs no memory: a parent is not asked for while the dataset is busy.
    alongside = rule.any_deps_match(rule.will_be_requested())
    seen_to = rule.newly_requested() | rule.newly_updated()
    from_before = (OutdatedAtFirst() & ~rule.execution_failed()).since(seen_to)
    # Missing since a run of it failed is no cause, whoever started that run.
    missing = rule.newly_missing().since(seen_to | rule.execution_failed().newly_true())
    due = alongside | (unseen & ~settling) | missing | rule.code_version_changed().since(seen_to) | from_before
    busy = rule.asset_matches(stages[0], rule.in_progress())
    for stage in stages[1:]:
        busy = busy | rule.asset_matches(stage, rule.in_progress())
    # Nor on the first tick without a run: Dagster tells apart which updates a tick may see, but not which ends of runs,
    # so a run that ends while the tick is evaluated looks ended before the updates of its last stages are seen.
    calm = ~busy & ~(~busy).newly_true()
    unsettled = busy.since(calm).with_label("a run of the dataset is in progress, or was at the last tick")
    wanted = due if new_too else due & ~rule.asset_matches(stages[0], rule.missing())
    return (wanted & ~rule.any_deps_missing() & ~busy & ~unsettled).with_label("refresh")


def refresh_sensor(stages: Sequence[dg.AssetKey]) -> dg.AutomationConditionSensorDefinition:
    """The sensor that starts what `refresh_condition` asks for."""
    return dg.AutomationConditionSensorDefinition(
        "refresh",
        target=dg.AssetSelection.assets(*stages),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=LOOK_SECONDS,
        # One run per dataset, not one backfill over them: each stands and fails by itself.
        emit_backfills=False,
        use_user_code_server=True,  # the daemon does not know `OutdatedAtFirst`
        description="Starts a run for a dataset when its files, its dataset.yaml or a stage's code have changed since "
        "the last run, or a stage has no result: one run, of what is downstream of the change, once no other run "
        "of the dataset is under way. Acts only on datasets that have been run before (by hand or `hsae run`), "
        "on samples and new ones only with HSAE_REFRESH_NEW=1. Never repeats a failed run. Stopped until "
        "switched on, because runs may cost money.",
    )


@dg.schedule(
    job_name="analyse_dataset",
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="At 02:00 UTC, every dataset that has been run before: finished stages are kept, failed ones are tried "
    "again. Stopped until switched on.",
)
def nightly(context: dg.ScheduleEvaluationContext, folders: Project) -> Iterator[dg.RunRequest]:
    """Every dataset that someone has run before, or with HSAE_REFRESH_NEW=1 every dataset."""
    found, problems = scan(folders)
    for problem in problems:
        context.log.warning(problem)
    known = set(context.instance.get_dynamic_partitions(folders.partitions_name))
    for dataset, _ in found:
        ours = dg.RunsFilter(tags={"dagster/partition": dataset.name})
        if dataset.name in known and (folders.refresh_new or context.instance.get_runs(ours, limit=1)):
            day = context.scheduled_execution_time.date().isoformat()
            yield dg.RunRequest(run_key=f"{dataset.name} {day}", partition_key=dataset.name)


SECONDS = 60


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.STOPPED,
    job_name="analyse_dataset",
    description="Collects batches of paid models that have ended and goes on with the runs that waited for them. "
    "Stopped until switched on; without it, running the stage again collects as well.",
)
def batch_answers(context: dg.SensorEvaluationContext, folders: Project) -> dg.SensorResult | dg.SkipReason:
    """Batches that have ended are collected into the ledger, and their runs go on where they waited."""
    register = BatchRegister(folders.results)
    under_way = [record for record in register.all() if not record.collected]
    if not under_way:
        return dg.SkipReason("no batch is under way")
    from hsae_dagster.providers.openai.requests import server_of

    try:
        server = server_of(ServerFields(), "server", folders.model_server.environment)
        ended = [record for record in under_way if _collect(folders, register, record, server)]
    except HsaeError as error:
        return dg.SkipReason(f"{len(under_way)} batches are under way, but: {error}")
    left = {(record.dataset, record.stage) for record in register.all() if not record.collected}
    ready = {(r.dataset, r.stage): r for r in ended if (r.dataset, r.stage) not in left}
    if not ready:
        return dg.SkipReason(f"{len(under_way) - len(ended)} batches are under way")
    return dg.SensorResult(run_requests=[_request(folders, record) for record in ready.values()])


def _collect(project: Project, register: BatchRegister, record: BatchRecord, server: "Server") -> bool:
    from hsae_dagster.providers.openai.batch import collect, connected
    from hsae_dagster.providers.openai.client import run_sync
    from hsae_dagster.providers.replies import profile_of

    if record.server != server.endpoint:
        return False
    account = Account(Ledger(project.results), record.dataset, record.stage, record.run_id)

    async def look() -> bool:
        async with connected(server) as connection:
            return await collect(connection, server, record, account, profile_of(record.model), register)

    return run_sync(look())


def _request(project: Project, record: BatchRecord) -> dg.RunRequest:
    named = [dg.AssetKey.from_user_string(key) for key in record.selection or ()]
    selection = named or [project.key(record.stage)]
    return dg.RunRequest(
        run_key=record.batch_id,
        partition_key=record.dataset,
        asset_selection=selection,
        tags={".dagster/hsae_batch": record.batch_id},
    )


_MOST_AT_ONCE = 20  # verdicts of each check that one tick reads
_TIMEOUT = 10.0
_CONFIRMED = "confirmed"


@dataclass(frozen=True)
class News:
    """One notification: its kind (`check`, `verdict` or `freshness`), whose, a sentence, and where to look."""

    kind: str
    dataset: str
    text: str
    link: str


@dg.sensor(
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports failed checks, confirmed hypotheses that are no longer confirmed, and evaluations older than "
    "`freshness` in dataset.yaml, in its log and to HSAE_WEBHOOK if that is set. Starts nothing.",
)
def watch(context: dg.SensorEvaluationContext, folders: Project) -> dg.SkipReason:
    """Send each notification once. One that cannot be posted fails the tick and is sent again at the next.

    Raises:
        HsaeError: the address of the webhook is none, or nobody takes what is posted there.
    """
    seen = json.loads(context.cursor or "{}")
    failed, last = _failed_checks(context.instance, folders, seen.get("checks"))
    records = {name: record for name in folders.store.datasets() if (record := LineageLog(folders.store).latest(name))}
    news = failed
    for name, record in records.items():
        if seen and seen.get("evaluations", {}).get(name) != record.key:
            news += _verdicts(folders, record)
    overdue = dict(_overdue(folders, records))
    news += [each for name, each in overdue.items() if name not in seen.get("overdue", [])]
    for each in news:
        context.log.warning(each.text)
        if folders.webhook:
            _post(folders.webhook, each)
    evaluations = {name: record.key for name, record in records.items()}
    context.update_cursor(json.dumps({"checks": last, "evaluations": evaluations, "overdue": sorted(overdue)}))
    return dg.SkipReason(f"{len(news)} told" if news else "nothing to tell")


def _failed_checks(instance: dg.DagsterInstance, project: Project, after: float | None) -> tuple[list[News], float]:
    """News of checks that failed since a moment (none without one), and the moment of the last verdict."""
    found: list[tuple[float, News]] = []
    last = after or 0.0
    for asset, name in ((asset, name) for asset, own in CHECKS.items() for name in own):
        key = dg.AssetCheckKey(project.key(asset), name)
        # Of verdicts, not of events: the records of one machine hold events by run, and have no order among runs.
        for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=_MOST_AT_ONCE):
            event = record.event.dagster_event if record.event else None
            verdict = event.event_specific_data if event else None
            if record.event is None or not isinstance(verdict, dg.AssetCheckEvaluation):
                continue  # only planned so far
            last = max(last, record.event.timestamp)
            if after is not None and record.event.timestamp > after and not verdict.passed:
                found.append((record.event.timestamp, _of_check(verdict, instance.get_run_by_id(record.run_id))))
    return [news for _, news in sorted(found, key=lambda each: each[0])], last


def _of_check(verdict: dg.AssetCheckEvaluation, run: dg.DagsterRun | None) -> News:
    dataset = (run.tags.get("dagster/partition") if run else None) or ""
    values = {name: each.value for name, each in verdict.metadata.items()}
    plain = (f"{k} {v}" for k, v in values.items() if isinstance(v, str | int | float) and len(str(v)) <= 80)
    found = ", ".join(plain)
    how = "failed and stops what follows" if verdict.blocking else "did not pass"
    asset = verdict.asset_key.path[-1]
    text = f"{dataset}: the check `{verdict.check_name}` of `{asset}` {how}{f' ({found})' if found else ''}."
    return News("check", dataset, text, _address(verdict.asset_key, dataset))


def _verdicts(project: Project, record: EvaluationRecord) -> Iterator[News]:
    """Hypotheses that the evaluation before had confirmed and this one does not."""
    before = LineageLog(project.store).previous(record)
    if before is None:
        return
    changes = compare(*([Standing.of(row) for row in each.hypotheses] for each in (before, record)))
    for change in changes:
        if change.before is None or change.before.badge != _CONFIRMED:
            continue
        if change.after is not None and change.after.badge == _CONFIRMED:
            continue
        now = change.after.badge if change.after else "no longer among the hypotheses"
        claim = shorten(one_line(change.before.claim), 160)
        text = f"{record.dataset}: was confirmed and is {now} in evaluation {record.number}: {claim}."
        yield News("verdict", record.dataset, text, report_address(record.dataset))


def _overdue(
    project: Project, records: Mapping[str, EvaluationRecord], now: datetime | None = None
) -> Iterator[tuple[str, News]]:
    """Datasets whose last evaluation is older than they allow."""
    for dataset, _ in scan(project)[0]:
        record, days = records.get(dataset.name), dataset.spec.freshness
        if record is None or days is None:
            continue
        age = (now or datetime.now(UTC)) - datetime.fromisoformat(record.published)
        if age > timedelta(days=days):
            told = f"its last evaluation is {age.days} days old, and `freshness` allows {days:g}"
            link = _address(project.key("evaluation_report"), dataset.name)
            yield dataset.name, News("freshness", dataset.name, f"{dataset.name}: {told}.", link)


def _address(key: dg.AssetKey, dataset: str) -> str:
    return asset_address(key.to_user_string(), dataset, outside=True)


def _post(address: str, news: News) -> None:
    if urlsplit(address).scheme not in ("http", "https"):
        raise HsaeError("HSAE_WEBHOOK is not the address of a web server. Write it as https://…, or unset it.")
    body = json.dumps({**asdict(news), "text": f"{news.text} {news.link}"}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT):
            return
    except OSError as error:
        # Its address may hold a secret, so it is not repeated.
        raise HsaeError(
            f"HSAE_WEBHOOK does not accept the message: {error}. It is sent again at the next tick."
        ) from None
