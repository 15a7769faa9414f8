"""Integrity, the bytes: nf_tables' messages about one table, as it is and as it changes, become comparable values.

    objects_in    the body of one answer or event -> what it is about, and its definition
    commit_in     who has committed a transaction

A definition leaves out what changes by itself: handles, counters' values, use counts, the kernel's numbers for
anonymous sets, devices of hooks (interfaces come and go). What cannot be read is left out, and nothing raises. Refuses
to open a socket: tablewatch.py and structure.py do.

Layout: linux/netfilter/nf_tables.h. An event has the layout of the answer to a dump of the same objects.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from glacic.ctlplane import netlink
from glacic.ctlplane.netlink import Message

NFPROTO_INET = 1
SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
GROUP = 7  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h

# enum nf_tables_msg_types
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = range(9)
NEWSET, GETSET, DELSET, NEWSETELEM, GETSETELEM, DELSETELEM, NEWGEN, GETGEN = range(9, 17)
NEWOBJ, GETOBJ, DELOBJ = 18, 19, 20
NEWFLOWTABLE, GETFLOWTABLE, DELFLOWTABLE = 22, 23, 24

_THINGS = {
    **dict.fromkeys((NEWTABLE, DELTABLE), "table"),
    **dict.fromkeys((NEWCHAIN, DELCHAIN), "chain"),
    **dict.fromkeys((NEWRULE, DELRULE), "rule"),
    **dict.fromkeys((NEWSET, DELSET), "set"),
    **dict.fromkeys((NEWSETELEM, DELSETELEM), "element"),
    **dict.fromkeys((NEWOBJ, DELOBJ), "object"),
    **dict.fromkeys((NEWFLOWTABLE, DELFLOWTABLE), "flowtable"),
}
_GONE = frozenset({DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM, DELOBJ, DELFLOWTABLE})
_TABLE = 1  # the attribute that names the table, of every object but the table itself, where it is the name
_NAME = {"table": 1, "chain": 3, "rule": 2, "set": 2, "element": 2, "object": 2, "flowtable": 2}  # of a rule: its chain
_KEPT = {  # the attributes that define an object
    "table": (2,),  # flags
    "chain": (4, 5, 7, 10),  # hook, policy, type, flags
    "set": (3, 4, 5, 6, 7, 8, 9, 11, 15),  # flags, types, lengths, policy, description, timeout, object type
    "object": (3,),
    "flowtable": (),
}
_OBJECT_TYPE = 3
_HOOK_DEVICES = (3, 4)  # NFTA_HOOK_DEV, NFTA_HOOK_DEVS
_RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 3, 4, 7
_LIST_ELEMENTS = 3
_ELEMENT_KEPT = (1, 2, 3, 9, 10)  # key, data, flags, object, end of the key; not timeouts and counters
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_EXPRESSION_LEFT_OUT = {b"quota": (4,), b"last": (1, 2), b"counter": (1, 2)}  # what they have counted
_EXPRESSION_SET = {b"lookup": (1, 4), b"dynset": (1, 2), b"objref": (4, 5)}  # attributes: name and number of a set
_SET_FLAGS, _SET_KEY_TYPE, _SET_COUNT = 3, 4, 20
_FLAGS_ANONYMOUS, _FLAGS_TIMEOUT, _FLAGS_DYNAMIC = 0x01, 0x10, 0x20
_GEN_ID, _GEN_PID, _GEN_NAME = 1, 2, 3
_NFGEN_LENGTH = 4
_USERDATA_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT, libnftnl/udata.h
_HEADER_PORT = struct.Struct("=12x I")


class Key(NamedTuple):
    """What an object is. name: of a rule, its chain; of an element, its set."""

    thing: str
    name: str


class Object(NamedTuple):
    """One object in a message. definition: equal where nobody has changed it.

    handle: a rule's. sets: the names of the sets that a rule refers to, in the order of `definition`'s gaps. size:
    a set's number of elements, None where the kernel does not say.
    """

    key: Key
    gone: bool
    definition: bytes
    handle: int = 0
    sets: tuple[str, ...] = ()
    expressions: tuple[str, ...] = ()
    comment: str = ""
    flags: int = 0
    size: int | None = None

    @property
    def anonymous(self) -> bool:
        """Whether this set belongs to one rule."""
        return bool(self.flags & _FLAGS_ANONYMOUS)

    @property
    def changes_by_itself(self) -> bool:
        """Whether packets or time change this set's elements."""
        return bool(self.flags & (_FLAGS_TIMEOUT | _FLAGS_DYNAMIC))


class Commit(NamedTuple):
    """A transaction is in force. pid: of the thread that did it, as the first pid namespace counts; name: its comm."""

    generation: int
    pid: int
    name: str


