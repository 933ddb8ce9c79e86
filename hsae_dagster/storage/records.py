"""The records of a project, in one database: an SQLite file in its results folder, or what HSAE_RECORDS names.

What paid models answered and cost is the table `calls`; looks at holdouts, ends of splits, batches under way and
evaluations are documents. A transaction is there whole or not at all, whenever a process is killed.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_bytes, hash_json
from hsae_dagster.storage.files import Shared, bound, locked, sync

FILE, VARIABLE = "records.sqlite", "HSAE_RECORDS"
# The file of a results folder that names its database, where that is not the SQLite file in it.
BINDING = "records.url"
# So long a process waits for another one's transaction in an SQLite file.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_ONE_AT_A_TIME = 4_927_301
# What SQLite says of a place that it may not or cannot use, rather than of a damaged file.
_PLACE = ("BUSY", "LOCKED", "FULL", "READONLY", "CANTOPEN", "IOERR", "PERM", "AUTH")

METADATA = sa.MetaData()
CALLS = sa.Table(
    "calls",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("request_hash", "kind", "dataset", "stage", "run_id")),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("server", "model", "tier", "seal")),
    # What a server said is JSON, which also has the characters that Postgres does not take.
    *(sa.Column(name, sa.Text) for name in ("prompt_hash", "answer", "parsed", "reason", "model_echo", "request_id")),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("sent_bytes", "input_tokens", "cached_tokens")),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("output_tokens", "created")),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("cost_usd", sa.Double),
    sa.Index("calls_by_request", "request_hash"),
    sa.Index("calls_by_dataset", "dataset"),
)
DOCUMENTS = sa.Table(
    "documents",
    METADATA,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("kind", "subject", "name")),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary),
    sa.Column("seal", sa.Text, nullable=False),
)


@dataclass(frozen=True)
class Document:
    """A record that is no call: its kind, whose it is, its name (in whose order they are), JSON-like and other data."""

    kind: str
    subject: str
    name: str
    body: dict[str, Any]
    data: bytes | None = None


class Transaction:
    """What is read and written together. What is read and not what was written raises StorageError."""

    def __init__(self, connection: sa.Connection | None, place: str) -> None:
        self._connection, self._place = connection, place

    def rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        """Rows that a query of columns finds, by column; none in a database that nobody has written to."""
        if self._connection is None:
            return []
        found = [dict(row) for row in self._connection.execute(query).mappings()]
        for name, column in query.selected_columns.items():
            kinds = (column.type.python_type, *((type(None),) if column.nullable else ()))
            if not all(isinstance(row[name], kinds) for row in found):  # SQLite lets any value be in any column
                raise StorageError(_damaged(self._place, f"the column {name} has a value that was not written"))
        return found

    def execute(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Carry out an insertion, a change or a removal, once for each of `rows` if there are any."""
        assert self._connection is not None  # only a transaction that writes calls this
        self._connection.execute(statement, rows)

    def get(self, kind: str, subject: str, name: str) -> Document | None:
        """A document, or None."""
        return next(iter(self._found(_documents(kind, subject).where(DOCUMENTS.c.name == name))), None)

    def need(self, kind: str, subject: str, name: str) -> Document:
        """A document that another one says is there."""
        found = self.get(kind, subject, name)
        if found is None:
            raise StorageError(_damaged(self._place, f"the {kind} {name} of {subject} is gone"))
        return found

    def all(self, kind: str, subject: str | None = None, *, sound: bool = False) -> list[Document]:
        """Documents of a kind, of one subject or of all, by subject and name; with `sound` without damaged ones."""
        return self._found(_documents(kind, subject).order_by("subject", "name"), sound=sound)

    def last(self, kind: str, subject: str) -> Document | None:
        """The document of the last name, or None."""
        return next(iter(self._found(_documents(kind, subject).order_by(DOCUMENTS.c.name.desc()).limit(1))), None)

    def subjects(self, kind: str) -> list[str]:
        """Subjects that have a document of a kind, sorted."""
        query = sa.select(DOCUMENTS.c.subject).where(DOCUMENTS.c.kind == kind).distinct()
        return sorted(row["subject"] for row in self.rows(query))

    def add(self, document: Document) -> None:
        """Write a document unless there is one of its name: the first writing stays."""
        if not self.rows(sa.select(DOCUMENTS.c.seal).where(*_named(document))):
            self.put(document)

    def put(self, document: Document) -> None:
        """Write a document in place of what has its name."""
        row = {**vars(document), "body": json.dumps(document.body, allow_nan=False)}
        self.remove(document)
        self.execute(sa.insert(DOCUMENTS), [{**row, "seal": _seal(row)}])

    def remove(self, document: Document) -> None:
        """Forget a document."""
        self.execute(sa.delete(DOCUMENTS).where(*_named(document)))

    def check(self) -> None:
        """Have SQLite compare its documents with their index, so that none is missed where they are counted."""
        if self._connection is not None and self._connection.dialect.name == "sqlite":
            found = self._connection.exec_driver_sql("PRAGMA integrity_check(documents)").scalars().all()
            if found != ["ok"]:
                raise StorageError(_damaged(self._place, str(found[0])))

    def _found(self, query: sa.Select[Any], *, sound: bool = False) -> list[Document]:
        found = []
        for row in self.rows(query):
            if row.pop("seal") == _seal(row):
                found.append(Document(**{**row, "body": json.loads(row["body"])}))
            elif not sound:
                named = f"the {row['kind']} {row['name']} of {row['subject']} is not what was written"
                raise StorageError(_damaged(self._place, named))
        return found


