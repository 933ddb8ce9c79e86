"""One database of records for several processes and machines: an SQLite file that they share, and a real Postgres."""

import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from hsae_dagster.core.observations import Cuts
from hsae_dagster.errors import StorageError
from hsae_dagster.orchestration.project import Project
from hsae_dagster.providers.openai.batch import BatchRecord, BatchRegister
from hsae_dagster.providers.spending import INTENT, Ledger, as_row
from hsae_dagster.storage.files import bind
from hsae_dagster.storage.holdouts import Holdout, HoldoutRegister, SplitCuts
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import ObjectStore, StageInputs
from hsae_dagster.storage.records import CALLS, Document, Records, address_here, bind_records
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.live.processes import free_port
from hsae_dagster_tests.providers.accounts import account, body, client, echo, keep, silence
from hsae_dagster_tests.providers.loopback import Loopback
from hsae_dagster_tests.providers.test_ledger import entry
from hsae_dagster_tests.storage.test_holdouts import keys, looked, plan

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a Postgres server of this machine's own, up to the name of a database."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed (the extra `postgres`)")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or next((str(path) for path in reversed(debian)), None)
    if found is None:
        pytest.skip("no Postgres server is installed (on Debian: apt-get install postgresql)")
    binaries = Path(found).resolve().parent
    # Postgres refuses to run as root, and its user cannot enter pytest's folders.
    user = next((one.pw_name for one in pwd.getpwall() if one.pw_name == "postgres"), "nobody")
    other = {"user": user, "cwd": "/"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="hsae-postgres-"))
    if other:
        shutil.chown(folder, user)
    port, data = free_port(), folder / "data"

    def pg(*command: str) -> None:
        subprocess.run([str(binaries / command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL, **other)

    try:
        pg("initdb", "-D", str(data), "-U", "hsae", "-A", "trust", "--no-sync")
        listen = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        pg("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", listen, "-w", "start")
        try:
            yield f"postgresql://hsae:secret@127.0.0.1:{port}"
        finally:
            pg("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What HSAE_RECORDS is set to: an empty database."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path}/shared.sqlite"
    else:
        server, name = request.getfixturevalue("postgres"), f"records_{uuid.uuid4().hex}"
        administer(server, f"CREATE DATABASE {name}")
        address = f"{server}/{name}"
    os.environ["HSAE_RECORDS"] = address
    return address


def administer(server: str, statement: str) -> None:
    engine = sa.create_engine(f"{server}/postgres".replace("postgresql:", "postgresql+psycopg2:"))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def machines(address: str, tmp_path: Path) -> tuple[Path, Path]:
    """The results folders of two machines that share the database."""
    here, there = (bind_records(tmp_path / name, address_here()) for name in ("here", "there"))
    return here, there


def test_looks_of_two_machines_at_one_holdout_are_two_looks(machines: tuple[Path, Path]) -> None:
    here, there = (HoldoutRegister(folder) for folder in machines)
    first, second = plan(keys(), "a", "b"), plan(keys(400), "c")
    assert looked(here, keys(), first, a=0.01, b=0.2).number == 1
    assert there.spent(first.holdout) == 0.05
    look = looked(there, keys(400), second, c=0.3)
    assert (look.number, look.earlier) == (2, {first.test_key("a"): 0.01, first.test_key("b"): 0.2})
    assert looked(there, keys(), first, a=0.9).number == 1  # the same plan, evaluated elsewhere
    assert looked(here, keys(), plan(keys(), "z")).earlier[first.test_key("a")] == 0.01


def test_looks_of_processes_at_the_same_moment_have_an_order(machines: tuple[Path, Path]) -> None:
    code = """
import sys
from pathlib import Path
from hsae_dagster_tests.torture.together import open_looks
print(*open_looks(sys.argv[1], int(sys.argv[2])))
"""
    calls = [[sys.executable, "-c", code, str(folder), str(100 * n)] for n, folder in enumerate(machines)]
    running = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for call in calls]
    numbers = [int(number) for process in running for number in process.communicate(timeout=120)[0].split()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) == 40


def test_where_splits_end_is_one_record_for_all_machines(machines: tuple[Path, Path]) -> None:
    here, there = (SplitCuts(folder, "d", {"columns": "text"}) for folder in machines)
    rounds = [pl.DataFrame({"key": ks, "round": [1] * len(ks)}) for ks in (["x", "y"], ["y", "z"])]
    holdouts = (Holdout(1, "h1", 10, 5), Holdout(1, "h2", 10, 5))
    assert there.read() is None
    there.keep(Cuts(0.3, 0.5, 0.6), rounds[0], holdouts[0], {"f": None})
    here.keep(Cuts(0.4, 0.5, 0.6), rounds[1], holdouts[1], {})
    for record in (here.read(), there.read()):
        assert record is not None and record.holdouts == holdouts and record.made == {"f": None}
        assert record.cuts == Cuts(0.3, 0.5, 0.6)
        assert record.rounds["key"].sort().to_list() == ["x", "y", "z"]


def test_answers_of_one_machine_are_known_and_counted_on_another(machines: tuple[Path, Path]) -> None:
    here, there = machines
    with Loopback(echo) as loopback:
        client(loopback, account(here)).ask_all([body("a"), body("b")], silence)
        replies = client(loopback, account(there, budget_calls=3)).ask_all([body("b"), body("c")], silence)
        assert [reply.value["said"] for reply in replies] == ["b", "c"]
        assert len(loopback.calls) == 3
        with pytest.raises(Exception, match=r"budget_calls of 3 .3 made"):
            client(loopback, account(here, budget_calls=3)).ask_all([body("d")], silence)
    assert Ledger(here).spent("d").calls == 3


def test_any_character_comes_back_and_is_found_among_many(machines: tuple[Path, Path]) -> None:
    kept = entry("h1", answer="ä'\n\x00🙂\ud800", reason="\x00", model_echo="m-2026", request_id="req'1", seconds=1.5)
    others = [entry(f"{n:032x}") for n in range(12_000)]
    keep(machines[0], kept, *others)
    found = Ledger(machines[1]).find(["h1", *(each.request_hash for each in others)], "host/v1", "m")
    assert found["h1"] == kept and len(found) == 12_001
    Ledger(machines[1]).take_back([kept])
    assert Ledger(machines[0]).find(["h1"], "host/v1", "m") == {}
    assert Ledger(machines[0]).spent("d").calls == 12_001


def test_one_run_of_a_dataset_has_its_turn_on_any_machine_and_a_killed_one_gives_it_back(
    machines: tuple[Path, Path],
) -> None:
    code = """
import sys, time
from pathlib import Path
from hsae_dagster.providers.spending import Ledger
with Ledger(Path(sys.argv[1])).records.turn("d", lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code, str(machines[0])], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    told: list[float] = []

    def wait() -> float:
        with Ledger(machines[1]).records.turn("d", lambda: told.append(time.monotonic())):
            return time.monotonic()

    with Ledger(machines[1]).records.turn("another", lambda: told.append(0.0)), ThreadPoolExecutor(1) as pool:
        later = pool.submit(wait)
        time.sleep(1.0)
        assert len(told) == 1 and not later.done()
        killed = time.monotonic()
        os.kill(holder.pid, signal.SIGKILL)
        assert later.result(timeout=60) > killed
    assert holder.wait() == -signal.SIGKILL


def test_what_a_killed_process_had_committed_is_there_and_the_rest_is_not(machines: tuple[Path, Path]) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from hsae_dagster.providers.spending import CALLS, INTENT, Ledger, as_row
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.providers.test_ledger import entry
import sqlalchemy as sa
ledger = Ledger(Path(sys.argv[1]))
with ledger.records.open():
    keep(ledger.root, entry("a"))
    ledger.write([({**as_row(entry("b"), "b1"), "kind": INTENT}, None)])
    with ledger.records.writing() as records:
        records.execute(sa.insert(CALLS), [as_row(entry("c"))])
        os.kill(os.getpid(), signal.SIGKILL)
"""
    child = subprocess.run([sys.executable, "-c", code, str(machines[0])], check=False)
    assert child.returncode == -signal.SIGKILL
    ledger = Ledger(machines[1])
    assert set(ledger.find(["a", "b", "c"], "host/v1", "m")) == {"a"}
    assert (ledger.spent("d").calls, ledger.spent("d").lost) == (2, 1)
    ledger.write([(as_row(entry("b"), "b1"), "b1")])  # the answer in place of the intent
    assert (ledger.spent("d").calls, ledger.spent("d").lost) == (2, 0)


def test_a_transaction_that_fails_leaves_nothing(machines: tuple[Path, Path]) -> None:
    records = Records(machines[0])
    with pytest.raises(ZeroDivisionError), records.writing() as written:
        written.add(Document("look", "h", "p", {}))
        raise ZeroDivisionError
    with Records(machines[1]).reading() as found:
        assert found.all("look") == []


def test_a_new_file_is_whole_though_sqlite_cannot_empty_its_log(tmp_path: Path) -> None:
    # On a full disk SQLite leaves changes in the log, and says nothing. Here it does because somebody else reads.
    others: list[sqlite3.Connection] = []

    def read(connection: sa.Connection, *_: object) -> None:
        (_, _, file), *_ = connection.connection.cursor().execute("PRAGMA database_list")
        if Path(file) != tmp_path / "records.sqlite":  # the one that is being made
            others[:] = others or [sqlite3.connect(file)]
            others[0].execute("SELECT * FROM sqlite_master").fetchall()

    sa.event.listen(sa.Engine, "before_cursor_execute", read)
    try:
        with Records(tmp_path).writing():
            pass
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", read)
        others[0].close()
    with sqlite3.connect(tmp_path / "records.sqlite") as made:
        assert made.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert made.execute("SELECT count(*) FROM calls").fetchall() == [(0,)]
    made.close()


def test_batches_and_current_results_are_the_same_on_all_machines(machines: tuple[Path, Path]) -> None:
    here, there = (BatchRegister(folder) for folder in machines)
    record = BatchRecord(None, "d", "s", "r", "host/v1", "m", None, {"h": 3}, 0.5, selection=("hsae/s",))
    here.write(record)
    assert there.all() == there.all("d") == [record] and there.all("other") == []
    there.write(replace(record, batch_id="b1"))
    assert [each.batch_id for each in here.all()] == ["b1"]
    here.remove(record)
    assert there.all() == []
    stores = [ObjectStore(folder) for folder in machines]
    made = stores[0].build(StageInputs("stage", "1", {}, {}), "r", lambda folder: (folder / "a").write_bytes(b"a"))
    stores[0].point("d", made)
    assert stores[0].versions("d") == {"stage": made.data_version}
    assert stores[1].versions("d") == {}, "they share no objects"


def test_one_evaluation_is_recorded_once_by_however_many(
    finished: Finished, machines: tuple[Path, Path], tmp_path: Path
) -> None:
    copied = finished.workspace.copy_to(tmp_path / "copy")
    results = copied.project.results
    (record,) = LineageLog(copied.store).records("ratings")
    with copied.store.records.reading() as records:
        current = records.all("current result")
    (results / "records.sqlite").unlink()
    with Records(bind_records(results, address_here())).writing() as records:
        for pointer in current:
            records.put(pointer)
    stored = copied.current("ratings", "evaluation_report")

    def publish(_: int) -> int:
        read = copied.store.at(record.origins[0].place).inputs.config["files"]
        log = LineageLog(ObjectStore(results))
        return log.append("ratings", stored, record.summary, record.hypotheses, record.files, read).number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(publish, range(4))) == [1] * 4
    (again,) = LineageLog(Workspace(tmp_path / "copy").store).records("ratings")
    assert replace(again, published=record.published) == record