def request(kind: int, *attributes: bytes, family: int = NFPROTO_INET) -> bytes:
    """A dump request, or one for the generation."""
    return netlink.message(SUBSYSTEM << 8 | kind, netlink.generic(family) + b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return netlink.attribute(kind, value.encode() + b"\0")


def removal(table: str, key: Key, definition: bytes) -> bytes:
    """A transaction that removes an object, a set (or map) or a flow table; the kernel answers once."""
    kind = {"object": DELOBJ, "set": DELSET, "flowtable": DELFLOWTABLE}[key.thing]
    body = text(_TABLE, table) + text(_NAME[key.thing], key.name)
    if key.thing == "object":
        body += netlink.attribute(_OBJECT_TYPE, netlink.attributes(definition)[_OBJECT_TYPE])
    first, last = (netlink.message(limit, netlink.generic(0, SUBSYSTEM)) for limit in (0x10, 0x11))  # NFNL_MSG_BATCH_*
    return first + netlink.numbered(request(kind, body), 0, netlink.NLM_F_ACK) + last


def commit_in(message: Message) -> Commit | None:
    """The transaction that an NFT_MSG_NEWGEN ends; None for any other message."""
    if message.type != SUBSYSTEM << 8 | NEWGEN:
        return None
    found = netlink.attributes(message.body, _NFGEN_LENGTH)
    return Commit(_u32(found, _GEN_ID), _u32(found, _GEN_PID), netlink.text(found.get(_GEN_NAME, b"")))


def port_of(datagram: bytes) -> int:
    """The netlink port whose transaction a datagram is about: nlmsg_pid of its first message."""
    return int(_HEADER_PORT.unpack_from(datagram)[0]) if len(datagram) >= _HEADER_PORT.size else 0


def objects_in(message: Message, table: str) -> Iterator[Object]:
    """What a message says of our table of family inet: one object, or of an element message each element."""
    kind = message.type & 0xFF
    thing = _THINGS.get(kind)
    if message.type >> 8 != SUBSYSTEM or thing is None or message.body[:1] != bytes([NFPROTO_INET]):
        return
    found = netlink.attributes(message.body, _NFGEN_LENGTH)
    if netlink.text(found.get(_TABLE, b"")) != table:
        return
    key, gone = Key(thing, netlink.text(found.get(_NAME[thing], b"")) if thing != "table" else ""), kind in _GONE
    if thing == "element":
        for element in netlink.listed(found.get(_LIST_ELEMENTS, b"")):
            yield Object(key, gone, _kept(netlink.attributes(element), _ELEMENT_KEPT))
    elif thing == "rule":
        definition, sets, expressions = _rule(found)
        comment = _comment(found.get(_RULE_USERDATA, b""))
        yield Object(key, gone, definition, _u64(found, _RULE_HANDLE), sets, expressions, comment)
    elif thing == "set":
        size = _u32(found, _SET_COUNT) if _SET_COUNT in found else None
        yield Object(key, gone, _kept(found, _KEPT[thing]), flags=_u32(found, _SET_FLAGS), size=size)
    else:
        if thing == "chain" and 4 in found:
            hook = netlink.attributes(found[4])
            found[4] = _kept(hook, [kind for kind in hook if kind not in _HOOK_DEVICES])
        yield Object(key, gone, _kept(found, _KEPT[thing]))


def element_key(definition: bytes) -> bytes:
    """The key of an element, as the kernel stores it, out of its definition."""
    return netlink.attributes(netlink.attributes(definition).get(1, b"")).get(1, b"")


def element_ends(definition: bytes) -> bool:
    """Whether an element is the end of an interval: NFT_SET_ELEM_INTERVAL_END."""
    return bool(_u32(netlink.attributes(definition), 3) & 1)


def hook_of(definition: bytes) -> tuple[int, int, int] | None:
    """(hook number, priority, policy) in a chain's definition; None where it hangs nowhere."""
    found = netlink.attributes(definition)
    if 4 not in found:
        return None
    hook = netlink.attributes(found[4])
    priority = _u32(hook, 2)
    return _u32(hook, 1), priority - (1 << 32 if priority >> 31 else 0), _u32(found, 5)


def key_type_of(definition: bytes) -> int:
    """The type of a set's key, as libnftables numbers it, out of its definition."""
    return _u32(netlink.attributes(definition), _SET_KEY_TYPE)


def flags_of(definition: bytes) -> int:
    """The flags of a table, out of its definition."""
    return _u32(netlink.attributes(definition), 2)


def _rule(found: Mapping[int, bytes]) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """A rule's expressions without what they count, and without the names of sets, which come apart."""
    parts: list[bytes] = [found.get(_RULE_USERDATA, b"")]
    sets: list[str] = []
    names: list[str] = []
    for expression in netlink.listed(found.get(_RULE_EXPRESSIONS, b"")):
        both = netlink.attributes(expression)
        name = both.get(_EXPRESSION_NAME, b"").rstrip(b"\0")
        data = netlink.attributes(both.get(_EXPRESSION_DATA, b""))
        names.append(name.decode(errors="replace"))
        left_out = [*_EXPRESSION_LEFT_OUT.get(name, ()), *_EXPRESSION_SET.get(name, ())]
        for attribute in _EXPRESSION_SET.get(name, ())[:1]:
            sets.append(netlink.text(data.get(attribute, b"")))
        parts.append(name + b"\0" + _kept(data, [kind for kind in sorted(data) if kind not in left_out]))
    return b"\n".join(parts), tuple(sets), tuple(names)


def _comment(userdata: bytes) -> str:
    """The comment in a rule's user data: a list of type, length, value, a byte each but the last."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _USERDATA_COMMENT:
            return netlink.text(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return ""


def _kept(found: Mapping[int, bytes], kinds: Iterator[int] | tuple[int, ...] | list[int]) -> bytes:
    return b"".join(netlink.attribute(kind, found[kind]) for kind in kinds if kind in found)


def _u32(found: Mapping[int, bytes], kind: int) -> int:
    raw = found.get(kind, b"")
    return int.from_bytes(raw, "big") if len(raw) == 4 else 0


def _u64(found: Mapping[int, bytes], kind: int) -> int:
    raw = found.get(kind, b"")
    return int.from_bytes(raw, "big") if len(raw) == 8 else 0