class Records:
    """The database of one results folder. Where it is damaged or cannot be used, everything raises StorageError.

    Raises:
        StorageError: the folder belongs to a store, and has no database that all machines share.
    """

    def __init__(self, root: Path) -> None:
        self._url = _address(root)
        self._path = Path(str(self._url.database)) if self._url.get_backend_name() == "sqlite" else None
        self.place = str(self._path or _plain(self._url))

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A transaction that sees one moment. Creates nothing."""
        if self._path is not None and not self._path.exists():
            yield Transaction(None, self.place)
            return
        with self._connected("BEGIN") as connection:
            yield Transaction(connection, self.place)

    @contextmanager
    def writing(self, *, alone: bool = True) -> Iterator[Transaction]:
        """A transaction that is kept if it ends without an error.

        With `alone` no other one of these overlaps, on any machine. Otherwise it is quicker, for rows that depend on no
        others; a power cut may take the last of them away.
        """
        self._prepare()
        with self._connected(*(() if alone else ("PRAGMA synchronous=NORMAL",)), "BEGIN IMMEDIATE") as connection:
            if alone and self._path is None:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
            yield Transaction(connection, self.place)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have many transactions be quicker: whoever closes an SQLite file last clears up after all of them."""
        self._prepare()
        if self._path is None:
            yield
            return
        with self._connected("BEGIN") as connection:
            connection.exec_driver_sql("SELECT 1 FROM calls LIMIT 1")
            connection.commit()
            yield

    @contextmanager
    def turn(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a name that no other process does meanwhile, on any machine; that of a killed process is free.

        `waiting` is called once if another process holds it.
        """
        if self._path is not None:
            with locked(self._path.parent / "locks" / name, waiting):
                yield
            return
        key = int.from_bytes(bytes.fromhex(hash_json(name)[:16]), signed=True)
        held, told = sa.select(sa.func.pg_try_advisory_lock(key)), False
        # A session of its own, whose end is the end of the lock.
        with self._explained(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not connection.scalar(held):
                if not told:
                    waiting()
                told = True
                time.sleep(_LOOK_SECONDS)
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))

    def _prepare(self) -> None:
        """Create the file before anything is written."""
        with self._explained():
            if self._path is not None and not self._path.exists():
                _create(self._path)

    @contextmanager
    def _connected(self, *begin: str) -> Iterator[sa.Connection]:
        with self._explained(), self._engine.connect().execution_options(begin=begin) as opened, opened.begin():
            yield opened

    @property
    def _engine(self) -> sa.Engine:
        # Not shared with a fork, which would speak on the same connections.
        return _engine(self._url, os.getpid())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """The database's errors as sentences; other errors of whoever uses it pass."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            said = " ".join(str(error.orig).split())[:300]
            if self._path and not getattr(error.orig, "sqlite_errorname", "")[len("SQLITE_") :].startswith(_PLACE):
                raise StorageError(_damaged(self.place, said)) from error
            raise StorageError(
                f"The records {self.place} cannot be read or written: {said}. Make sure that they can be reached, that "
                f"you may write there and that there is room (of several machines, {VARIABLE} names one Postgres "
                "database), and run again; what was written before is kept."
            ) from error
        except ModuleNotFoundError as error:
            raise StorageError(
                f"The records {self.place} need {error.name}. Install it with `pip install -e '.[postgres]'` here and "
                "on every worker."
            ) from error


def address_here() -> str:
    """What HSAE_RECORDS names, without the user and the password in it; empty where it is not set.

    Raises:
        StorageError: it is no address of a database that can hold records.
    """
    named = os.environ.get(VARIABLE, "")
    return _plain(_parsed(named)) if named else ""


def bind_records(results: Path, address: str) -> Path:
    """Have the records of a results folder be in the database at `address`, for good; returns the folder. As `bound`.

    The address is as `address_here` gives it; empty for what the folder is bound to, or the file in it.
    """
    return bound(results, BINDING, VARIABLE, address, (FILE,))


def _address(root: Path) -> sa.URL:
    """Where the records of a results folder are."""
    if (root / BINDING).is_file():
        known, named = (root / BINDING).read_text(encoding="utf-8").strip(), os.environ.get(VARIABLE, "")
        # What else it takes, libpq finds where it always does (PGPASSWORD, ~/.pgpass).
        return _parsed(named if named and address_here() == known else known)
    if Shared.of(root) is not None:
        raise StorageError(
            f"The results in {root} belong to a store, and {VARIABLE} is not set: looks at holdouts and paid answers "
            f"of several machines need one database. Set {VARIABLE} to postgresql://user:password@host/name; or to "
            "sqlite:////path/records.sqlite where this machine alone writes there."
        )
    return sa.URL.create("sqlite", database=str(root / FILE))


def _parsed(address: str) -> sa.URL:
    with suppress(sa.exc.ArgumentError):
        url = sa.make_url(address)
        if url.get_backend_name() in ("sqlite", "postgresql"):
            return url.set(drivername="postgresql+psycopg2") if url.drivername == "postgresql" else url
    raise StorageError(f"{VARIABLE} is no address of a Postgres database. Write postgresql://user:password@host/name.")


def _plain(url: sa.URL) -> str:
    return url.set(drivername=url.get_backend_name(), username=None, password=None, query={}).render_as_string()


@lru_cache(maxsize=16)
def _engine(url: sa.URL, process: int) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=2)
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
            METADATA.create_all(connection)
        return engine
    # A connection for each transaction: one that is kept would go on writing to a file that was removed meanwhile.
    patience = {"timeout": PATIENCE_SECONDS}
    engine = sa.create_engine(url, hide_parameters=True, poolclass=sa.NullPool, connect_args=patience)

    @sa.event.listens_for(engine, "connect")
    def plainly(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` says, not where the driver thinks
        connection.text_factory = lambda data: data.decode("utf-8", "replace")  # seals tell what is damaged

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        for statement in connection.get_execution_options()["begin"]:
            connection.exec_driver_sql(statement)

    return engine


def _create(path: Path) -> None:
    """An empty database, whole or not at all: two processes may come at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as aside:
        new = Path(aside) / path.name
        url = sa.URL.create("sqlite", database=str(new))
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            # The other way round tables are in a log beside the file first, and on a full disk they stay there.
            METADATA.create_all(connection)
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with suppress(FileExistsError):
            os.link(new, path)  # fails where a rename would silently replace
    sync(path.parent)


def _damaged(place: str, cause: str) -> str:
    return (
        f"The records {place} are damaged: {cause}. Restore them from a copy of the results folder. Without one, "
        "remove them: what paid models answered is then asked, and paid, again, splits may end elsewhere, and looks "
        "at holdouts are counted from one, which a paper has to say."
    )


def _documents(kind: str, subject: str | None) -> sa.Select[Any]:
    query = sa.select(DOCUMENTS).where(DOCUMENTS.c.kind == kind)
    return query if subject is None else query.where(DOCUMENTS.c.subject == subject)


def _named(document: Document) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(DOCUMENTS.c[name] == getattr(document, name) for name in ("kind", "subject", "name"))


def _seal(row: Mapping[str, Any]) -> str:
    data = None if row["data"] is None else hash_bytes(row["data"])
    return hash_json([row["kind"], row["subject"], row["name"], row["body"], data])
