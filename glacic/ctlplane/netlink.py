"""Road 2, the bytes: netlink messages to and from nfnetlink_log, nfnetlink_queue, conntrack and the neighbour table.

A request is made here as bytes and sent by nlsocket.py, which fills in its sequence number; an answer is read here into
named tuples. What a kernel sends is trusted no more than any other input: whatever cannot be read is left out, and
nothing raises. Refuses to open a socket.

Layout: struct nlmsghdr (linux/netlink.h), struct nfgenmsg (linux/netfilter/nfnetlink.h), then attributes. Headers are
in host byte order; what nfnetlink's attributes hold is in network byte order unless said otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import NamedTuple

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x04, 0x10, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF  # the two top bits are flags

# linux/netfilter/nfnetlink.h: the upper byte of a message's type
NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_QUEUE, NFNL_SUBSYS_ULOG = 1 << 8, 3 << 8, 4 << 8

# linux/netfilter/nfnetlink_log.h
NFULNL_MSG_PACKET, NFULNL_MSG_CONFIG = NFNL_SUBSYS_ULOG | 0, NFNL_SUBSYS_ULOG | 1
NFULNL_CFG_CMD_BIND, NFULNL_COPY_PACKET, NFULNL_CFG_F_SEQ = 1, 2, 1
_NFULA_CFG_CMD, _NFULA_CFG_MODE, _NFULA_CFG_NLBUFSIZ, _NFULA_CFG_TIMEOUT, _NFULA_CFG_QTHRESH, _NFULA_CFG_FLAGS = range(
    1, 7
)
_NFULA_MARK, _NFULA_HWADDR, _NFULA_PAYLOAD, _NFULA_PREFIX, _NFULA_SEQ, _NFULA_HWTYPE = 2, 8, 9, 10, 12, 15

# linux/netfilter/nfnetlink_queue.h
NFQNL_MSG_CONFIG = NFNL_SUBSYS_QUEUE | 2
NFQNL_CFG_CMD_BIND, NFQNL_COPY_META, NFQNL_COPY_PACKET = 1, 1, 2
NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_F_GSO = 1, 4
_NFQA_CFG_CMD, _NFQA_CFG_PARAMS, _NFQA_CFG_QUEUE_MAXLEN, _NFQA_CFG_MASK, _NFQA_CFG_FLAGS = range(1, 6)

# linux/netfilter/nfnetlink_conntrack.h
IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = (NFNL_SUBSYS_CTNETLINK | number for number in range(3))
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_MARK, _CTA_ID, _CTA_ZONE = 1, 2, 3, 8, 12, 18
_CTA_MARK_MASK, _CTA_FILTER = 21, 25
_IPS_DST_NAT = 1 << 5  # linux/netfilter/nf_conntrack_common.h
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_SRC = {4: 1, 16: 3}  # by length of the address
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT, _CTA_PROTO_SRC_PORT = 1, 3, 2
_PORT_MAX = 65535
_CTA_PROTO_ICMP_TYPE, _CTA_PROTO_ICMPV6_TYPE = 5, 8
_CTA_FILTER_ORIG_FLAGS = 1
_FILTER_BY_SOURCE, _FILTER_BY_PROTOCOL = 1 << 0, 1 << 3  # CTA_FILTER_F_CTA_IP_SRC, _PROTO_NUM (nf_internals.h)

# linux/rtnetlink.h, linux/neighbour.h
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
_NDA_DST, _NDA_LLADDR = 1, 2

ARPHRD_ETHER = 1  # linux/if_arp.h
MAC_LENGTH = 6

_HEADER = struct.Struct("=I H H I I")  # length, type, flags, sequence, port
_NFGEN = struct.Struct("!B B H")  # family, version, resource (queue or group number)
_NDMSG = struct.Struct("=B 3x i H B B")  # family, interface, state, flags, type
_ATTRIBUTE = struct.Struct("=H H")  # length with this header, type
_HWADDR = struct.Struct("!H 2x 8s")  # length of the address, the address
_U16, _U32, _I32 = struct.Struct("!H"), struct.Struct("!I"), struct.Struct("=i")
_NFGEN_LENGTH = _NFGEN.size


class Message(NamedTuple):
    """One netlink message. body: what follows the netlink header. error: the errno it carries (NLMSG_ERROR), else 0."""

    type: int
    flags: int
    sequence: int
    body: bytes
    error: int = 0


class Logged(NamedTuple):
    """One packet from a log group.

    prefix: the text of the rule. payload: from the IP header on, cut to the copy range. mac: the source's 6 bytes where
    the packet came in on an interface of Ethernet type. sequence: of the group, None where the kernel gives none.
    """

    prefix: str = ""
    payload: bytes = b""
    mark: int = 0
    mac: bytes | None = None
    sequence: int | None = None


class Connection(NamedTuple):
    """One conntrack entry. Ports in host byte order, 0 where there is none; addresses 4 or 16 bytes.

    reply_source, reply_port: where answers come from, so the destination as the filter sees it, behind any DNAT.
    icmp_type: of the first packet, None for other protocols. handle: the attributes that name this very entry.
    forwarded_port: whether its destination was translated.
    """

    family: int
    protocol: int
    source: bytes
    reply_source: bytes
    reply_port: int
    icmp_type: int | None
    mark: int
    handle: bytes
    source_port: int = 0
    forwarded_port: bool = False


# ---- messages and attributes


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A request of this type. Its sequence number is set by whoever sends it (`numbered`)."""
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def numbered(request: bytes, sequence: int, flags: int = 0) -> bytes:
    """The same request with this sequence number, and with `flags` added to its own."""
    length, kind, own, _, port = _HEADER.unpack_from(request)
    return _HEADER.pack(length, kind, own | flags, sequence, port) + request[_HEADER.size :]


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute with its padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def generic(family: int, resource: int = 0) -> bytes:
    """The nfgenmsg that every nfnetlink message begins with."""
    return _NFGEN.pack(family, 0, resource)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram, up to the first that is not whole."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        body = data[at + _HEADER.size : at + length]
        error = -_I32.unpack_from(body)[0] if kind in (NLMSG_ERROR, NLMSG_DONE) and len(body) >= _I32.size else 0
        yield Message(kind, flags, sequence, body, error)
        at += length + -length % 4


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Attribute type -> payload, up to the first that is not whole. Of two of a type the last."""
    found = {}
    size = len(data)
    while start + 4 <= size:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > size:
            break
        found[kind & NLA_TYPE_MASK] = data[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def listed(data: bytes) -> Iterator[bytes]:
    """The payloads of a list of attributes, in order, up to the first that is not whole."""
    at = 0
    while at + 4 <= len(data):
        length, _ = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > len(data):
            return
        yield data[at + 4 : at + length]
        at += length + 3 & ~3


# ---- nfnetlink_log


def nflog_bind(group: int) -> bytes:
    """Become the owner of a log group; EPERM where it has one."""
    return _nflog(group, attribute(_NFULA_CFG_CMD, bytes([NFULNL_CFG_CMD_BIND])))


def nflog_wait_for(group: int, packets: int) -> bytes:
    """Have the kernel collect so many packets before it sends them."""
    return _nflog(group, attribute(_NFULA_CFG_QTHRESH, _U32.pack(packets)))


def nflog_configure(group: int, *, copy_range: int, batch: int, timeout_ms: int, buffer: int) -> bytes:
    """Send `copy_range` bytes of each packet, up to `batch` packets or `buffer` bytes at once.

    None waits for longer than timeout_ms; the kernel counts in hundredths of a second.
    """
    return _nflog(
        group,
        attribute(_NFULA_CFG_MODE, struct.pack("!I B x", copy_range, NFULNL_COPY_PACKET)),
        attribute(_NFULA_CFG_NLBUFSIZ, _U32.pack(buffer)),
        attribute(_NFULA_CFG_TIMEOUT, _U32.pack(max(timeout_ms // 10, 1))),
        attribute(_NFULA_CFG_QTHRESH, _U32.pack(batch)),
        attribute(_NFULA_CFG_FLAGS, _U16.pack(NFULNL_CFG_F_SEQ)),
    )


def _nflog(group: int, *config: bytes) -> bytes:
    return message(NFULNL_MSG_CONFIG, generic(AF_UNSPEC, group) + b"".join(config))


def logged(body: bytes) -> Logged:
    """The packet in the body of an NFULNL_MSG_PACKET; what is missing in it keeps its default."""
    found = attributes(body, _NFGEN_LENGTH)
    sequence = found.get(_NFULA_SEQ, b"")
    return Logged(
        prefix=text(found.get(_NFULA_PREFIX, b"")),
        payload=found.get(_NFULA_PAYLOAD, b""),
        mark=_number(found, _NFULA_MARK),
        mac=_mac(found),
        sequence=_U32.unpack(sequence)[0] if len(sequence) == _U32.size else None,
    )


def text(raw: bytes) -> str:
    """A string of the kernel's, which ends with a zero byte."""
    return raw.rstrip(b"\0").decode(errors="replace")


