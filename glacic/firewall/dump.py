"""Road 1, beside the seam to the kernel: what nf_tables says about one table, message by message.

    rules        every rule that counts, with what it has counted
    counters     the named counters
    flowtables   the flow tables, by name
    interfaces   the network interfaces there are, of which a flow table needs its own

libnftables can list these too, and fetches every element of every set with them: ten seconds and 1.5 GB with a million
learned flows. The kernel itself gives each kind alone. Refuses to ask for sets or elements, and to change anything.

Layout: linux/netfilter/nf_tables.h, linux/netlink.h; comments of rules: libnftnl's udata.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

from glacic.errors import KernelRefused

_NETLINK_ROUTE, _NETLINK_NETFILTER, _NFPROTO_INET = 0, 12, 1
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_GETTABLE, _GETRULE, _GETOBJ, _GETFLOWTABLE = (
    10 << 8 | number for number in (1, 7, 19, 23)
)  # 10: NFNL_SUBSYS_NFTABLES
_OF_TABLE = 1  # NFTA_TABLE_NAME, NFTA_RULE_TABLE, NFTA_OBJ_TABLE, NFTA_FLOWTABLE_TABLE
_RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 4, 7
_OBJ_NAME, _OBJ_TYPE, _OBJ_DATA, _OBJ_IS_COUNTER = 2, 3, 4, 1
_FLOWTABLE_NAME = 2
_GETLINK, _LINK_NAME, _INTERFACE_LENGTH = 18, 3, 16  # linux/rtnetlink.h: RTM_GETLINK, IFLA_IFNAME, struct ifinfomsg
_LINK_BODY = bytes(_INTERFACE_LENGTH)
_EXPR_NAME, _EXPR_DATA = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_OBJREF_NAME = 2
_IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 2, 2, 1, 2
_VERDICTS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}
_UDATA_COMMENT = 0

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_GENERIC = struct.Struct("!BBH")  # nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_BUFFER = 1 << 16  # bytes; a dump comes in pieces of at most 32 KiB (net/netlink/af_netlink.c)
_ANSWER_S = 5.0  # a kernel answers at once, or never
_TRIES = 5  # of a dump that changes while it is read


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted, since the counter was made."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CountingRule:
    """A rule with a counter of its own (`counted`) or a named one (`counter`).

    comment: "" without one. verdict: "accept", "goto refuse", "reject"; "" where the rule has none.
    """

    chain: str
    comment: str
    verdict: str
    counted: Counted | None
    counter: str | None


class Dump:
    """The table of this name, of family inet, in the network namespace of the thread that makes this."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._rules, self._routes = (
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol).detach()
            for protocol in (_NETLINK_NETFILTER, _NETLINK_ROUTE)
        )
        for descriptor in (self._rules, self._routes):
            weakref.finalize(self, os.close, descriptor)

    def rules(self) -> list[CountingRule]:
        """The rules that count, in the order of the chains' making and of the rules in them. Raises KernelRefused."""
        found = (_counting_rule(attributes) for attributes in self._answers(_GETRULE))
        return [rule for rule in found if rule]

    def counters(self) -> dict[str, Counted]:
        """The named counters. Raises KernelRefused."""
        kinds = ((_text(one.get(_OBJ_NAME, b"")), one) for one in self._answers(_GETOBJ))
        return {
            name: _counted(dict(_attributes(one.get(_OBJ_DATA, b""))))
            for name, one in kinds
            if _number(one.get(_OBJ_TYPE, b"")) == _OBJ_IS_COUNTER
        }

    def flowtables(self) -> frozenset[str]:
        """The names of the flow tables. Raises KernelRefused."""
        return frozenset(_text(one.get(_FLOWTABLE_NAME, b"")) for one in self._answers(_GETFLOWTABLE))

    def present(self) -> bool:
        """Whether there is such a table. Raises KernelRefused."""
        return bool(self._answers(_GETTABLE))

    def interfaces(self) -> frozenset[str]:
        """The names of the network interfaces there are. Raises KernelRefused."""
        found = (dict(_attributes(one[_INTERFACE_LENGTH:])) for one in self._dumped(self._routes, _GETLINK, _LINK_BODY))
        return frozenset(_text(one.get(_LINK_NAME, b"")) for one in found)

    def _answers(self, kind: int) -> list[dict[int, bytes]]:
        """The objects of one kind that are this table's, each as its attributes; none where there is no table."""
        answers = self._dumped(self._rules, kind, _of_table(self._table))
        found = (dict(_attributes(answer[_GENERIC.size :])) for answer in answers)
        return [one for one in found if _text(one.get(_OF_TABLE, b"")) == self._table]

    def _dumped(self, descriptor: int, kind: int, body: bytes) -> list[bytes]:
        """The payloads of one dump; none where what it is about is not there. Raises KernelRefused."""
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.settimeout(_ANSWER_S)
            for sequence in range(1, _TRIES + 1):
                try:
                    return list(_dump(sock, kind, body, sequence))
                except InterruptedError:
                    continue
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        return []
                    raise KernelRefused(f"cannot read the table inet {self._table}: {error.strerror}") from None
        raise KernelRefused(f"the table inet {self._table} keeps changing; try again")


