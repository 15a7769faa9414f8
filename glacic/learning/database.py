"""Road 2, below the store: the SQLite file. Opened, checked, migrated; a connection per thread; one kind of error out.

WAL, so that who reads never waits for who writes, in this process or another; synchronous NORMAL, so that a crash of
the program loses nothing committed, and FULL where a power cut shall not either (`durable`). SQL comes in as SQLAlchemy
Core statements and is run on the driver's own connection: a lookup by a compiled statement costs a quarter of one
through SQLAlchemy's (measured: 3.8 us against 14).

Refuses to open what is another program's, or of a newer version; a read-only opening never creates or migrates.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement

from glacic.errors import StoreDamaged, StoreError
from glacic.learning.schema import APPLICATION_ID, MIGRATIONS, VERSION
from glacic.learning.statements import ROWS, Many

# How long a statement waits for another process's lock. A packet must not: its thread asks while others wait behind it.
READ_WAIT_S = 0.02
WRITE_WAIT_S = 1.0
READ_ONLY_WAIT_S = 2.0

# A checkpoint starts after this many pages of 4 KiB in the log (SQLite's own default), and the log file is cut back
# to that.
LOG_LIMIT_BYTES = 1000 * 4096

_DIALECT = sqlite.dialect(paramstyle="qmark")

Row = tuple[Any, ...]


def compile_sql(statement: ClauseElement) -> tuple[str, tuple[Any, ...]]:
    """A Core statement as SQLite text with `?`, and its values in order (None for those still to be given)."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = compiled.params
    return str(compiled), tuple(values[name] for name in compiled.positiontup or ())  # type: ignore[attr-defined]


