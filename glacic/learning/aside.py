"""Beside road 2: a flow database's files change places. A SQLite database is the file and its write-ahead log.

    set_aside   the database goes by another name, with its log; nothing is deleted but the oldest of many such
    set_aside_log   only the log is kept by another name, and the database goes on with what it can read of it
    put_there   a finished file takes the place of a database that was set aside
    finish      a file without a log is on disk, and private

A log must never meet a file that it does not belong to: SQLite would write its pages into that one. So the log goes
first, and the new file comes last, in one step (rename(2)). Refuses to look inside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from glacic.errors import StoreError
from glacic.learning.database import Database, make_private

KEPT = 3  # of each kind; each is as large as the database

DAMAGED = "damaged"
BEFORE_RESTORE = "before-restore"

T = TypeVar("T")


def beside(path: Path, ending: str) -> Path:
    """The file of that name and one more ending."""
    return path.with_name(path.name + ending)


def set_aside(path: Path, kind: str, now: datetime) -> Path:
    """Have the database also be named `<path>.<kind>-<UTC time>`, and its log only there. Returns that name.

    The file itself stays until put_there(). Older ones than the last KEPT of this kind go. Raises StoreError.
    """
    name = _name(path, kind, now)
    _tried(path, "set aside", lambda: _move(path, name))
    _forget_old(path, kind)
    return name


def set_aside_log(path: Path, kind: str, now: datetime) -> Path:
    """Keep a copy of the database's log as `<path>.<kind>-<UTC time>-wal`, and begin a new one. Returns that name
    without `-wal`. Raises StoreError."""
    name = _name(path, kind, now)

    def copy() -> None:
        make_private(beside(name, "-wal"))
        shutil.copyfile(beside(path, "-wal"), beside(name, "-wal"))

    _tried(path, "set aside", copy)
    with closing(Database(path)) as database:
        database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    _forget_old(path, kind)
    return name


def _name(path: Path, kind: str, now: datetime) -> Path:
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    name, number = beside(path, f".{kind}-{stamp}"), 1
    while name.exists() or beside(name, "-wal").exists():
        number += 1
        name = beside(path, f".{kind}-{stamp}-{number}")
    return name


def _forget_old(path: Path, kind: str) -> None:
    for old in kept(path, kind)[:-KEPT]:
        remove(old)


def kept(path: Path, kind: str) -> list[Path]:
    """What was set aside, the oldest first."""
    names = {file.name.removesuffix("-shm").removesuffix("-wal") for file in path.parent.iterdir()}
    return [path.with_name(name) for name in sorted(names) if name.startswith(f"{path.name}.{kind}-")]


def put_there(finished_file: Path, path: Path) -> None:
    """`finished_file` is the database from now on. Raises StoreError."""

    def put() -> None:
        beside(path, "-wal").unlink(missing_ok=True)
        beside(path, "-shm").unlink(missing_ok=True)
        finished_file.replace(path)
        _sync(path.parent)

    _tried(path, "replaced", put)


def finish(path: Path) -> None:
    """Have a closed database without a log on disk, and private. Raises StoreError."""

    def sync() -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _tried(path, "written", sync)


def remove(path: Path) -> None:
    """Remove a database of our own making that did not become one, with what belongs to it."""
    for ending in ("", "-wal", "-shm", "-journal"):
        beside(path, ending).unlink(missing_ok=True)


def _move(path: Path, name: Path) -> None:
    if beside(path, "-wal").exists():
        beside(path, "-wal").rename(beside(name, "-wal"))
    os.link(path, name)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tried(path: Path, what: str, do: Callable[[], T]) -> T:
    try:
        return do()
    except OSError as error:
        raise StoreError(f"the flow database {path} cannot be {what}: {error.strerror}") from error
