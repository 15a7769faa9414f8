"""Where the roads meet, the bytes: nf_tables' messages about the sets of one table, their elements and counters.

A request is made here as bytes and sent by elements.py; an answer is read here, and whatever cannot be read is left
out. libnftables does all this too, by way of text, and takes 7 us an element where the kernel takes 1.5 (measured), so
what is learned goes to the kernel this way. Refuses to open a socket, to make or drop a set, and to know what a key
means.

Layout: linux/netfilter/nf_tables.h. The length of a list of attributes has 16 bits, so elements come in several
messages; those between NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END are one transaction.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache

from glacic.ctlplane import netlink

# linux/netfilter.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFPROTO_INET = 1
_NFNL_SUBSYS_NFTABLES = 10
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END = 0x10, 0x11
_NFT_MSG_GETCHAIN, _NFT_MSG_GETSET, _NFT_MSG_NEWSETELEM, _NFT_MSG_GETSETELEM, _NFT_MSG_DELSETELEM, _NFT_MSG_GETOBJ = (
    _NFNL_SUBSYS_NFTABLES << 8 | number for number in (4, 10, 12, 13, 14, 19)
)
_NFT_OBJECT_COUNTER = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_HOOK = 1, 4
_NFTA_OBJ_TABLE, _NFTA_OBJ_NAME, _NFTA_OBJ_TYPE, _NFTA_OBJ_DATA = 1, 2, 3, 4
_NFTA_SET_TABLE, _NFTA_SET_NAME, _NFTA_SET_COUNT = 1, 2, 20
_NFTA_SET_ELEM_LIST_TABLE, _NFTA_SET_ELEM_LIST_SET, _NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
_NFTA_LIST_ELEM = 1
_NFTA_SET_ELEM_KEY, _NFTA_SET_ELEM_EXPR, _NFTA_SET_ELEM_EXPRESSIONS = 1, 7, 11
_NFTA_DATA_VALUE, _NFTA_EXPR_NAME, _NFTA_EXPR_DATA = 1, 1, 2
_NFTA_COUNTER_BYTES, _NFTA_COUNTER_PACKETS = 1, 2
_NLM_F_CREATE = 0x400  # linux/netlink.h; without NLM_F_EXCL an element that is there stays as it is, with its counter

_NFGEN_LENGTH, _HEADER_LENGTH = 4, 16
_KEY_MAX = 64  # bytes; NFT_DATA_VALUE_MAXLEN
_LIST_MAX = 0xFFF0  # bytes in a list of attributes, below what a length of 16 bits can say
_NESTS = struct.Struct("=HH HH HH")  # what stands before a key: the headers of element, key and value
_ATTRIBUTE = struct.Struct("=HH")  # length with this header, type
_ERROR = struct.pack("=H", netlink.NLMSG_ERROR)
_U64, _U32 = struct.Struct("!Q"), struct.Struct("!I")

GET_MAX = 1000  # elements asked for at once: their answers, a datagram each, fit the receive buffer (ANSWERS)
ANSWERS = 4 << 20  # bytes


# ---- requests


def chains_dump() -> bytes:
    """The request for every chain of family inet."""
    return netlink.message(_NFT_MSG_GETCHAIN, netlink.generic(_NFPROTO_INET), netlink.NLM_F_DUMP)


def counters_dump(table: str) -> bytes:
    """The request for every named counter of a table."""
    kind = netlink.attribute(_NFTA_OBJ_TYPE, _U32.pack(_NFT_OBJECT_COUNTER))
    return _message(_NFT_MSG_GETOBJ, _text(_NFTA_OBJ_TABLE, table) + kind, netlink.NLM_F_DUMP)


def sets_dump(table: str) -> bytes:
    """The request for every set of a table."""
    return _message(_NFT_MSG_GETSET, _text(_NFTA_SET_TABLE, table), netlink.NLM_F_DUMP)


def elements_dump(table: str, name: str) -> bytes:
    """The request for every element of a set."""
    return _message(_NFT_MSG_GETSETELEM, _set(table, name), netlink.NLM_F_DUMP)


def elements_get(table: str, name: str, keys: Sequence[bytes]) -> bytes:
    """The request for the elements with these keys, at most GET_MAX, all of one length.

    Each comes in a datagram of its own, in this order, up to the first that is not there, which is an error.
    """
    return _message(_NFT_MSG_GETSETELEM, _set(table, name) + _list(_plain(keys)))


def change(table: str, leaving: Mapping[str, Sequence[bytes]], coming: Mapping[str, Sequence[bytes]]) -> bytearray:
    """One transaction: by set name, the keys of elements that go, whether or not they are there, and of those that
    come. All keys of a set have one length."""
    batch = _Batch()
    for name, keys in leaving.items():
        for kind in (_NFT_MSG_NEWSETELEM, _NFT_MSG_DELSETELEM):  # to delete what is not there would be an error
            for part in _parts(keys):
                batch.add(kind, _set(table, name) + _list(_plain(part)))
    for name, keys in coming.items():
        for part in _parts(keys):
            batch.add(_NFT_MSG_NEWSETELEM, _set(table, name) + _list(_plain(part)))
    return batch.whole()


def refill(table: str, name: str, elements: Iterable[bytes]) -> bytearray:
    """One transaction: a set loses all its elements and gets these (`plain`, `copy_in`)."""
    batch = _Batch()
    batch.add(_NFT_MSG_DELSETELEM, _set(table, name))
    waiting = bytearray()
    for element in elements:
        if len(waiting) + len(element) > _LIST_MAX:
            batch.add(_NFT_MSG_NEWSETELEM, _set(table, name) + _list(waiting))
            waiting.clear()
        waiting += element
    if waiting:
        batch.add(_NFT_MSG_NEWSETELEM, _set(table, name) + _list(waiting))
    return batch.whole()


def plain(key: bytes) -> bytes:
    """An element with this key, and nothing counted."""
    return _plain([key])


class _Batch:
    """The messages of a transaction. The kernel answers the last of them, and every one that it refuses."""

    def __init__(self) -> None:
        self._bytes = bytearray(_limit(_NFNL_MSG_BATCH_BEGIN))
        self._last = b""

    def add(self, kind: int, body: bytes) -> None:
        self._bytes += self._last
        self._last = _message(kind, body, _NLM_F_CREATE if kind == _NFT_MSG_NEWSETELEM else 0)

    def whole(self) -> bytearray:
        """Everything; nothing where nothing was added. To be asked for once."""
        if not self._last:
            return bytearray()
        self._bytes += netlink.numbered(self._last, 0, netlink.NLM_F_ACK)
        self._bytes += _limit(_NFNL_MSG_BATCH_END)
        return self._bytes


@cache
def _limit(kind: int) -> bytes:
    """What begins or ends a transaction."""
    return netlink.message(kind, netlink.generic(0, _NFNL_SUBSYS_NFTABLES))


def _message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return netlink.message(kind, netlink.generic(_NFPROTO_INET) + body, flags)


def _text(kind: int, text: str) -> bytes:
    return netlink.attribute(kind, text.encode() + b"\0")


@lru_cache(256)
def _set(table: str, name: str) -> bytes:
    return _text(_NFTA_SET_ELEM_LIST_TABLE, table) + _text(_NFTA_SET_ELEM_LIST_SET, name)


def _list(elements: bytes | bytearray) -> bytes:
    return netlink.nested(_NFTA_SET_ELEM_LIST_ELEMENTS, bytes(elements))


def _plain(keys: Sequence[bytes]) -> bytes:
    """Elements with these keys, all of one length, a multiple of 4 (what comes in one piece needs one head)."""
    size, nest = len(keys[0]), netlink.NLA_F_NESTED
    head = _NESTS.pack(
        size + 12, _NFTA_LIST_ELEM | nest, size + 8, _NFTA_SET_ELEM_KEY | nest, size + 4, _NFTA_DATA_VALUE
    )
    return head + head.join(keys)


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """As many at once as one list can hold."""
    at_once = _LIST_MAX // (len(keys[0]) + _NESTS.size) if keys else 1
    return (keys[at : at + at_once] for at in range(0, len(keys), at_once))


# ---- answers


def has_hook(body: bytes, table: str) -> bool:
    """Whether the body of an NFT_MSG_NEWCHAIN is of a base chain of this table."""
    found = netlink.attributes(body, _NFGEN_LENGTH)
    return found.get(_NFTA_CHAIN_TABLE) == table.encode() + b"\0" and _NFTA_CHAIN_HOOK in found


def named_counter(body: bytes) -> tuple[str, int]:
    """(name, packets) in the body of an NFT_MSG_NEWOBJ for a counter."""
    found = netlink.attributes(body, _NFGEN_LENGTH)
    name = found.get(_NFTA_OBJ_NAME, b"").rstrip(b"\0").decode(errors="replace")
    return name, _packets_of(found.get(_NFTA_OBJ_DATA, b""))


def set_in(body: bytes, table: str) -> tuple[str, int | None]:
    """(name, number of elements) in the body of an NFT_MSG_NEWSET; name "" where it has none or is another table's.

    The number is None from a kernel that does not tell (before 6.16).
    """
    found = netlink.attributes(body, _NFGEN_LENGTH)
    if found.get(_NFTA_SET_TABLE, b"").rstrip(b"\0") != table.encode():
        return "", None
    count = found.get(_NFTA_SET_COUNT, b"")
    size = _U32.unpack(count)[0] if len(count) == _U32.size else None
    return found.get(_NFTA_SET_NAME, b"").rstrip(b"\0").decode(errors="replace"), size


def elements_in(body: bytes) -> list[tuple[bytes, int]]:
    """(key, packets) of the elements in the body of an NFT_MSG_NEWSETELEM; what cannot be read is left out."""
    elements = netlink.attributes(body, _NFGEN_LENGTH).get(_NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    return _counted_in(elements) or list(_elements_in(elements))


def _counted_in(elements: bytes) -> list[tuple[bytes, int]]:
    """The same where every element is a key and a counter, as those of learned sets are; else nothing."""
    size = int.from_bytes(elements[:2], sys.byteorder)  # of the first
    length = size - _counted(0)[0].size
    if not 0 < length <= _KEY_MAX or len(elements) % size:
        return []
    layout, head, middle, last = _counted(length)
    found = [
        (key, packets)
        for before, key, between, _, behind, packets in layout.iter_unpack(elements)
        if before == head and between == middle and behind == last
    ]
    return found if len(found) * size == len(elements) else []


def _elements_in(elements: bytes) -> Iterator[tuple[bytes, int]]:
    """The same of any list of elements."""
    for element in netlink.listed(elements):
        found = netlink.attributes(element)
        key = netlink.attributes(found.get(_NFTA_SET_ELEM_KEY, b"")).get(_NFTA_DATA_VALUE)
        if key is not None:
            yield key, _packets(found)


def error_in(answer: bytes) -> int | None:
    """The errno that a message carries, 0 for an acknowledgement; None for any other message."""
    if answer[4:6] != _ERROR:
        return None
    return next((message.error for message in netlink.messages(answer)), errno.EBADMSG)


def copy_in(answer: bytes, key: bytes) -> bytes:
    """The element in a whole message, the answer to `elements_get`, as `refill` takes it. Whoever adds it again adds
    its counter, too; one that has counted nothing comes without."""
    layout, *headers, last = _counted(len(key))
    if len(answer) > layout.size:  # it is the last thing in its message
        before, found, between, _, behind, packets = layout.unpack_from(answer, len(answer) - layout.size)
        if [before, between] == headers and found == key and behind == last:
            return answer[-layout.size :] if packets else plain(key)
    elements = netlink.attributes(answer, _HEADER_LENGTH + _NFGEN_LENGTH).get(_NFTA_SET_ELEM_LIST_ELEMENTS, b"")
    return elements if any(packets for _, packets in _elements_in(elements)) else plain(key)


@cache
def _counted(length: int) -> tuple[struct.Struct, bytes, bytes, bytes]:
    """An element with a key of this length and a counter, as the kernel writes it: its layout, and the headers that it
    consists of besides key, bytes and packets."""
    name = netlink.attribute(_NFTA_EXPR_NAME, b"counter\0")
    numbers = 2 * (_ATTRIBUTE.size + _U64.size)
    data = _ATTRIBUTE.pack(_ATTRIBUTE.size + numbers, _NFTA_EXPR_DATA)
    expression = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name) + len(data) + numbers, _NFTA_SET_ELEM_EXPR)
    middle = expression + name + data + _ATTRIBUTE.pack(_ATTRIBUTE.size + _U64.size, _NFTA_COUNTER_BYTES)
    last = _ATTRIBUTE.pack(_ATTRIBUTE.size + _U64.size, _NFTA_COUNTER_PACKETS)
    layout = struct.Struct(f"!{_NESTS.size}s {length}s {len(middle)}s Q {len(last)}s Q")
    value, key = length + _ATTRIBUTE.size, length + 2 * _ATTRIBUTE.size
    head = _NESTS.pack(layout.size, _NFTA_LIST_ELEM, key, _NFTA_SET_ELEM_KEY, value, _NFTA_DATA_VALUE)
    return layout, head, middle, last


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
