"""Road 2, afterwards: ends the connections of a flow that was denied or forgotten, and counts what fail modes let in.

Established traffic never meets the learned sets, so a denied flow goes on until its conntrack entries are gone; its
next packet is then a new one, and meets them. Change the sets first. Conntrack knows addresses, not MACs: they come
from where the flow was seen, and from the neighbour table.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import Connection
from glacic.ctlplane.nlsocket import NETLINK_ROUTE, NetlinkSocket, refused
from glacic.errors import KernelRefused
from glacic.firewall.claims import CT_FAIL_OPEN
from glacic.firewall.shapes import PORT_PROTOCOLS
from glacic.learning.flow import FlowKey

FEW = 8  # pairs of address and protocol, each asked for by itself; above that everything is read once


def end_flow(key: FlowKey, addresses: Iterable[bytes]) -> int:
    """End the connections of one flow; see end_flows."""
    return end_flows([(key, addresses)])


def end_flows(flows: Iterable[tuple[FlowKey, Iterable[bytes]]]) -> int:
    """End the connections of flows, in the network namespace of this thread. Returns how many ended.

    With each key the addresses that the flow was seen from, 4 or 16 bytes each; for a MAC, those of its neighbours come
    on top. Raises KernelRefused.
    """
    try:
        wanted = by_address(flows, neighbours())
        with NetlinkSocket() as sock:
            if len(wanted) <= FEW:
                requests = [netlink.conntrack_dump_from(source, protocol) for source, protocol in wanted]
            else:
                requests = [netlink.conntrack_dump()]
            found = {connection.handle: connection for dump in requests for connection in _wanted(sock, dump, wanted)}
            return sum(end(sock, connection) for connection in found.values())
    except OSError as error:
        raise KernelRefused(f"cannot end connections: {refused(error)}") from None


def neighbours() -> dict[bytes, set[bytes]]:
    """MAC -> the IP addresses that the neighbour table has for it. Raises OSError."""
    found: dict[bytes, set[bytes]] = {}
    with NetlinkSocket(NETLINK_ROUTE) as sock:
        for message in sock.dump(netlink.neighbour_dump()):
            pair = netlink.neighbour(message.body)
            if pair is not None:
                found.setdefault(pair[0], set()).add(pair[1])
    return found


def macs_by_address() -> dict[bytes, set[bytes]]:
    """IP address -> the MACs that the neighbour table has for it. Raises KernelRefused."""
    found: dict[bytes, set[bytes]] = {}
    try:
        for mac, addresses in neighbours().items():
            for address in addresses:
                found.setdefault(address, set()).add(mac)
    except OSError as error:
        raise KernelRefused(f"cannot read the neighbour table: {refused(error)}") from None
    return found


def count_let_in() -> int:
    """How many connections live that a fail mode let in. Raises KernelRefused."""
    try:
        with NetlinkSocket() as sock:
            found = [
                netlink.connection(message.body) for message in sock.dump(netlink.conntrack_dump(mark=CT_FAIL_OPEN))
            ]
    except OSError as error:
        raise KernelRefused(f"cannot count connections: {refused(error)}") from None
    return sum(1 for connection in found if connection is not None and connection.mark & CT_FAIL_OPEN)


Wanted = dict[tuple[bytes, int], set[tuple[int, bytes]]]  # (address, protocol) -> (port, destination or b"")


def belongs(connection: Connection, wanted: Wanted) -> bool:
    """Whether a connection is one of a wanted flow's, by what the filter saw: behind any DNAT."""
    flows = wanted.get((connection.source, connection.protocol))
    if not flows:
        return False
    port = connection.reply_port if connection.protocol in PORT_PROTOCOLS else connection.icmp_type or 0
    return (port, b"") in flows or (port, connection.reply_source) in flows


def by_address(flows: Iterable[tuple[FlowKey, Iterable[bytes]]], known: Mapping[bytes, Collection[bytes]]) -> Wanted:
    """Where the connections of these flows begin, and what they are for. known: as of neighbours()."""
    wanted: Wanted = {}
    for key, addresses in flows:
        by_mac = len(key.source) == netlink.MAC_LENGTH
        for source in {*addresses, *known.get(key.source, ())} if by_mac else {key.source}:
            if len(source) in (4, 16):
                wanted.setdefault((source, key.protocol), set()).add((key.port, key.destination))
    return wanted


def _wanted(sock: NetlinkSocket, request: bytes, wanted: Wanted) -> Iterator[Connection]:
    """The connections of this dump that belong to one of these flows."""
    for message in sock.dump(request):
        connection = netlink.connection(message.body)
        if connection is not None and belongs(connection, wanted):
            yield connection


def end(sock: NetlinkSocket, connection: Connection) -> bool:
    """End one connection; whether there was something left to end. Raises OSError."""
    return _ask(sock, netlink.conntrack_delete(connection))


def unmark(sock: NetlinkSocket, connection: Connection, bits: int) -> bool:
    """Clear bits of one connection's mark; whether it is still there. Raises OSError."""
    return _ask(sock, netlink.conntrack_unmark(connection, bits))


def _ask(sock: NetlinkSocket, request: bytes) -> bool:
    try:
        sock.request(request)
    except OSError as error:
        if error.errno != errno.ENOENT:  # it ended by itself
            raise
        return False
    return True
