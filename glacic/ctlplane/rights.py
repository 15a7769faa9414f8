"""Who is at the other end of the control socket, and what they may do. Asked again for every request.

Two rights. Reading: status, figures, flows, the audit trail. Changing: everything that another packet's verdict could
depend on. uid 0 and the service's own user have both, members of group glacic may read, members of group glacic-admin
may do both, and everybody else has none. The socket file lets in group glacic only, so an administrator is in both
groups: plain mode bits, which every tool shows, and no access control list that a copy or an unpacking would lose.

Who it is comes from the kernel (unix(7): SO_PEERCRED, SO_PEERGROUPS), never from the client. Groups are those that the
client's process had when it connected, as with any file that it opens. Refuses to know any request.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from glacic.config.source import printable
from glacic.errors import GlacicError, NotAllowed

READERS = "glacic"
CHANGERS = "glacic-admin"
MAX_NAME = 64  # characters of a user's name that are shown

_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h; Python has no name for it
_MAX_OPTION = 1024  # bytes that Python's getsockopt takes: 256 groups; who has more is looked up in the group database

Handler = Callable[[dict[str, Any], str], Awaitable[Any]]


class Right(IntEnum):
    """What somebody may do; each includes those before it."""

    NOTHING = 0
    READ = 1
    CHANGE = 2

    def __str__(self) -> str:
        return ("do nothing", "read", "read and change")[self]


READ, CHANGE = Right.READ, Right.CHANGE


@dataclass(frozen=True, slots=True)
class Request:
    """What the service answers to: the right it takes, who carries it out, and whether that is much work."""

    right: Right
    handler: Handler
    heavy: bool = False  # much to read: one at a time per user, few at a time in all; never what waits for a change


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel knew it when it connected. groups: None where the kernel cannot
    say."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] | None

    def is_over(self) -> bool:
        """Whether nobody has to be asked what this one may do."""
        return self.uid in (0, os.geteuid())


def peer_of(connection: socket.socket) -> Peer:
    """Who connected: struct ucred {pid, uid, gid} of SO_PEERCRED and the gid_t list of SO_PEERGROUPS (Linux 4.13)."""
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION)
    except OSError:  # ENOPROTOOPT: an older kernel; ERANGE: more groups than fit
        return Peer(pid, uid, gid, None)
    return Peer(pid, uid, gid, struct.unpack(f"{len(raw) // 4}I", raw))


class Doorkeeper:
    """Says what a peer may do, by the group database as it is now. `group_id`: a group's name -> its number, or
    None."""

    def __init__(self, group_id: Callable[[str], int | None] | None = None) -> None:
        self._group_id = group_id or group_number

    def right_of(self, peer: Peer) -> Right:
        """What this peer may do. Reads the group database, which can take as long as the network behind it."""
        if peer.is_over():
            return CHANGE
        groups = {peer.gid, *(peer.groups if peer.groups is not None else groups_of(peer.uid, peer.gid))}
        for name, right in ((CHANGERS, CHANGE), (READERS, READ)):
            number = self._group_id(name)
            if number is not None and number in groups:
                return right
        return Right.NOTHING

    def socket_group(self) -> int:
        """The group that the socket file belongs to: the readers', or where there is none, the service's own."""
        number = self._group_id(READERS)
        return os.getegid() if number is None else number


def refusal_for(peer: Peer, may: Right, needed: Right, do: str) -> NotAllowed:
    """What somebody who may not do it is told: who they are, what they may, which group they lack."""
    name = name_of(peer.uid)
    lacks = CHANGERS if needed == CHANGE else READERS
    groups = f"{READERS},{CHANGERS}" if needed == CHANGE else READERS
    error = NotAllowed(
        f"you are user {name} (uid {peer.uid}) and may {may} here; {printable(do)[:60]} is for root and group {lacks}: "
        f"`usermod -aG {groups} {name}` as root, then log in again"
    )
    error.details = {"request": printable(do)[:60], "user": name, "uid": peer.uid, "may": str(may), "group": lacks}
    return error


def passed_on(peer: Peer, by: int) -> GlacicError:
    """A connection is used by somebody else than who opened it, so nobody knows whose rights it has."""
    return NotAllowed(f"this connection was opened by uid {peer.uid} and is used by uid {by}: open one of your own")


def name_of(uid: int) -> str:
    """A user's name, or the number where there is none; never text that could do harm."""
    if uid == 0:
        return "root"
    try:
        return printable(pwd.getpwuid(uid).pw_name)[:MAX_NAME]
    except KeyError:
        return str(uid)


def group_number(name: str) -> int | None:
    """A group's number; None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def groups_of(uid: int, gid: int) -> list[int]:
    """A user's groups by the group database: what the kernel did not say."""
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
