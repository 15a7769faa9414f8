"""Road 2, afterwards: ends the connections of a flow that was denied or forgotten, and counts what fail modes let in.

Established traffic never meets the learned sets, so a denied flow goes on until its conntrack entries are gone; its
next packet is then a new one, and meets them. Change the sets first. Conntrack knows addresses, not MACs: they come
from where the flow was seen, and from the neighbour table.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

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
        wanted = _by_address(flows)
        with NetlinkSocket() as sock:
            if len(wanted) <= FEW:
                requests = [netlink.conntrack_dump_from(source, protocol) for source, protocol in wanted]
            else:
                requests = [netlink.conntrack_dump()]
            found = {connection.handle: connection for dump in requests for connection in _wanted(sock, dump, wanted)}
            return sum(_end(sock, connection) for connection in found.values())
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


def belongs(connection: Connection, key: FlowKey, source: bytes) -> bool:
    """Whether a connection that `source` began is one of this flow's, by what the filter saw: behind any DNAT."""
    if connection.source != source or connection.protocol != key.protocol:
        return False
    if key.destination and connection.reply_source != key.destination:
        return False
    if connection.icmp_type is not None:
        return connection.icmp_type == key.port
    return key.protocol not in PORT_PROTOCOLS or connection.reply_port == key.port


def _by_address(flows: Iterable[tuple[FlowKey, Iterable[bytes]]]) -> dict[tuple[bytes, int], list[FlowKey]]:
    """(address, protocol) -> the flows whose connections begin there."""
    known = neighbours()
    wanted: dict[tuple[bytes, int], list[FlowKey]] = {}
    for key, addresses in flows:
        by_mac = len(key.source) == netlink.MAC_LENGTH
        for source in {*addresses, *known.get(key.source, ())} if by_mac else {key.source}:
            if len(source) in (4, 16):
                wanted.setdefault((source, key.protocol), []).append(key)
    return wanted


def _wanted(
    sock: NetlinkSocket, request: bytes, wanted: dict[tuple[bytes, int], list[FlowKey]]
) -> Iterator[Connection]:
    """The connections of this dump that belong to one of these flows."""
    for message in sock.dump(request):
        connection = netlink.connection(message.body)
        if connection is not None:
            keys = wanted.get((connection.source, connection.protocol), ())
            if any(belongs(connection, key, connection.source) for key in keys):
                yield connection


def _end(sock: NetlinkSocket, connection: Connection) -> bool:
    """Whether there was something left to end."""
    try:
        sock.request(netlink.conntrack_delete(connection))
    except OSError as error:
        if error.errno != errno.ENOENT:  # it ended by itself
            raise
        return False
    return True