def test_no_password_is_kept_and_none_shown(machines: tuple[Path, Path], address: str) -> None:
    keep(machines[0], entry("a"))
    assert "secret" not in (machines[0] / "records.url").read_text(encoding="utf-8")
    assert "secret" not in Records(machines[0]).place + Project.here().records_url
    if address.startswith("postgresql"):
        gone = f"{address.rsplit('/', 1)[0]}/nowhere"
        os.environ["HSAE_RECORDS"] = gone
        elsewhere = bind_records(machines[0].with_name("new"), address_here())
        with pytest.raises(
            StorageError, match=r'nowhere cannot be read or written.*"nowhere" does not exist'
        ) as caught:
            Ledger(elsewhere).spent("d")
        assert "secret" not in str(caught.value)


def test_a_folder_keeps_to_its_database(tmp_path: Path) -> None:
    os.environ["HSAE_RECORDS"] = f"sqlite:///{tmp_path}/first.sqlite"
    folder = bind_records(tmp_path / "results", address_here())
    looked(HoldoutRegister(folder), keys(), plan(keys(), "a"))
    os.environ["HSAE_RECORDS"] = f"sqlite:///{tmp_path}/second.sqlite"
    with pytest.raises(
        StorageError, match=r"belong to sqlite:.*first\.sqlite, and HSAE_RECORDS names .*second\.sqlite"
    ):
        bind_records(folder, address_here())
    del os.environ["HSAE_RECORDS"]  # forgotten settings lose no look
    assert looked(HoldoutRegister(folder), keys(), plan(keys(), "b")).number == 2
    own = tmp_path / "own"
    looked(HoldoutRegister(own), keys(), plan(keys(), "a"))
    with pytest.raises(StorageError, match=r"worked in without it .records\.sqlite.*would not know of looks"):
        bind_records(own, "postgresql://host/name")