def _mac(found: dict[int, bytes]) -> bytes | None:
    """A hardware address is a MAC only on Ethernet: GRE, for one, reports its 4-byte tunnel address."""
    address = found.get(_NFULA_HWADDR, b"")
    if _number(found, _NFULA_HWTYPE) != ARPHRD_ETHER or len(address) < _HWADDR.size:
        return None
    length, raw = _HWADDR.unpack_from(address)
    return raw[:MAC_LENGTH] if length == MAC_LENGTH else None


# ---- nfnetlink_queue


def nfqueue_flags(number: int, *, fail_open: bool) -> bytes:
    """Set what NetfilterQueue does not: GSO (else the kernel segments and checksums for us), and whether a full queue
    lets packets through."""
    flags = NFQA_CFG_F_GSO | (NFQA_CFG_F_FAIL_OPEN if fail_open else 0)
    return _nfqueue(
        number,
        attribute(_NFQA_CFG_FLAGS, _U32.pack(flags)),
        attribute(_NFQA_CFG_MASK, _U32.pack(NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN)),
    )


def nfqueue_bind(number: int) -> bytes:
    """Become the owner of a queue; EBUSY where it has one."""
    return _nfqueue(number, attribute(_NFQA_CFG_CMD, struct.pack("!B x H", NFQNL_CFG_CMD_BIND, AF_UNSPEC)))


