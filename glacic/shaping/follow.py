"""Limits, step 1, continued: which cgroups come and go, by inotify(7) on the directories that units lie in.

    the root, and slices in slices    units come and go there
    what leads to a cgroup that a limit names by its path

Nothing else is watched: below a service or a scope users and containers make cgroups as they like, and as many. A
removed cgroup that comes back has another id; the kernel tells both events, in order. Where it had to drop events, the
tree is read anew. Four calls by ctypes: a library for that would be one more to trust and to ship.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Any

from glacic.errors import GlacicError
from glacic.shaping.cgroups import Hierarchy, holds_units
from glacic.shaping.engine import Cgroup

# linux/inotify.h
_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO = 0x100, 0x200, 0x40, 0x80
_OVERFLOW, _IGNORED, _IS_DIRECTORY = 0x4000, 0x8000, 0x4000_0000
_ONLY_DIRECTORY, _DONT_FOLLOW, _EXCLUDE_UNLINKED = 0x0100_0000, 0x0200_0000, 0x0400_0000
_MASK = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _ONLY_DIRECTORY | _DONT_FOLLOW | _EXCLUDE_UNLINKED
_EVENT = struct.Struct("=iIII")  # inotify_event: watch, mask, cookie, length of the name that follows
_BUFFER = 1 << 16  # bytes


class Follower:
    """The tree of cgroups as it is, path -> cgroup, kept true by `read`. Not thread-safe.

    targets: paths of cgroups whose ways are watched besides the units. Raises GlacicError."""

    def __init__(self, hierarchy: Hierarchy, targets: Iterable[str] = ()) -> None:
        self._hierarchy = hierarchy
        self._ways = {str(above) for target in targets for above in PurePosixPath(target).parents} - {"."}
        self._watches: dict[int, str] = {}
        self.tree: dict[str, Cgroup] = {}
        self._descriptor = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        try:
            self._look("")
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when something came or went."""
        return self._descriptor

    def read(self) -> bool:
        """Take in what has happened; never waits. Whether the tree is another one. Raises GlacicError."""
        before = dict(self.tree)
        while True:
            try:
                data = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return self.tree != before
            self._take(data)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, data: bytes) -> None:
        at = 0
        while at + _EVENT.size <= len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
            at += _EVENT.size + length
            if mask & _OVERFLOW:
                self.tree.clear()
                self._look("")
            elif mask & _IGNORED:
                self._watches.pop(watch, None)
            elif mask & _IS_DIRECTORY and watch in self._watches:
                path = _below(self._watches[watch], os.fsdecode(name))
                self._forget(path)
                if mask & (_CREATE | _MOVED_TO):
                    self._meet(path)

    def _meet(self, path: str) -> None:
        """A cgroup came; also what was made in it before it was watched."""
        cgroup = self._hierarchy.cgroup(path)
        if cgroup is None:  # gone already
            return
        self.tree[path] = cgroup
        if holds_units(path) or path in self._ways:
            self._look(path)

    def _look(self, path: str) -> None:
        """Watch a directory, then see what is in it: nothing falls between the two."""
        place = os.fsencode(self._hierarchy.mount / path)
        watch = _libc().inotify_add_watch(self._descriptor, place, _MASK)
        if watch < 0 and ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR):
            return
        self._watches[_checked(watch, os.fsdecode(place))] = path
        for name in _folders(place):
            self._meet(_below(path, name))

    def _forget(self, path: str) -> None:
        if path in self.tree:
            for gone in [each for each in self.tree if each == path or each.startswith(path + "/")]:
                del self.tree[gone]


def _folders(place: bytes) -> Collection[str]:
    try:
        with os.scandir(place) as entries:
            return [os.fsdecode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise GlacicError(f"cannot follow the cgroups: {os.fsdecode(place)}: {error.strerror}") from None


def _below(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        advice = {
            errno.ENOSPC: "; raise fs.inotify.max_user_watches",
            errno.EMFILE: "; raise fs.inotify.max_user_instances",
        }.get(number, "")
        raise GlacicError(f"cannot follow the cgroups: {what}: {os.strerror(number)}{advice}")
    return result
