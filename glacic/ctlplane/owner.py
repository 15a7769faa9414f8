"""Whose files the state directory's are: an administrator's command must leave there what the service can use.

The service runs as a user of its own, and administrators run `glacic apply` or `glacic unload` as root. Root that works
in another user's folder can be led astray there (a link in place of a file), and leaves files that this user cannot
read. So such a command takes the owner's place for files alone: the kernel's "file system user" (setfsuid(2)), which
keeps CAP_NET_ADMIN and gives up what overrides the rights of files. Reading everything is taken back: modules and
configurations may lie where only root reads. It holds for the calling thread, and not for programs that it starts.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glacic.errors import GlacicError

_ASK = -1  # setfsuid(2): no such user, so that nothing changes and the present one is answered
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_CAP_DAC_READ_SEARCH = 2


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Within the block, touch files as the owner of this folder would, where this is root and that one is not.

    A folder that is not there yet will be root's. Raises GlacicError."""
    owner = _foreign_owner(folder)
    if owner is None:
        yield
        return
    libc = ctypes.CDLL(None)
    before = libc.setfsuid(_ASK), libc.setfsgid(_ASK)
    try:
        if _become(libc, owner) != owner:
            raise GlacicError(f"cannot work in {folder} as its owner, user {_name(owner[0])}")
        _read_everything(libc)
        yield
    finally:
        _become(libc, before)  # back at root, what went with the change of user comes back by itself


def _become(libc: ctypes.CDLL, user: tuple[int, int]) -> tuple[int, int]:
    """Change the file system user and group. Returns what they are then: these calls tell no failure."""
    libc.setfsgid(user[1])
    libc.setfsuid(user[0])
    return libc.setfsuid(_ASK), libc.setfsgid(_ASK)


def refuse_foreign(folder: Path) -> None:
    """Raise GlacicError where this is root and the folder another user's: a service there runs as that user."""
    owner = _foreign_owner(folder)
    if owner is not None:
        name = _name(owner[0])
        raise GlacicError(
            f"the state directory {folder} belongs to user {name}, whose service could not read what root leaves: "
            "start it with `systemctl start glacic`, or name another --state-dir"
        )


def _read_everything(libc: ctypes.CDLL) -> None:
    """Put CAP_DAC_READ_SEARCH, which went with the change of user, back into the effective set, if it is allowed."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)  # twice effective, permitted, inheritable: the low words, then the high ones
    libc.capget(header, data)
    words = list(struct.unpack("=6I", data.raw))
    words[0] |= words[1] & 1 << _CAP_DAC_READ_SEARCH
    libc.capset(header, struct.pack("=6I", *words))


def _foreign_owner(folder: Path) -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    try:
        status = folder.stat()
    except OSError:
        return None
    return (status.st_uid, status.st_gid) if status.st_uid != 0 else None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