def _of_table(name: str) -> bytes:
    """The request for what is in one table of family inet."""
    text = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _OF_TABLE) + text
    return _GENERIC.pack(_NFPROTO_INET, 0, 0) + attribute + bytes(-len(attribute) % 4)


def _dump(sock: socket.socket, kind: int, body: bytes, sequence: int) -> Iterator[bytes]:
    """The payloads of one dump. Raises OSError; InterruptedError where it changed meanwhile."""
    sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0) + body)
    interrupted = False
    while True:
        datagram, at = sock.recv(_BUFFER), 0
        while at + _HEADER.size <= len(datagram):
            length, type_, flags, of, _ = _HEADER.unpack_from(datagram, at)
            payload = datagram[at + _HEADER.size : at + length]
            at += max(length + 3 & ~3, _HEADER.size)
            if of != sequence:
                continue  # the rest of one that was given up
            interrupted |= bool(flags & _NLM_F_DUMP_INTR)
            if type_ in (_NLMSG_DONE, _NLMSG_ERROR):
                code = -int.from_bytes(payload[:4], sys.byteorder, signed=True)
                if code:
                    raise OSError(code, os.strerror(code))
                if interrupted:
                    raise InterruptedError
                return
            yield payload


def _counting_rule(rule: dict[int, bytes]) -> CountingRule | None:
    counted: Counted | None = None
    counter: str | None = None
    verdict = ""
    for _, element in _attributes(rule.get(_RULE_EXPRESSIONS, b"")):
        expression = dict(_attributes(element))
        name, data = _text(expression.get(_EXPR_NAME, b"")), dict(_attributes(expression.get(_EXPR_DATA, b"")))
        if name == "counter":
            counted = _counted(data)
        elif name == "objref":
            counter = _text(data.get(_OBJREF_NAME, b"")) or counter
        elif name == "immediate":
            verdict = _verdict(data) or verdict
        elif name == "reject":
            verdict = "reject"
    if counted is None and counter is None:
        return None
    chain = _text(rule.get(_RULE_CHAIN, b""))
    return CountingRule(chain, _comment(rule.get(_RULE_USERDATA, b"")), verdict, counted, counter)


def _verdict(immediate: dict[int, bytes]) -> str:
    data = dict(_attributes(immediate.get(_IMMEDIATE_DATA, b"")))
    found = dict(_attributes(data.get(_DATA_VERDICT, b"")))
    if _VERDICT_CODE not in found:
        return ""
    word = _VERDICTS.get(int.from_bytes(found[_VERDICT_CODE], "big", signed=True), "")
    return f"{word} {_text(found.get(_VERDICT_CHAIN, b''))}".strip()


def _comment(userdata: bytes) -> str:
    """The comment among the bytes that nft keeps with a rule: type, length, value, again and again."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _UDATA_COMMENT:
            return _text(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return ""


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute; what is cut off is left out."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def _counted(counter: dict[int, bytes]) -> Counted:
    return Counted(_number(counter.get(_COUNTER_PACKETS, b"")), _number(counter.get(_COUNTER_BYTES, b"")))


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
