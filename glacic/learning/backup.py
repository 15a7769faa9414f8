"""Beside road 2: a flow database into one file, and back.

    backup    a copy as of one moment, while others write: one read transaction, copied in steps with pauses, so that
              nobody on this machine waits; checked before it gets its name
    prepare   a backup, checked and brought up to date, as a finished file beside the database
    swap      that file is the database from now on; what it replaces is kept (aside.py)

A backup is one SQLite file without a log, mode 0600. Refuses to overwrite a file unasked, and to take for a backup what
is damaged, another program's or a newer version's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from glacic.errors import StoreError
from glacic.learning import aside
from glacic.learning.database import Database
from glacic.learning.integrity import open_read_only

STEP_PAGES = 500  # 2 MB: some 3 ms of copying, and then
PAUSE_S = 0.002  # others have the disk and the processor

RESTORING = ".restoring"  # what a prepared file is called, beside the database


def backup(database: Path, target: Path, *, force: bool = False) -> int:
    """Copy the flow database into the new file `target`. Returns how many flows are in it. Raises StoreError.

    force: a file of that name is replaced, in one step.
    """
    if target.is_dir():
        raise StoreError(f"cannot write {target}: that is a directory; name a file in it")
    if target.exists() and not force:
        raise StoreError(f"{target} is there already; --force replaces it")
    part = aside.beside(target, f".{os.getpid()}")
    try:
        with closing(Database(database, read_only=True)):
            pass  # it is a flow database, of this program's version
        _copy(database, part)
        flows = check(part)
        aside.finish(part)
        _name(part, target, force=force)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"cannot back up {database} to {target}: {error}") from error
    finally:
        aside.remove(part)
    return flows


def prepare(source: Path, database: Path) -> int:
    """Put a finished copy of the backup `source` beside the database. Returns how many flows it has. Raises StoreError,
    and leaves nothing.

    `source` stays as it is; one of an older version is brought up to date in the copy.
    """
    prepared = aside.beside(database, RESTORING)
    aside.remove(prepared)
    if not source.is_file():
        raise StoreError(f"cannot restore {source}: there is no such file")
    try:
        _copy(source, prepared)
        with closing(Database(prepared)) as copy:
            copy.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        flows = check(prepared)
        aside.finish(prepared)
    except (OSError, sqlite3.Error) as error:
        aside.remove(prepared)
        raise StoreError(f"cannot restore {source}: {error}") from error
    except StoreError as error:
        aside.remove(prepared)
        raise StoreError(f"cannot restore {source}: {error}") from error
    return flows


def swap(database: Path) -> Path | None:
    """Have the prepared file be the database, which nobody has open for writing. Returns what the replaced one is
    called now, None where there was none. Raises StoreError."""
    prepared = aside.beside(database, RESTORING)
    if not prepared.exists():
        raise StoreError(f"nothing was prepared to take the place of {database}: use `glacic restore`")
    replaced = aside.set_aside(database, aside.BEFORE_RESTORE, datetime.now(UTC)) if database.exists() else None
    aside.put_there(prepared, database)
    return replaced


def check_prepared(database: Path) -> int:
    """check() of the prepared file: whoever swaps trusts nobody. Raises StoreError."""
    return check(aside.beside(database, RESTORING))


def check(path: Path) -> int:
    """How many flows are in a database of this version, every page and index of which is sound. Raises StoreError."""
    with closing(Database(path, read_only=True)) as database:
        found = [str(row[0]) for row in database.rows("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise StoreError(f"{path} is damaged: {found[0] if found else 'it cannot be checked'}")
        return int(database.rows("SELECT count(*) FROM flow")[0][0])


def _copy(source: Path, target: Path) -> None:
    """As of one moment, into a file without a log. Raises OSError, sqlite3.Error."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(open_read_only(source)) as old, closing(sqlite3.connect(target, isolation_level=None)) as new:
        new.execute("PRAGMA synchronous = OFF")  # it is synced when it is whole
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchall()  # from here on, whatever others write
        old.backup(new, pages=STEP_PAGES, progress=lambda *_: time.sleep(PAUSE_S))
        new.execute("PRAGMA journal_mode = DELETE").fetchall()


def _name(part: Path, target: Path, *, force: bool) -> None:
    if force:
        part.replace(target)
    else:
        os.link(part, target)  # fails where somebody has made one meanwhile
