"""Where the roads meet, read back: the table's sets by name, the elements of one, and what they and counters counted.

A netlink dump of our own, message by message: libnftables would need 1.5 KB for each element and, with a million of
them, ten seconds. Implements `glacic.firewall.learned.Kernel`. Refuses to change anything.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from glacic.ctlplane import netlink
from glacic.ctlplane.nlsocket import NetlinkSocket, refused
from glacic.errors import KernelRefused
from glacic.firewall.claims import TABLE

# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFPROTO_INET = 1
_NFNL_SUBSYS_NFTABLES = 10 << 8
_NFT_MSG_GETSET, _NFT_MSG_GETSETELEM = _NFNL_SUBSYS_NFTABLES | 10, _NFNL_SUBSYS_NFTABLES | 13
_NFT_MSG_GETOBJ, _NFT_OBJECT_COUNTER = _NFNL_SUBSYS_NFTABLES | 19, 1
_NFT_MSG_GETCHAIN, _NFTA_CHAIN_TABLE, _NFTA_CHAIN_HOOK = _NFNL_SUBSYS_NFTABLES | 4, 1, 4
_NFTA_OBJ_TABLE, _NFTA_OBJ_NAME, _NFTA_OBJ_TYPE, _NFTA_OBJ_DATA = 1, 2, 3, 4
_NFTA_SET_TABLE, _NFTA_SET_NAME = 1, 2
_NFTA_SET_ELEM_LIST_TABLE, _NFTA_SET_ELEM_LIST_SET, _NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
_NFTA_SET_ELEM_KEY, _NFTA_SET_ELEM_EXPR, _NFTA_SET_ELEM_EXPRESSIONS = 1, 7, 11
_NFTA_DATA_VALUE, _NFTA_EXPR_NAME, _NFTA_EXPR_DATA, _NFTA_COUNTER_PACKETS = 1, 1, 2, 2

_NFGEN_LENGTH = 4
_U64 = struct.Struct("!Q")


class KernelSets:
    """The sets of one table of family inet. Any thread may call, each call with a socket of its own."""

    def __init__(self, table: str = TABLE) -> None:
        self._table = table

    def names(self) -> list[str]:
        """The names of all sets; none where there is no such table. Raises KernelRefused."""
        request = names_dump(self._table)
        try:
            with NetlinkSocket() as sock:
                found = [set_name(message.body, self._table) for message in sock.dump(request)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KernelRefused(f"cannot read the sets of table inet {self._table}: {refused(error)}") from None
        return [name for name in found if name]

    def hooked(self) -> bool:
        """Whether the table is there and packets meet it: whether it has a base chain. Raises KernelRefused."""
        request = netlink.message(_NFT_MSG_GETCHAIN, netlink.generic(_NFPROTO_INET), netlink.NLM_F_DUMP)
        try:
            with NetlinkSocket() as sock:
                chains = [netlink.attributes(message.body, _NFGEN_LENGTH) for message in sock.dump(request)]
        except OSError as error:
            raise KernelRefused(f"cannot read the chains of table inet {self._table}: {refused(error)}") from None
        ours = (chain for chain in chains if chain.get(_NFTA_CHAIN_TABLE) == self._table.encode() + b"\0")
        return any(_NFTA_CHAIN_HOOK in chain for chain in ours)

    def counter(self, name: str) -> int:
        """The packets that a named counter of the table has counted; 0 where there is none. Raises KernelRefused."""
        try:
            with NetlinkSocket() as sock:
                found = dict(named_counter(message.body) for message in sock.dump(counters_dump(self._table)))
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise KernelRefused(f"cannot read the counters of table inet {self._table}: {refused(error)}") from None
        return found.get(name, 0)

    def elements(self, name: str) -> Iterator[tuple[bytes, int]]:
        """(key as the kernel stores it, packets counted) of every element; none where there is no such set.

        What is added or removed while it is read may be left out or come twice. Raises KernelRefused.
        """
        try:
            with NetlinkSocket() as sock:
                for message in sock.dump(elements_dump(self._table, name)):
                    yield from elements_in(message.body)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise KernelRefused(f"cannot read set {name} of table inet {self._table}: {refused(error)}") from None


def counters_dump(table: str) -> bytes:
    """The request for every named counter of a table."""
    body = (
        netlink.generic(_NFPROTO_INET)
        + netlink.attribute(_NFTA_OBJ_TABLE, table.encode() + b"\0")
        + netlink.attribute(_NFTA_OBJ_TYPE, struct.pack("!I", _NFT_OBJECT_COUNTER))
    )
    return netlink.message(_NFT_MSG_GETOBJ, body, netlink.NLM_F_DUMP)


def named_counter(body: bytes) -> tuple[str, int]:
    """(name, packets) in the body of an NFT_MSG_NEWOBJ for a counter."""
    found = netlink.attributes(body, _NFGEN_LENGTH)
    name = found.get(_NFTA_OBJ_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return name, _packets_of(found.get(_NFTA_OBJ_DATA, b""))


def names_dump(table: str) -> bytes:
    """The request for every set of a table."""
    body = netlink.generic(_NFPROTO_INET) + netlink.attribute(_NFTA_SET_TABLE, table.encode() + b"\0")
    return netlink.message(_NFT_MSG_GETSET, body, netlink.NLM_F_DUMP)


def elements_dump(table: str, name: str) -> bytes:
    """The request for every element of a set."""
    body = (
        netlink.generic(_NFPROTO_INET)
        + netlink.attribute(_NFTA_SET_ELEM_LIST_TABLE, table.encode() + b"\0")
        + netlink.attribute(_NFTA_SET_ELEM_LIST_SET, name.encode() + b"\0")
    )
    return netlink.message(_NFT_MSG_GETSETELEM, body, netlink.NLM_F_DUMP)


def set_name(body: bytes, table: str) -> str:
    """The name in the body of an NFT_MSG_NEWSET; "" where it has none or is another table's."""
    found = netlink.attributes(body, _NFGEN_LENGTH)
    if found.get(_NFTA_SET_TABLE, b"").rstrip(b"\0") != table.encode():
        return ""
    return found.get(_NFTA_SET_NAME, b"").rstrip(b"\0").decode(errors="replace")


def elements_in(body: bytes) -> Iterator[tuple[bytes, int]]:
    """(key, packets) of the elements in the body of an NFT_MSG_NEWSETELEM; what cannot be read is left out."""
    elements = netlink.attributes(body, _NFGEN_LENGTH).get(_NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    for element in netlink.listed(elements):
        found = netlink.attributes(element)
        key = netlink.attributes(found.get(_NFTA_SET_ELEM_KEY, b"")).get(_NFTA_DATA_VALUE)
        if key is not None:
            yield key, _packets(found)


def _packets(element: dict[int, bytes]) -> int:
    """What the element's counter says; 0 where it has none. One expression stands plainly, several in a list."""
    plain = element.get(_NFTA_SET_ELEM_EXPR)
    expressions = netlink.listed(element.get(_NFTA_SET_ELEM_EXPRESSIONS, b"")) if plain is None else (plain,)
    for expression in expressions:
        found = netlink.attributes(expression)
        if found.get(_NFTA_EXPR_NAME) == b"counter\0":
            return _packets_of(found.get(_NFTA_EXPR_DATA, b""))
    return 0


def _packets_of(counter: bytes) -> int:
    """What the attributes of a counter say."""
    packets = netlink.attributes(counter).get(_NFTA_COUNTER_PACKETS, b"")
    return int(_U64.unpack(packets)[0]) if len(packets) == _U64.size else 0
