"""Moments of a flow's road, taken outside the service: when its packet was sent, when its element came into the kernel.

    Taps      a packet socket at the router's interface keeps every packet; the sender's own time is in each
    Elements  a netlink socket hears of every element that is added (nftables' monitor), and when

Both tell flows apart by (source MAC, port). Refuses to disturb: packets are read when all is over; an event is read in
a thread that does nothing else, and understood afterwards.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from bench.service import LAN_INTERFACE, POLICY, PORT_SET
from glacic.ctlplane import netlink, nlsocket
from glacic.errors import LabError
from glacic.firewall.shapes import Shape, key_from_kernel
from glacic.lab.net import Host

# linux/if_ether.h, linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_ETH_P_IP = 0x0800
_NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES = 1, 7
_NFT_MSG_NEWSETELEM, _NFTA_SET_ELEM_LIST_SET, _NFTA_SET_ELEM_LIST_ELEMENTS = 10 << 8 | 12, 2, 3
_NFTA_SET_ELEM_KEY, _NFTA_DATA_VALUE = 1, 1
_NFGEN_LENGTH = 4
_ROOM = 256 << 20  # bytes of what waits to be read
_SHAPE = Shape("mac", "port", "")

_MAC = slice(6, 12)
_PORT, _SENT = struct.Struct("!36x H"), struct.Struct("=50x Q")  # behind Ethernet, IPv4 and UDP: number, ns of sending

FlowName = tuple[bytes, int]  # source MAC, port


class Tap:
    """What comes in at the router."""

    def __init__(self, router: Host) -> None:
        self._socket = router.call(self._open)

    @staticmethod
    def _open() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
        tap.bind((LAN_INTERFACE, _ETH_P_IP))
        nlsocket.set_receive_buffer(tap, _ROOM)
        tap.setblocking(False)
        return tap

    def sent(self) -> dict[FlowName, int]:
        """When each flow's first packet was sent, CLOCK_MONOTONIC in ns; then this is over."""
        found: dict[FlowName, int] = {}
        with self._socket:
            while True:
                try:
                    frame = self._socket.recv(128)
                except BlockingIOError:
                    return found
                if len(frame) >= _SENT.size:
                    name = frame[_MAC], _PORT.unpack_from(frame)[0]
                    found.setdefault(name, _SENT.unpack_from(frame)[0])


class Elements(threading.Thread):
    """What comes into the learned set of TCP and UDP flows, while the block lasts."""

    def __init__(self, router: Host) -> None:
        super().__init__(name="elements", daemon=True)
        self._socket = router.call(self._open)
        self._events: list[tuple[int, bytes]] = []
        self._enough = False
        self._trouble: OSError | None = None

    @staticmethod
    def _open() -> socket.socket:
        listener = nlsocket.NetlinkSocket().socket
        nlsocket.set_receive_buffer(listener, _ROOM)
        nlsocket.set_receive_timeout(listener, 0.1)
        listener.setsockopt(nlsocket.SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        return listener

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough = True
        self.join()
        self._socket.close()

    def run(self) -> None:
        """Until told to end."""
        while not self._enough:
            try:
                data = self._socket.recv(1 << 17)
                self._events.append((time.monotonic_ns(), data))
            except BlockingIOError:
                continue
            except OSError as error:
                self._trouble = error
                return

    def added(self) -> dict[FlowName, int]:
        """When each flow's element was there, CLOCK_MONOTONIC in ns. Raises LabError where events were lost."""
        if self._trouble is not None:
            raise LabError(f"events of nftables were lost: {self._trouble}")
        found: dict[FlowName, int] = {}
        for at_ns, data in self._events:
            for message in netlink.messages(data):
                if message.type == _NFT_MSG_NEWSETELEM:
                    for raw in _keys(message.body):
                        _, source, _, port, _ = key_from_kernel(POLICY, _SHAPE, raw)
                        found.setdefault((source, port), at_ns)
        return found


def _keys(body: bytes) -> Iterator[bytes]:
    """The keys of the elements in the body of an NFT_MSG_NEWSETELEM, if they are of our set."""
    event = netlink.attributes(body, _NFGEN_LENGTH)
    if event.get(_NFTA_SET_ELEM_LIST_SET, b"").rstrip(b"\0") != PORT_SET.encode():
        return
    for element in netlink.listed(event.get(_NFTA_SET_ELEM_LIST_ELEMENTS, b"")):
        yield netlink.attributes(netlink.attributes(element)[_NFTA_SET_ELEM_KEY])[_NFTA_DATA_VALUE]
