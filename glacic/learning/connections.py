"""Road 2, for replay: which packets belong to a connection that has been seen. What conntrack does before the hook.

A connection is found by protocol, addresses and ports in either direction; ICMP queries by their identifier, a reply by
the query that it answers, an ICMP error by the packet that it quotes. Once one side of a TCP connection has said FIN or
RST, a SYN between the same ports begins a new one.

Bounded: the connection that was silent longest goes first. Refuses to know time: a connection has no other end.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from glacic.learning.packet import ICMP, ICMP_REPLIES, ICMPV6, ICMPV6_REPLIES, TCP, Packet

CAPACITY: Final = 131_072  # connections; some 50 MB

_Key = tuple[int, bytes, int, bytes, int]  # protocol, address and port of one side, of the other
_REPLIES: Final = {ICMP: ICMP_REPLIES, ICMPV6: ICMPV6_REPLIES}


class Connections:
    """The connections seen last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._ending: OrderedDict[_Key, bool] = OrderedDict()  # connection -> one side has ended it

    def __len__(self) -> int:
        return len(self._ending)

    def knows(self, packet: Packet) -> bool:
        """Whether this is a later packet of a connection, a reply in it, or an error about it."""
        _, source, destination, protocol, source_port, port, first, _, ends, quoted = packet
        connections = self._ending
        key: _Key | None
        if quoted is not None:
            return self._find(quoted) is not None
        if protocol in _REPLIES:
            key = self._find(packet)
            if key is None:
                return False
        else:  # what _find does
            key = (protocol, source, source_port, destination, port)
            if key not in connections:
                key = (protocol, destination, port, source, source_port)
                if key not in connections:
                    return False
        if protocol == TCP:
            if first and connections[key]:
                del connections[key]
                return False
            if ends:
                connections[key] = True
        connections.move_to_end(key)
        return True

    def add(self, packet: Packet) -> None:
        """Remember the connection that this packet begins."""
        self._ending[_key(packet)] = False
        if len(self._ending) > self._capacity:
            self._ending.popitem(last=False)

    def _find(self, packet: Packet) -> _Key | None:
        key = _key(packet)
        if key in self._ending:
            return key
        if packet.protocol in _REPLIES:
            return None
        protocol, source, source_port, destination, port = key
        reverse = (protocol, destination, port, source, source_port)
        return reverse if reverse in self._ending else None


def _key(packet: Packet) -> _Key:
    """The connection from the side of the packet's sender; for an ICMP reply, from the side that asked."""
    replies = _REPLIES.get(packet.protocol)
    if replies is not None and packet.port in replies:
        query = replies[packet.port]
        return packet.protocol, packet.destination, packet.source_port, packet.source, query
    return packet.protocol, packet.source, packet.source_port, packet.destination, packet.port
