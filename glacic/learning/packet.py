"""Step 2 of road 2: the bytes of an IP packet become a Packet. What cannot be read is Unknown, with its reason.

Nothing raises. This is the hot path: one pass, and no object but the result. Bytes come from the kernel's queue and log
(a copy range of 128 bytes is enough: payload may be missing, headers may not) and from captures (frame.py).

It reads what the kernel's own matcher reads, so that a flow key made here is the one that a learned set looks up: the
same extension headers are stepped over (ipv6_find_hdr in net/ipv6/exthdrs_core.c), and anything else is the packet's
protocol: ESP, mobility (135), "no next header" (59). Checksums are not verified: the kernel has done so, and offloading
makes captures lie.

What is plain TCP or UDP is read by compiled code where that is built (glacic/native/flow.c): the same, seven times as
fast.

Refuses to know link layers, policies and flows, and to put fragments together (conntrack does, before any hook).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from struct import Struct
from typing import Any, Final, NamedTuple

from glacic.native import road

# Protocol numbers: IANA "Assigned Internet Protocol Numbers".
HOP_BY_HOP, ICMP, TCP, UDP, ROUTING, FRAGMENT = 0, 1, 6, 17, 43, 44
AUTHENTICATION, ICMPV6, DESTINATION_OPTIONS, SCTP, UDPLITE = 51, 58, 60, 132, 136

MAX_EXTENSION_HEADERS = 16  # real packets carry one to three; a longer chain is an attack on whoever walks it


class Reason(StrEnum):
    """Every reason why a packet cannot be read. Log, CLI and tests show the same phrase."""

    NOT_IP = "not IP"
    TRUNCATED = "truncated"
    MALFORMED = "malformed header"
    FRAGMENT = "fragment"
    NESTED = "too many headers"
    LINK_TYPE = "unknown link type"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A packet that cannot be read, and why."""

    reason: Reason


