"""Road 2, the packet window: how many packets of each connection have come through the queue.

A bounded map, the connections used last: what falls out of it starts to count anew and stays in the queue for longer,
which costs time and nothing else. Only one thread may use one. Refuses to decide.
"""

from __future__ import annotations

from cachetools import LRUCache

from glacic.learning.packet import Packet

CONNECTIONS = 65_536  # some 30 MB when full
_ICMP_PROTOCOLS = (1, 58)

_Key = tuple[int, bytes, int, bytes, int]


class PacketWindow:
    """Counts packets of connections, both directions together."""

    def __init__(self, capacity: int = CONNECTIONS) -> None:
        self._seen: LRUCache[_Key, int] = LRUCache(capacity)

    def closes(self, packet: Packet, size: int) -> bool:
        """Count this packet of its connection. True: it is the last of `size`, or one after; then it is forgotten."""
        key = connection_key(packet)
        seen = self._seen.pop(key, 0) + 1
        if seen >= size:
            return True
        self._seen[key] = seen
        return False


def connection_key(packet: Packet) -> _Key:
    """The same for both directions. ICMP has one identifier for both, in `source_port`; its types differ."""
    source_port, port = packet.source_port, packet.port
    if packet.protocol in _ICMP_PROTOCOLS:
        port = source_port
    if (packet.source, source_port) <= (packet.destination, port):
        return (packet.protocol, packet.source, source_port, packet.destination, port)
    return (packet.protocol, packet.destination, port, packet.source, source_port)