@pytest.mark.parametrize("address", ["mysql://host/name", "nonsense"])
def test_what_is_no_address_of_postgres_is_a_sentence(address: str) -> None:
    os.environ["HSAE_RECORDS"] = address
    with pytest.raises(StorageError, match=r"Write postgresql://user:password@host/name"):
        address_here()


def test_a_store_of_several_machines_needs_a_database_of_theirs(tmp_path: Path) -> None:
    bind(tmp_path, "s3://bucket/study")
    with pytest.raises(StorageError, match=r"HSAE_RECORDS is not set.*need one database.*Set HSAE_RECORDS"):
        Ledger(tmp_path)


def test_processes_that_write_first_at_the_same_time_make_one_file(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from hsae_dagster_tests.providers.accounts import keep
from hsae_dagster_tests.providers.test_ledger import entry
rows = [entry(sys.argv[2])]
time.sleep(max(0.0, float(sys.argv[3]) - time.time()))
keep(Path(sys.argv[1]), *rows)
"""
    at = str(time.time() + 8)
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name, at]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert set(Ledger(tmp_path).find("abcd", "host/v1", "m")) == set("abcd")
    assert [path.name for path in tmp_path.iterdir()] == ["records.sqlite"], "nothing beside it is left"


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"")
    with pytest.raises(StorageError, match=r"records\.sqlite are damaged: no such table.*Restore"):
        Ledger(tmp_path).spent("d")
    (tmp_path / "records.sqlite").write_bytes(b"x" * 8192)
    with pytest.raises(StorageError, match=r"records\.sqlite are damaged: file is not a database.*Restore"):
        HoldoutRegister(tmp_path).spent("h")


@pytest.mark.parametrize("value", ["x'00'", "'many'"])
def test_a_value_that_no_column_of_its_kind_can_hold_is_a_sentence(tmp_path: Path, value: str) -> None:
    ledger = Ledger(tmp_path)
    keep(ledger.root, entry("a"))
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute(f"UPDATE calls SET input_tokens = {value}")
    connection.close()
    for ask in (lambda: ledger.spent("d"), lambda: ledger.find(["a"], "host/v1", "m")):
        with pytest.raises(StorageError, match=r"records\.sqlite are damaged: the column input_tokens.*Restore"):
            ask()


def test_a_file_that_was_removed_is_not_written_to_in_secret(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    keep(ledger.root, entry("a"))
    (tmp_path / "records.sqlite").unlink()
    keep(ledger.root, entry("b"))
    assert set(Ledger(tmp_path).find("ab", "host/v1", "m")) == {"b"}
    with ledger.records.reading() as records:
        assert [row["kind"] for row in records.rows(sa.select(CALLS.c.kind))] != [INTENT]
