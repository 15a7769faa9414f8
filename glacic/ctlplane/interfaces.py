"""Road 2, beside the inline reader: whether a packet came in on an interface of Ethernet type.

Asked by number, because names change; the answer is kept for half a second, and for as long in the compiled loop,
because a number may come back as another interface. Belongs to the network namespace of the thread that makes it. Only
one thread may use one.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time

from glacic.ctlplane.netlink import ARPHRD_ETHER

KEPT_S = 0.5
MAX_KEPT = 4096  # more interfaces than this, and all are asked for again

_SIOCGIFNAME, _SIOCGIFHWADDR = 0x8910, 0x8927  # linux/sockios.h
_NAME_LENGTH = 16  # IFNAMSIZ, linux/if.h
_BY_NUMBER, _BY_NAME = struct.Struct("=16x i 20x"), struct.Struct("=16s H 22x")  # struct ifreq, 40 bytes


class Interfaces:
    """The types of interfaces, by number."""

    def __init__(self) -> None:
        # Of any family, as these questions have none; this one is what a confined service may open anyway.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._known: dict[int, tuple[float, bool]] = {}

    def is_ethernet(self, number: int) -> bool:
        """Whether hardware addresses there are MACs. One that has just gone is taken for what it was."""
        now = time.monotonic()
        asked, ethernet = self._known.get(number, (0.0, False))
        if asked and now - asked < KEPT_S:
            return ethernet
        try:
            ethernet = self._type(number) == ARPHRD_ETHER
        except OSError:
            return ethernet
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[number] = (now, ethernet)
        return ethernet

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()

    def _type(self, number: int) -> int:
        """The ARPHRD_ number of an interface (linux/if_arp.h). Raises OSError where there is none."""
        named = fcntl.ioctl(self._socket, _SIOCGIFNAME, _BY_NUMBER.pack(number))
        answer = fcntl.ioctl(self._socket, _SIOCGIFHWADDR, named[:_NAME_LENGTH] + bytes(_BY_NAME.size - _NAME_LENGTH))
        return int(_BY_NAME.unpack(answer)[1])
