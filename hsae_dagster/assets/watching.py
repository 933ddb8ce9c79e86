"""Telling people: a check failed, a confirmed hypothesis is confirmed no more, an evaluation is too old."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from hsae_dagster.assets.automation import LOOK_SECONDS
from hsae_dagster.assets.catalog import scan
from hsae_dagster.core.evaluations import EvaluationRecord, Standing, compare
from hsae_dagster.errors import HsaeError
from hsae_dagster.orchestration.checks import CHECKS
from hsae_dagster.orchestration.project import Project
from hsae_dagster.report.page import asset_address, dagster_root, report_address, ui_root
from hsae_dagster.report.wording import one_line, shorten
from hsae_dagster.storage.lineage import LineageLog

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
    found = ", ".join(f"{name} {value.value}" for name, value in verdict.metadata.items() if _is_plain(value.value))
    how = "failed and stops what follows" if verdict.blocking else "did not pass"
    asset = verdict.asset_key.path[-1]
    text = f"{dataset}: the check `{verdict.check_name}` of `{asset}` {how}{f' ({found})' if found else ''}."
    return News("check", dataset, text, _address(verdict.asset_key, dataset))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= 80


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
    return dagster_root() + asset_address(key.to_user_string(), dataset).removeprefix(ui_root())


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
