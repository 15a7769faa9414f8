"""Beside both roads: by which interface packets to an address leave, asked of the kernel one address at a time.

An answer is remembered for as long as the object lives: make one per sweep. Belongs to the network namespace of the
thread that makes it. Routes that depend on a mark or on the interface a packet came by cannot be told this way: the
answer is that of the main rules.

Layout: struct rtmsg (linux/rtnetlink.h). Refuses to know what is done with the answer.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

from glacic.ctlplane import netlink
from glacic.ctlplane.nlsocket import NETLINK_ROUTE, NetlinkSocket

KEPT = 1 << 14  # addresses remembered; some 5 MB

# linux/rtnetlink.h
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST, _RTN_MULTICAST = 2, 3, 4, 5
_RTMSG = struct.Struct("=8B I")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_OIF = struct.Struct("=I")


class Route(NamedTuple):
    """local: the address is one of this machine's, or one that it listens to. interface: where packets to it leave."""

    local: bool
    interface: str


class Routes:
    """Asks, and remembers."""

    def __init__(self) -> None:
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._known: dict[tuple[bytes, bytes], Route | None] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()

    def to(self, address: bytes, source: bytes = b"") -> Route | None:
        """The way to an address (4 or 16 bytes), from a given one of our own; None where there is none."""
        asked = (address, source)
        if asked not in self._known:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[asked] = self._ask(address, source)
        return self._known[asked]

    def _ask(self, address: bytes, source: bytes) -> Route | None:
        try:
            answer = self._socket.ask(route_request(address, source))
            found = route(answer.body) if answer.type == RTM_NEWROUTE else None
            return Route(found[0], self._name(found[1])) if found is not None else None
        except OSError:  # no way there, or its interface has just gone
            return None

    def _name(self, number: int) -> str:
        if number not in self._names:
            self._names[number] = socket.if_indextoname(number)
        return self._names[number]


def route_request(address: bytes, source: bytes = b"") -> bytes:
    """Asks for the way to one address."""
    bits = 8 * len(address)
    head = _RTMSG.pack(socket.AF_INET if bits == 32 else socket.AF_INET6, bits, 8 * len(source), 0, 0, 0, 0, 0, 0)
    body = head + netlink.attribute(_RTA_DST, address)
    return netlink.message(RTM_GETROUTE, body + (netlink.attribute(_RTA_SRC, source) if source else b""))


def route(body: bytes) -> tuple[bool, int] | None:
    """(local, number of the interface) in the body of an RTM_NEWROUTE; None where it names no interface."""
    if len(body) < _RTMSG.size:
        return None
    kind = _RTMSG.unpack_from(body)[7]
    interface = netlink.attributes(body, _RTMSG.size).get(_RTA_OIF, b"")
    if len(interface) != _OIF.size:
        return None
    return kind in (_RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST, _RTN_MULTICAST), _OIF.unpack(interface)[0]
