"""Road 2, afterwards: ends the connections of a flow that was denied or forgotten, and counts what fail modes let in.

Established traffic never meets the learned sets, so a denied flow goes on until its conntrack entries are gone; its
next packet is then a new one, and meets them. Change the sets first. Conntrack knows addresses, not MACs: they come
from where the flow was seen, and from the neighbour table.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import Connection
from glacic.ctlplane.nlsocket import NETLINK_ROUTE, NetlinkSocket, refused
from glacic.errors import KernelRefused
from glacic.firewall.claims import CT_FAIL_OPEN
from glacic.firewall.shapes import PORT_PROTOCOLS
from glacic.learning.flow import FlowKey


def end_flow(key: FlowKey, addresses: Iterable[bytes]) -> int:
    """End the connections of a flow, in the network namespace of this thread. Returns how many ended.

    addresses: 4 or 16 bytes each, where the flow was seen from; for a MAC, those of its neighbours come on top.
    Raises KernelRefused.
    """
    sources = set(addresses) if len(key.source) == netlink.MAC_LENGTH else {key.source}
    try:
        if len(key.source) == netlink.MAC_LENGTH:
            sources |= addresses_of(key.source)
        with NetlinkSocket() as sock:
            return sum(_end(sock, key, source) for source in sources if len(source) in (4, 16))
    except OSError as error:
        raise KernelRefused(f"cannot end connections: {refused(error)}") from None


def addresses_of(mac: bytes) -> set[bytes]:
    """The IP addresses that the neighbour table has for a MAC. Raises OSError."""
    with NetlinkSocket(NETLINK_ROUTE) as sock:
        found = [netlink.neighbour(message.body) for message in sock.dump(netlink.neighbour_dump())]
    return {pair[1] for pair in found if pair is not None and pair[0] == mac}


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


def _end(sock: NetlinkSocket, key: FlowKey, source: bytes) -> int:
    """The dump is read to its end before anything is deleted: one socket does one thing at a time."""
    found = [netlink.connection(m.body) for m in sock.dump(netlink.conntrack_dump_from(source, key.protocol))]
    ended = 0
    for connection in found:
        if connection is not None and belongs(connection, key, source):
            try:
                sock.request(netlink.conntrack_delete(connection))
            except OSError as error:
                if error.errno != errno.ENOENT:  # it ended by itself
                    raise
            else:
                ended += 1
    return ended
