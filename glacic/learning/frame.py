"""Step 2 of road 2, for captures: a frame of a link layer becomes a source MAC and a Packet. Nothing raises.

The kernel hands over packets from their IP header on; in a capture the link's header is still there. The MAC is given
where the kernel would match one (`ether saddr`): on links of Ethernet type.

Refuses what Linux would not hand to its IP layer either: IP in LLC/SNAP, PPPoE, MPLS are "not IP".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Final

from glacic.learning.packet import (
    NESTED,
    NOT_IP,
    TCP,
    TRUNCATED,
    UDP,
    Packet,
    Reason,
    Unknown,
    decode,
    decode_ipv4,
    decode_ipv6,
)

Frame = tuple[bytes | None, Packet | Unknown]

_IPV4, _IPV6 = 0x0800, 0x86DD  # EtherTypes: IEEE 802, RFC 894, RFC 2464
_TAGS = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})  # 802.1Q, 802.1ad, and two that switches used before it
_MAX_TAGS = 4  # a provider's and a customer's, with room; more is an attack on whoever walks them

_TYPE = Struct("!H")
_ETHERNET_HEADER = 14
_TAG_HEADER = 4
_LOOPBACK_ADDRESSES = bytes(12)  # what Linux writes into both addresses of a frame on its loopback interface

# The source's MAC, the EtherType; of the IP header (RFC 791, RFC 8200) the version, the length, the fragment's place,
# the protocol, the addresses; of TCP and UDP both the ports, and the length of UDP, or TCP's data offset and flags.
_PLAIN_IPV4 = Struct("! 6x 6s H B x H 2x H x B 2x 4s 4s H H H 6x B B")
_PLAIN_IPV6 = Struct("! 6x 6s H B 3x H B x 16s 16s H H H 6x B B")
_NO_MAC = bytes(6)
_IS_FRAGMENT = 0x3FFF
_TCP_IN_IPV4, _TCP_IN_IPV6 = 14 + 20 + 20, 14 + 40 + 20
_SYN, _BEGINNING, _ENDING = 0x02, 0x17, 0x05  # SYN; SYN, ACK, RST, FIN; RST, FIN
_Fields = tuple[int, bytes, bytes, int, int, int, bool, bool, bool, None]
_packet: Final[Callable[[_Fields], Packet]] = partial(tuple.__new__, Packet)  # half the time of Packet()

_SLL = Struct("!2x H H 6s 4x")  # ARPHRD type, address length, address; the protocol is read as an EtherType
_SLL2 = Struct("!H 6x H x B 6s 2x")  # protocol, ARPHRD type, address length, address
_ARPHRD_ETHER = 1  # linux/if_arp.h

_FAMILIES_IPV6 = frozenset({10, 24, 28, 30})  # AF_INET6 of Linux, of NetBSD and OpenBSD, of FreeBSD, of macOS
_FAMILY_IPV4 = 2  # AF_INET, everywhere


def decode_frame(link_type: int, data: bytes | memoryview) -> Frame:
    """The source MAC (6 bytes, if the link has them) and the packet of a frame. link_type: a LINKTYPE_ number."""
    reader = _READERS.get(link_type)
    return reader(data) if reader is not None else (None, _UNKNOWN_LINK)


def _ethernet(data: bytes | memoryview) -> Frame:
    """What most frames hold, in one step: TCP or UDP in IP without tags, options, extensions and fragments, and nothing
    wrong with it. Everything else is for _any_ethernet, which would say the same of these."""
    size = len(data)
    if size >= _PLAIN_IPV4.size and data[12] == 0x08:
        mac, kind, first, total, fragment, protocol, source, destination, source_port, port, length, words, flags = (
            _PLAIN_IPV4.unpack_from(data)
        )
        if kind == _IPV4 and first == 0x45 and not fragment & _IS_FRAGMENT and mac != _NO_MAC:
            if protocol == TCP:
                if words >= 0x50 and size >= _TCP_IN_IPV4 and 20 + (words >> 4 << 2) <= total:
                    begins, ends = flags & _BEGINNING == _SYN, flags & _ENDING != 0
                    return mac, _packet((4, source, destination, TCP, source_port, port, begins, False, ends, None))
            elif protocol == UDP and 8 <= length <= total - 20:
                return mac, _packet((4, source, destination, UDP, source_port, port, True, False, False, None))
    elif size >= _PLAIN_IPV6.size and data[12] == 0x86:
        mac, kind, first, total, protocol, source, destination, source_port, port, length, words, flags = (
            _PLAIN_IPV6.unpack_from(data)
        )
        if kind == _IPV6 and first >> 4 == 6 and mac != _NO_MAC:
            if protocol == TCP:
                if words >= 0x50 and size >= _TCP_IN_IPV6 and words >> 4 << 2 <= total:
                    begins, ends = flags & _BEGINNING == _SYN, flags & _ENDING != 0
                    return mac, _packet((6, source, destination, TCP, source_port, port, begins, False, ends, None))
            elif protocol == UDP and 8 <= length <= total:
                return mac, _packet((6, source, destination, UDP, source_port, port, True, False, False, None))
    return _any_ethernet(data)


def _any_ethernet(data: bytes | memoryview) -> Frame:
    if len(data) < _ETHERNET_HEADER:
        return None, TRUNCATED
    addresses = bytes(data[:12])
    mac = addresses[6:] if addresses != _LOOPBACK_ADDRESSES else None
    return mac, _by_type(data, 12)


def _cooked(data: bytes | memoryview) -> Frame:
    if len(data) < _SLL.size:
        return None, TRUNCATED
    hardware, length, address = _SLL.unpack_from(data)
    return _cooked_mac(hardware, length, address), _by_type(data, 14)


def _cooked2(data: bytes | memoryview) -> Frame:
    if len(data) < _SLL2.size:
        return None, TRUNCATED
    ether_type, hardware, length, address = _SLL2.unpack_from(data)
    return _cooked_mac(hardware, length, address), _by_type_at(data, ether_type, _SLL2.size)


def _cooked_mac(hardware: int, length: int, address: bytes) -> bytes | None:
    return address if hardware == _ARPHRD_ETHER and length == 6 else None


def _raw(data: bytes | memoryview) -> Frame:
    return None, decode(data)


def _raw_ipv4(data: bytes | memoryview) -> Frame:
    return None, decode_ipv4(data)


def _raw_ipv6(data: bytes | memoryview) -> Frame:
    return None, decode_ipv6(data)


def _null(data: bytes | memoryview) -> Frame:
    """An address family in the byte order of the machine that captured: no family needs the upper two bytes."""
    if len(data) < 4:
        return None, TRUNCATED
    family = int.from_bytes(data[:4], "big")
    if family > 0xFFFF:
        family = int.from_bytes(data[:4], "little")
    if family == _FAMILY_IPV4:
        return None, decode_ipv4(data, 4)
    return None, decode_ipv6(data, 4) if family in _FAMILIES_IPV6 else NOT_IP


def _by_type(data: bytes | memoryview, offset: int) -> Packet | Unknown:
    """What follows an EtherType at `offset`."""
    (ether_type,) = _TYPE.unpack_from(data, offset)
    return _by_type_at(data, ether_type, offset + 2)


def _by_type_at(data: bytes | memoryview, ether_type: int, start: int) -> Packet | Unknown:
    """A packet of this EtherType at `start`, behind any VLAN tags."""
    tags = 0
    while ether_type in _TAGS:
        if tags == _MAX_TAGS:
            return NESTED
        if start + _TAG_HEADER > len(data):
            return TRUNCATED
        (ether_type,) = _TYPE.unpack_from(data, start + 2)
        start += _TAG_HEADER
        tags += 1
    if ether_type == _IPV4:
        return decode_ipv4(data, start)
    return decode_ipv6(data, start) if ether_type == _IPV6 else NOT_IP


_UNKNOWN_LINK: Final = Unknown(Reason.LINK_TYPE)

# LINKTYPE_ numbers: https://www.tcpdump.org/linktypes.html. 12 and 14 are DLT_RAW of some systems, found in old files.
_READERS: Final[dict[int, Callable[[bytes | memoryview], Frame]]] = {
    0: _null,
    1: _ethernet,
    12: _raw,
    14: _raw,
    101: _raw,
    108: _null,
    113: _cooked,
    228: _raw_ipv4,
    229: _raw_ipv6,
    276: _cooked2,
}

LINK_TYPES: Final = frozenset(_READERS)
