"""What the faults of the database share: a small file system of its own for the state, another program that holds the
file's lock, bytes of the file that are not what was written."""
# ruff: noqa: S603, S607 -- mount(8) and umount(8), as an administrator's shell finds them

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

from faults.bed import Bed

SIZE_MIB = 24
_PAGE = 4096


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """The state directory below this folder is a file system of its own, in memory."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}M,mode=0700", "tmpfs", str(state)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(at: Bed) -> None:
    """Not a byte is left on that file system."""
    with contextlib.suppress(OSError), (at.glacic.state_dir / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(_PAGE))


def empty(at: Bed) -> None:
    """Room again."""
    (at.glacic.state_dir / "filler").unlink()


def remount(at: Bed, how: str) -> None:
    """That file system as "ro" or "rw". Files that are open for writing would keep it busy: "ro" is done by force."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(at.glacic.state_dir)], check=True)


class Lock:
    """Another program that holds the database's write lock."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None

    def take(self, at: Bed) -> None:
        """From now on."""
        self._connection = sqlite3.connect(
            at.glacic.database, isolation_level=None, timeout=30, check_same_thread=False
        )
        self._connection.execute("BEGIN EXCLUSIVE")

    def give(self, _: Bed) -> None:
        """Until now."""
        if self._connection is not None:
            self._connection.execute("ROLLBACK")
            self._connection.close()


def scribble(database: Path, *, keep_first: bool) -> None:
    """Every page of the file but the first (or that one alone) is overwritten with what is none."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        if keep_first:
            for at in range(_PAGE, size, _PAGE):
                file.seek(at)
                file.write(b"\xa5" * min(_PAGE // 2, size - at))
        else:
            file.write(b"\xa5" * _PAGE)
        os.fsync(file.fileno())