class Packet(NamedTuple):
    """What a decision needs of a packet. A tuple, because it is made once per packet.

    version: 4 or 6. source, destination: 4 or 16 bytes, network byte order. protocol: IANA number.
    port: destination port for tcp/udp/udplite/sctp, the type for icmp/icmpv6, else 0; host byte order.
    source_port: likewise; the identifier for ICMP queries and their replies.
    first: it may be the first packet of a connection.
    neighbour: what IPv6 needs on the link (neighbour and router discovery, multicast listeners), never learned.
    ends: TCP with FIN or RST. quoted: the packet that an ICMP error is about.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    port: int = 0
    first: bool = True
    neighbour: bool = False
    ends: bool = False
    quoted: Packet | None = None


TRUNCATED: Final = Unknown(Reason.TRUNCATED)
MALFORMED: Final = Unknown(Reason.MALFORMED)
NOT_IP: Final = Unknown(Reason.NOT_IP)
NESTED: Final = Unknown(Reason.NESTED)
_FRAGMENT: Final = Unknown(Reason.FRAGMENT)

_IPV4 = Struct(
    "!B x H 2x H x B 2x 4s 4s"
)  # version and IHL, total length, flags and offset, protocol, addresses (RFC 791)
_IPV6 = Struct("!4x H B B 16s 16s")  # payload length, next header, hop limit, addresses (RFC 8200)
_TCP = Struct("!H H 8x B B")  # ports, data offset, flags (RFC 9293)
_UDP = Struct("!H H H")  # ports, length (RFC 768) or coverage (RFC 3828)
_SCTP = Struct("!H H")
_SCTP_CHUNK = Struct("!B x H")  # type, length with this header (RFC 9260)
_ICMP = Struct("!B 3x H")  # type, identifier (RFC 792, RFC 4443)

_TCP_LENGTH, _UDP_LENGTH, _SCTP_LENGTH, _ICMP_LENGTH = 20, 8, 12, 8  # the fixed part of each header
_QUOTED_LENGTH = 8  # what RFC 792 makes an ICMP error quote behind the IP header; enough for the ports
_UNBOUNDED = 1 << 32  # the end of a packet whose length field is 0, and of a fragment's whole

_FRAGMENT_OFFSET, _MORE_FRAGMENTS = 0x1FFF, 0x2000
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_SCTP_CHUNK_HEADER, _SCTP_DATA_CHUNK = (
    4,
    17,
)  # the least length of a chunk, and of a DATA chunk with its one byte of data
# Chunks that no association starts with: DATA, and every answer, acknowledgement and ending (RFC 9260, section 3.2).
_SCTP_LATER = frozenset({0, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14})

# reply -> request. Echo, timestamp, information, address mask (RFC 792, 950), extended echo (RFC 8335).
ICMP_REPLIES: Final = {0: 8, 14: 13, 16: 15, 18: 17, 43: 42}
# Echo, node information (RFC 4620), home agent discovery and mobile prefix (RFC 6275), extended echo (RFC 8335).
ICMPV6_REPLIES: Final = {129: 128, 140: 139, 145: 144, 147: 146, 161: 160}
_ICMP_ERRORS = frozenset({3, 4, 5, 11, 12, 31, 40})
_ICMP_LATER = (
    _ICMP_ERRORS | ICMP_REPLIES.keys() | {9, 34, 36, 38}
)  # and advertisements, and replies of the mobile drafts
_ICMP_WITH_ID = ICMP_REPLIES.keys() | set(ICMP_REPLIES.values())
_ICMPV6_WITH_ID = ICMPV6_REPLIES.keys() | set(ICMPV6_REPLIES.values())
_ICMPV6_FIRST_INFORMATIONAL = 128  # below are errors, known or not (RFC 4443, section 2.1)
# Neighbour and router discovery (RFC 4861), inverse discovery (RFC 3122), certification paths (RFC 3971): with any hop
# limit but 255 they come from beyond the link.
_DISCOVERY = frozenset({133, 134, 135, 136, 137, 141, 142, 148, 149})
_LISTENERS = frozenset({130, 131, 132, 143})  # MLD: hop limit 1 (RFC 2710, RFC 3810)


def decode(data: bytes | memoryview, start: int = 0) -> Packet | Unknown:
    """Read the IP packet that begins at `start`: compiled where it is plain and that is built, else decode_any."""
    packet: Packet | None = _decode(data, start, Packet)
    return decode_any(data, start) if packet is None else packet


def decode_any(data: bytes | memoryview, start: int = 0) -> Packet | Unknown:
    """The same, in Python."""
    if start >= len(data):
        return TRUNCATED
    version = data[start] >> 4
    if version == 4:
        return decode_ipv4(data, start)
    return decode_ipv6(data, start) if version == 6 else NOT_IP


def decode_ipv4(data: bytes | memoryview, start: int = 0, *, quoted: bool = False) -> Packet | Unknown:
    """Read the IPv4 packet that begins at `start`. What is behind its total length is the link's padding, and not read.

    A total length of 0 is what segmentation offload leaves: then the packet goes to the end of the data.
    """
    size = len(data)
    if size - start < _IPV4.size:
        return TRUNCATED
    first, total, offset, protocol, source, destination = _IPV4.unpack_from(data, start)
    header = (first & 0x0F) << 2
    if first >> 4 != 4 or header < _IPV4.size or 0 < total < header:
        return MALFORMED
    if offset & _FRAGMENT_OFFSET:
        return _FRAGMENT
    limit = start + total if total else _UNBOUNDED
    if quoted:
        return _quoted_transport(data, start + header, 4, protocol, source, destination)
    end = min(size, limit)
    if offset & _MORE_FRAGMENTS:
        limit = _UNBOUNDED
    return _transport(data, start + header, end, limit, 4, protocol, source, destination, 0)


def decode_ipv6(data: bytes | memoryview, start: int = 0, *, quoted: bool = False) -> Packet | Unknown:
    """Read the IPv6 packet that begins at `start`: step over extension headers, then as for IPv4.

    A payload length of 0 is a jumbogram (RFC 2675) or segmentation offload: then it goes to the end of the data.
    """
    size = len(data)
    if size - start < _IPV6.size:
        return TRUNCATED
    length, protocol, hop_limit, source, destination = _IPV6.unpack_from(data, start)
    if data[start] >> 4 != 6:
        return MALFORMED
    offset = start + _IPV6.size
    limit = offset + length if length else _UNBOUNDED
    end = min(size, limit)
    headers = 0
    while protocol in _EXTENSIONS:
        if headers == MAX_EXTENSION_HEADERS:
            return NESTED
        if protocol == HOP_BY_HOP and headers:  # only ever the first (RFC 8200, section 4.1)
            return MALFORMED
        if offset + 8 > end:  # none is shorter
            return TRUNCATED
        headers += 1
        follows, count = data[offset], data[offset + 1]
        if protocol == FRAGMENT:
            if data[offset + 2] or data[offset + 3] & 0xF8:
                return _FRAGMENT
            if data[offset + 3] & 1:  # more follow
                limit = _UNBOUNDED
            offset += 8
        else:  # in units of 8 bytes, the first not counted; AH: of 4, the first two not counted (RFC 4302)
            offset += (count + 2) << 2 if protocol == AUTHENTICATION else (count + 1) << 3
        protocol = follows
    if quoted:
        return _quoted_transport(data, offset, 6, protocol, source, destination)
    return _transport(data, offset, end, limit, 6, protocol, source, destination, hop_limit)


_EXTENSIONS = frozenset({HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS})


def _transport(
    data: bytes | memoryview,
    offset: int,
    end: int,
    limit: int,
    version: int,
    protocol: int,
    source: bytes,
    destination: bytes,
    hop_limit: int,
) -> Packet | Unknown:
    """Read the header at `offset`.

    end: what can be read ends here. limit: where the whole packet ends by its own word, if it is whole and has one.
    """
    if protocol == TCP:
        if offset + _TCP_LENGTH > end:
            return TRUNCATED
        source_port, port, words, flags = _TCP.unpack_from(data, offset)
        if words < 0x50 or offset + (words >> 4 << 2) > limit:
            return MALFORMED
        first = flags & (_SYN | _ACK | _RST | _FIN) == _SYN
        return Packet(version, source, destination, TCP, source_port, port, first, False, flags & (_FIN | _RST) != 0)
    if protocol in (UDP, UDPLITE):
        if offset + _UDP_LENGTH > end:
            return TRUNCATED
        source_port, port, length = _UDP.unpack_from(data, offset)
        if offset + length > limit:
            return MALFORMED
        if length < _UDP_LENGTH and (length or (protocol == UDP and limit != _UNBOUNDED)):
            return MALFORMED  # 0 is a jumbogram's length (RFC 2675), and UDP-Lite's word for the whole packet
        return Packet(version, source, destination, protocol, source_port, port)
    if protocol in (ICMP, ICMPV6):
        if offset + _ICMP_LENGTH > end:
            return TRUNCATED
        return _icmp(data, offset, version, protocol, source, destination, hop_limit)
    if protocol == SCTP:
        if offset + _SCTP_LENGTH > end:
            return TRUNCATED
        source_port, port = _SCTP.unpack_from(data, offset)
        return Packet(version, source, destination, SCTP, source_port, port, _starts_association(data, offset, end))
    return Packet(version, source, destination, protocol) if offset <= end else TRUNCATED


def _icmp(
    data: bytes | memoryview,
    offset: int,
    version: int,
    protocol: int,
    source: bytes,
    destination: bytes,
    hop_limit: int,
) -> Packet:
    """Queries may be first packets; replies, advertisements and errors never are."""
    kind, identifier = _ICMP.unpack_from(data, offset)
    neighbour, quoted = False, None
    if protocol == ICMP:
        error, first, with_id = kind in _ICMP_ERRORS, kind not in _ICMP_LATER, kind in _ICMP_WITH_ID
    else:
        on_link = kind in _DISCOVERY or kind in _LISTENERS
        neighbour = version == 6 and on_link and hop_limit == (255 if kind in _DISCOVERY else 1)
        error = kind < _ICMPV6_FIRST_INFORMATIONAL
        first = not (error or on_link or kind in ICMPV6_REPLIES)
        with_id = kind in _ICMPV6_WITH_ID
    if error:
        inner = offset + _ICMP_LENGTH
        read = (decode_ipv4 if version == 4 else decode_ipv6)(data, inner, quoted=True)
        quoted = read if isinstance(read, Packet) else None
    return Packet(
        version, source, destination, protocol, identifier if with_id else 0, kind, first, neighbour, False, quoted
    )


def _quoted_transport(
    data: bytes | memoryview, offset: int, version: int, protocol: int, source: bytes, destination: bytes
) -> Packet | Unknown:
    """Only what tells connections apart: an error need not quote more than 8 bytes."""
    if protocol in (TCP, UDP, UDPLITE, SCTP):
        if offset + _QUOTED_LENGTH > len(data):
            return TRUNCATED
        source_port, port = _SCTP.unpack_from(data, offset)
        return Packet(version, source, destination, protocol, source_port, port, False)
    if protocol in (ICMP, ICMPV6):
        if offset + _QUOTED_LENGTH > len(data):
            return TRUNCATED
        kind, identifier = _ICMP.unpack_from(data, offset)
        with_id = kind in (_ICMP_WITH_ID if protocol == ICMP else _ICMPV6_WITH_ID)
        return Packet(version, source, destination, protocol, identifier if with_id else 0, kind, False)
    return Packet(version, source, destination, protocol, first=False)


def _starts_association(data: bytes | memoryview, offset: int, end: int) -> bool:
    """Whether the first chunk, where one can be seen, may be the first of an SCTP association."""
    chunk = offset + _SCTP_LENGTH
    if chunk + _SCTP_CHUNK_HEADER > end:
        return True
    kind, length = _SCTP_CHUNK.unpack_from(data, chunk)
    return kind not in _SCTP_LATER or length < (_SCTP_CHUNK_HEADER if kind else _SCTP_DATA_CHUNK)


def _nothing(_data: bytes | memoryview, _start: int, _type: type[Packet]) -> None:
    """Where nothing is compiled."""


_decode: Any = _nothing if road is None else road.decode