class Database:
    """One SQLite file, open. Safe to use from many threads; writing is one thread's job."""

    def __init__(self, path: Path, *, read_only: bool = False, throw_away: bool = False) -> None:
        """Open `path`, creating and migrating it unless read_only. throw_away: do without the care for a crash.

        Raises StoreError: missing folder or file, no permission, not ours, newer than this program, damaged.
        """
        self.path = path
        self.read_only = read_only
        self._throw_away = throw_away
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._all_lock = threading.Lock()
        self._closed = False
        self.durable = False  # whether a commit waits for the disk
        self.damage = ""  # what SQLite said when it met a damaged page
        try:
            self._prepare()
            self._file = self._identity()
        except BaseException:
            self.close()
            raise

    @property
    def replaced(self) -> bool:
        """Whether another file has taken this one's place."""
        return self._identity() != self._file

    def connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Every row of a query.

        Read to the end on purpose: a cursor that is read half would hold this thread in an old snapshot.
        """
        try:
            return self.connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._refused("cannot be read", error) from error

    def select(self, statement: ClauseElement) -> list[Row]:
        """Every row of a Core query."""
        return self.rows(*compile_sql(statement))

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str | Many, Iterable[Sequence[Any]]], None]]:
        """All or nothing: yields `run(sql, rows)`, which runs a statement for every row.

        Raises StoreError, with everything rolled back.
        """
        try:
            connection = self.connection()
            connection.execute(f"PRAGMA busy_timeout = {int(WRITE_WAIT_S * 1000)}")
            if not self._throw_away:
                connection.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield lambda sql, rows: _run(connection, sql, rows)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._refused("cannot be written", error) from error

    def close(self) -> None:
        """Close every thread's connection. Nothing may be using them any more."""
        with self._all_lock:
            self._closed = True
            while self._all:
                self._all.pop().close()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _connect(self) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if self.read_only else 'rwc'}"
        wait_s = READ_ONLY_WAIT_S if self.read_only else READ_WAIT_S
        try:
            with self._all_lock:
                if self._closed:
                    raise StoreError(f"the flow database {self.path} has been closed")
                connection = sqlite3.connect(
                    uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False
                )
                self._all.append(connection)
            connection.execute(f"PRAGMA synchronous = {'OFF' if self._throw_away else 'NORMAL'}")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
            connection.execute("PRAGMA temp_store = MEMORY")  # a confined worker may make no temporary file
        except sqlite3.Error as error:
            raise self._refused("cannot be opened", error) from error
        return connection

    def _prepare(self) -> None:
        if not self.path.parent.is_dir():
            raise StoreError(
                f"the flow database {self.path} cannot be opened: there is no directory {self.path.parent}"
            )
        if self.path.is_dir():
            raise StoreError(f"the flow database {self.path} cannot be opened: that is a directory; name a file in it")
        if self.read_only:
            if not self.path.exists():
                raise StoreError(f"there is no flow database {self.path} yet; the service makes it when it starts")
            self._check(self._version())
            return
        try:
            make_private(self.path)
        except OSError as error:
            raise StoreError(
                f"the flow database {self.path} cannot be opened: {error.strerror}; the service must be allowed to"
                " write it and its directory"
            ) from error
        version = self._version()
        if version > VERSION:
            self._check(version)
        self._use_wal()
        if version < VERSION:
            self._migrate()

    def _version(self) -> int:
        """The version in the file; 0 for an empty one. Raises StoreError if it is another program's."""
        application, version, tables = self.rows(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),"
            " (SELECT count(*) FROM sqlite_master)"
        )[0]
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self.path} is another program's database; set `database` to a file of its own")
        return int(version)

    def _check(self, version: int) -> None:
        if version > VERSION:
            raise StoreError(
                f"the flow database {self.path} is of version {version}, and this program knows up to {VERSION}:"
                " a newer Glacic has used it; install that one again, or move the file away to begin anew"
            )
        if version < VERSION:
            raise StoreError(
                f"the flow database {self.path} is of the older version {version};"
                " starting the service brings it up to date"
            )

    def _use_wal(self) -> None:
        wait = f"PRAGMA busy_timeout = {int(WRITE_WAIT_S * 1000)}"
        self.rows(wait)
        mode = self.rows("PRAGMA journal_mode = WAL")[0][0]
        self.rows(f"PRAGMA busy_timeout = {int(READ_WAIT_S * 1000)}")
        if mode != "wal":
            raise StoreError(
                f"the flow database {self.path} cannot use a write-ahead log ({mode} instead);"
                " put it on a local file system"
            )

    def _migrate(self) -> None:
        with self.transaction() as run:
            version = self._version()  # asked under the lock: another process may have done it meanwhile
            if version > VERSION:
                self._check(version)
            for step in MIGRATIONS[version:]:
                for sql in step:
                    run(sql, [()])
            if version < VERSION:
                run(f"PRAGMA application_id = {APPLICATION_ID}", [()])
                run(f"PRAGMA user_version = {VERSION}", [()])

    def _refused(self, what: str, error: sqlite3.Error) -> StoreError:
        advice = {
            "database is locked": "; another program holds it",
            "database or disk is full": "; make room on its file system",
            "disk I/O error": "; look at its file system: the kernel's log, and whether it is read-only",
            "unable to open database file": "; look at its directory, and at the limit of open files",
            "attempt to write a readonly database": "; the service must be allowed to write it and its directory",
        }.get(str(error), "")
        if is_damage(error):
            self.damage = str(error)
            return StoreDamaged(
                f"the flow database {self.path} {what}: {error}; the service sets a damaged one aside when it starts,"
                " and recovers what it can; or move it away to begin anew"
            )
        return StoreError(f"the flow database {self.path} {what}: {error}{advice}")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is damaged, or is none of its own."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extended part
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def make_private(path: Path) -> None:
    """Make the file where there is none: who talks to whom is nobody's business. Raises OSError.

    What root makes in a directory of another user is that user's: the service that runs as it has to write it. SQLite
    does the same with the files beside it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner(path, descriptor)
    finally:
        os.close(descriptor)


def give_to_owner(path: Path, descriptor: int) -> None:
    """A file of root's becomes its directory's owner's, where this process is root's. Raises OSError."""
    folder = path.parent.stat()
    if os.geteuid() == 0 and folder.st_uid != 0 and os.fstat(descriptor).st_uid == 0:
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


def _run(connection: sqlite3.Connection, sql: str | Many, rows: Iterable[Sequence[Any]]) -> None:
    if isinstance(sql, Many):
        _run_many(connection, sql, rows)
    elif sql.startswith(("INSERT", "UPDATE", "DELETE")):
        connection.executemany(sql, rows)
    else:
        for values in rows:
            connection.execute(sql, values).close()


def _run_many(connection: sqlite3.Connection, sql: Many, rows: Iterable[Sequence[Any]]) -> None:
    values = list(chain.from_iterable(rows))
    at = 0
    for count in ROWS:
        text, size = sql.text(count), count * sql.width
        while len(values) - at >= size:
            connection.execute(text, values[at : at + size]).close()
            at += size
