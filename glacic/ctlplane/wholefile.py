"""Files of the state directory: replaced as a whole, one writer at a time, and owned by whom the directory belongs to.

A service's user and root's command line both write there. Refuses to know what is in a file.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glacic.errors import GlacicError


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file as a whole, on disk when this returns: a power cut leaves the old one or the new one.

    It belongs to whom its folder belongs to. Raises GlacicError.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        like_its_folder(fresh)
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise GlacicError(f"cannot write {path}: {error.strerror}; make room, or see to its rights") from None


def like_its_folder(path: Path) -> None:
    """Root's command line works in a folder of the service's user: what it makes there belongs to that user."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        with suppress(OSError):
            shutil.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold a lock that others hold for a moment only. Raises GlacicError, also where one stands still with it."""
    try:
        lock = path.open("a")
    except OSError as error:
        raise GlacicError(f"cannot write {path}: {error.strerror}; be root, or see to its rights") from None
    with lock:
        like_its_folder(path)
        ends = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends:
                    raise GlacicError(f"another glacic holds {path} for {wait_s:g} s already; try again") from None
                time.sleep(0.01)
        yield