def nfqueue_configure(number: int, *, copy_range: int, max_length: int) -> bytes:
    """Have a bound queue send so many bytes of each packet, and hold so many packets."""
    return _nfqueue(
        number,
        attribute(_NFQA_CFG_PARAMS, struct.pack("!I B", copy_range, NFQNL_COPY_PACKET)),
        attribute(_NFQA_CFG_QUEUE_MAXLEN, _U32.pack(max_length)),
    )


def nfqueue_shut(number: int) -> bytes:
    """Give a bound queue room for no packet: the kernel drops whatever is sent to it."""
    return _nfqueue(
        number,
        attribute(_NFQA_CFG_PARAMS, struct.pack("!I B", 0, NFQNL_COPY_META)),
        attribute(_NFQA_CFG_QUEUE_MAXLEN, _U32.pack(0)),
    )


def _nfqueue(number: int, *config: bytes) -> bytes:
    return message(NFQNL_MSG_CONFIG, generic(AF_UNSPEC, number) + b"".join(config))


# ---- conntrack


def conntrack_dump(*, mark: int = 0) -> bytes:
    """Every connection; with a mark, those whose mark has one of its bits, as far as the kernel can tell."""
    body = generic(AF_UNSPEC)
    if mark:  # the kernel tells equal from unequal under a mask: with a mask of one bit that is all there is to know
        body += attribute(_CTA_MARK, _U32.pack(mark)) + attribute(_CTA_MARK_MASK, _U32.pack(mark))
    return message(IPCTNL_MSG_CT_GET, body, NLM_F_DUMP)


