"""`watch`: what is told, where, and that it is told once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest

from hsae_dagster.assets.automation import _overdue, watch
from hsae_dagster.dataset.discovery import files_fingerprint, load_dataset
from hsae_dagster.errors import HsaeError
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster_tests.assets.workspace import Workspace

# An error so small that nothing is confirmed any more.
STRICT = {"alpha": 1e-30, "min_positives": 5, "bootstrap": 20, "folds": 3, "same_concept": 1.1}


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server on loopback, its address and what was posted there."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
    finally:
        server.shutdown()
        server.server_close()


class Watch:
    """Ticks of the sensor on one instance."""

    def __init__(self, workspace: Workspace, instance: dg.DagsterInstance, address: str = "") -> None:
        self.workspace, self.instance, self.address, self.cursor = workspace, instance, address, None

    def tick(self) -> str:
        folders = self.workspace.given(webhook=self.address)
        with dg.build_sensor_context(self.instance, cursor=self.cursor, resources={"folders": folders}) as context:
            told = watch(context)
            assert isinstance(told, dg.SkipReason)
            self.cursor = context.cursor
        return told.skip_message or ""


@contextmanager
def lasting(folder: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose records are in a folder of its own."""
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield instance


def test_a_failed_check_and_a_lost_confirmation_are_told_once_and_what_was_before_is_not(
    copied: Workspace, tmp_path: Path
) -> None:
    with webhook() as (address, posted), lasting(tmp_path / "home") as instance:
        assert copied.run("ratings", "evaluation_report", instance=instance).success
        watching = Watch(copied, instance, address)
        assert watching.tick() == "nothing to tell"  # what there was when it was switched on is no news
        before = LineageLog(copied.store).latest("ratings")
        assert before is not None
        confirmed = [row["claim"] for row in before.hypotheses if row["badge"] == "confirmed"]
        assert confirmed
        copied.declare("ratings", None, inference=STRICT)
        run = copied.run("ratings", "evaluation_report", instance=instance)
        assert run.success, {step: run.sentence(step) for step in run.failures}
        told = watching.tick()
        kinds = [each["kind"] for each in posted]
        assert told == f"{len(posted)} told"
        assert kinds == ["verdict"] * len(confirmed)
        lost = [each["text"] for each in posted if each["kind"] == "verdict"]
        assert all(any(claim[:40] in text for text in lost) for claim in confirmed)
        assert all("was confirmed and is" in text and "/ratings.html" in text for text in lost)
        # So many texts are wanted for a test that no claim about one topic has them, and a check says so.
        copied.declare("ratings", None, inference=STRICT | {"alpha": 0.05, "min_positives": 45})
        run = copied.run("ratings", "interpretations", instance=instance)
        failed = {name for name, check in run.checks.items() if not check.passed}
        assert failed
        watching.tick()
        checks = [each["text"] for each in posted if each["kind"] == "check"]
        assert len(checks) == len(failed)
        assert all(any(f"`{name.split('.')[1]}`" in text for text in checks) for name in failed)
        assert watching.tick() == "nothing to tell"


def test_what_nobody_takes_is_an_error_and_told_again(copied: Workspace, tmp_path: Path) -> None:
    with lasting(tmp_path / "home") as instance:
        watching = Watch(copied, instance, "http://127.0.0.1:9/secret")
        watching.tick()
        copied.declare("ratings", None, inference=STRICT)
        assert copied.run("ratings", "evaluation_report", instance=instance).success
        cursor = watching.cursor
        with pytest.raises(HsaeError, match="HSAE_WEBHOOK") as refused:
            watching.tick()
        assert "secret" not in str(refused.value)
        assert watching.cursor == cursor
        with webhook() as (address, posted):
            watching.address = address
            watching.tick()
            assert posted
        watching.address = "file:///etc/passwd"
        with pytest.raises(HsaeError, match="not the address of a web server"):
            Watch.tick(_unseen(watching))


def _unseen(watching: Watch) -> Watch:
    """As if nothing had been told yet of the last evaluation."""
    seen = json.loads(watching.cursor or "{}")
    watching.cursor = json.dumps({**seen, "evaluations": {}})
    return watching


def test_an_evaluation_past_its_freshness_is_told_and_freshness_changes_no_result(copied: Workspace) -> None:
    before = files_fingerprint(load_dataset(copied.project.data, "ratings"))
    copied.declare("ratings", None, freshness=7)
    assert files_fingerprint(load_dataset(copied.project.data, "ratings")) == before
    records = {
        "ratings": LineageLog(copied.store).latest("ratings"),
        "parties": LineageLog(copied.store).latest("parties"),
    }
    assert all(records.values())
    now = datetime.now(UTC)
    assert dict(_overdue(copied.project, records, now + timedelta(days=6))) == {}
    ((name, news),) = _overdue(copied.project, records, now + timedelta(days=9))
    assert name == "ratings"
    assert "days old, and `freshness` allows 7" in news.text
