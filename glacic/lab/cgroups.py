"""The lab, cgroups: a slice of the machine's own cgroup2 hierarchy that is a test's alone, and goes with it.

    with hierarchy() as found, Slice(found) as slice:
        slice.make("backup.service")
        host.popen(slice.command("backup.service", [sys.executable, "-c", CODE]))

What lies below is named as units are, so that limits find it by those names. A machine whose hierarchy is not mounted
gets it mounted for as long as the block lasts. Refuses to touch any cgroup that it has not made.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from glacic.errors import GlacicError, LabError
from glacic.lab.ending import owner_is_dead
from glacic.shaping import cgroups
from glacic.shaping.cgroups import Hierarchy
from glacic.shaping.engine import Cgroup

PREFIX = "glaciclab"
PATIENCE_S = 20.0
_serial = itertools.count(1)

# Puts itself into the cgroup of argv[1] before it opens anything, and becomes the rest.
_ENTER = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def hierarchy() -> Iterator[Hierarchy]:
    """The machine's hierarchy, or one mounted for the block. Raises LabError."""
    try:
        found = cgroups.find()
    except GlacicError:
        found = None
    if found is not None:
        yield found
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory(prefix="glacic-cgroup2-") as place:
        if libc.mount(b"none", place.encode(), b"cgroup2", 0, None) != 0:
            raise LabError(f"cannot mount cgroup2: {os.strerror(ctypes.get_errno())}; limits need it")
        try:
            yield Hierarchy(Path(place))
        finally:
            libc.umount(place.encode())


class Slice:
    """A slice in the root. Leaving the block ends the processes below and removes it."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.name = f"{PREFIX}-{os.getpid()}-{next(_serial)}.slice"
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        _sweep(self.hierarchy.mount)
        self.make("")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in reversed(self._made):
            with suppress(FileNotFoundError):
                _remove(place)

    def path(self, name: str) -> str:
        """Relative to the mount."""
        return f"{self.name}/{name}" if name else self.name

    def place(self, name: str) -> Path:
        """Its directory."""
        return self.hierarchy.mount / self.path(name)

    def make(self, name: str) -> Cgroup:
        """A cgroup below; "" is the slice itself. Raises OSError."""
        self.place(name).mkdir()
        self._made.append(self.place(name))
        return self.found(name)

    def found(self, name: str) -> Cgroup:
        """One that is there."""
        cgroup = self.hierarchy.cgroup(self.path(name))
        if cgroup is None:
            raise LabError(f"there is no cgroup {self.path(name)}")
        return cgroup

    def remove(self, name: str) -> None:
        """With the processes in it."""
        _remove(self.place(name))
        self._made.remove(self.place(name))

    def remake(self, name: str) -> Cgroup:
        """What a restart of a unit does: the same path, another cgroup."""
        self.remove(name)
        return self.make(name)

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """The same command, to be started in that cgroup."""
        return [sys.executable, "-c", _ENTER, str(self.place(name)), *command]


def _sweep(mount: Path) -> None:
    """Remove what dead processes left behind."""
    for left in mount.glob(f"{PREFIX}-*.slice"):
        if owner_is_dead(left.name.removeprefix(f"{PREFIX}-").removesuffix(".slice")):
            for place in sorted((path for path in [left, *left.rglob("*")] if path.is_dir()), reverse=True):
                _remove(place)


def _remove(place: Path) -> None:
    ends = time.monotonic() + PATIENCE_S
    while True:
        for pid in (place / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            place.rmdir()
        except OSError:  # they are ending
            if time.monotonic() > ends:
                raise
            time.sleep(0.002)
        else:
            return