def conntrack_dump_from(source: bytes, protocol: int) -> bytes:
    """The connections with this protocol that this IPv4 address began; for an IPv6 address, those of anybody.

    Measured: a kernel that is to filter by an IPv6 source sends all others instead (6.18; ipv6_addr_cmp() is taken the
    wrong way round in net/netfilter/nf_conntrack_netlink.c), and one before 5.8 does not filter at all. So the caller
    looks again in any case.
    """
    tuple_proto = nested(_CTA_TUPLE_PROTO, attribute(_CTA_PROTO_NUM, bytes([protocol])))
    if len(source) == 4:
        family, flags = AF_INET, _FILTER_BY_SOURCE | _FILTER_BY_PROTOCOL
        wanted = nested(_CTA_TUPLE_ORIG, nested(_CTA_TUPLE_IP, attribute(_CTA_IP_SRC[4], source)), tuple_proto)
    else:
        family, flags = AF_INET6, _FILTER_BY_PROTOCOL
        wanted = nested(_CTA_TUPLE_ORIG, tuple_proto)
    chosen = nested(_CTA_FILTER, attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", flags)))  # host byte order
    return message(IPCTNL_MSG_CT_GET, generic(family) + wanted + chosen, NLM_F_DUMP)


def conntrack_delete(connection: Connection) -> bytes:
    """End this very connection; ENOENT where it has ended, or another one took its place."""
    return message(IPCTNL_MSG_CT_DELETE, generic(connection.family) + connection.handle)


def conntrack_unmark(connection: Connection, bits: int) -> bytes:
    """Clear these bits of this very connection's mark; ENOENT where it has ended."""
    change = attribute(_CTA_MARK, _U32.pack(0)) + attribute(_CTA_MARK_MASK, _U32.pack(bits))
    return message(IPCTNL_MSG_CT_NEW, generic(connection.family) + connection.handle + change)


def connection(body: bytes) -> Connection | None:
    """The entry in the body of an IPCTNL_MSG_CT_NEW; None where it lacks its addresses or its protocol."""
    found = attributes(body, _NFGEN_LENGTH)
    original, reply = attributes(found.get(_CTA_TUPLE_ORIG, b"")), attributes(found.get(_CTA_TUPLE_REPLY, b""))
    first, answer = attributes(original.get(_CTA_TUPLE_PROTO, b"")), attributes(reply.get(_CTA_TUPLE_PROTO, b""))
    source, reply_source = _source(original), _source(reply)
    if source is None or reply_source is None or not first.get(_CTA_PROTO_NUM):
        return None
    icmp = first.get(_CTA_PROTO_ICMP_TYPE) or first.get(_CTA_PROTO_ICMPV6_TYPE)
    handle = [
        attribute(kind | (NLA_F_NESTED if kind == _CTA_TUPLE_ORIG else 0), found[kind])
        for kind in (_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE)
        if kind in found
    ]
    return Connection(
        family=body[0],
        protocol=first[_CTA_PROTO_NUM][0],
        source=source,
        reply_source=reply_source,
        reply_port=_port(answer),
        icmp_type=icmp[0] if icmp else None,
        mark=_number(found, _CTA_MARK),
        handle=b"".join(handle),
        source_port=_port(first),
        forwarded_port=bool(_number(found, _CTA_STATUS) & _IPS_DST_NAT),
    )


def _port(found: dict[int, bytes]) -> int:
    """The source port of one direction; 0 where it has none, or one that no port can be."""
    number = _number(found, _CTA_PROTO_SRC_PORT)
    return number if number <= _PORT_MAX else 0


def _source(direction: dict[int, bytes]) -> bytes | None:
    addresses = attributes(direction.get(_CTA_TUPLE_IP, b""))
    for length, kind in _CTA_IP_SRC.items():
        if len(addresses.get(kind, b"")) == length:
            return addresses[kind]
    return None


# ---- the neighbour table


def neighbour_dump() -> bytes:
    """Every neighbour of every family, for a NETLINK_ROUTE socket."""
    return message(RTM_GETNEIGH, _NDMSG.pack(AF_UNSPEC, 0, 0, 0, 0), NLM_F_DUMP)


def neighbour(body: bytes) -> tuple[bytes, bytes] | None:
    """(MAC, IP address) in the body of an RTM_NEWNEIGH; None where it names no such pair."""
    found = attributes(body, _NDMSG.size)
    address, mac = found.get(_NDA_DST, b""), found.get(_NDA_LLADDR, b"")
    return (mac, address) if len(mac) == MAC_LENGTH and len(address) in (4, 16) else None


def _number(found: dict[int, bytes], kind: int) -> int:
    """A number of 2 or 4 bytes in network byte order; 0 where it is missing or of another size."""
    raw = found.get(kind, b"")
    return int.from_bytes(raw, "big") if len(raw) in (2, 4) else 0
