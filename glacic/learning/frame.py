"""Step 2 of road 2, for captures: a frame of a link layer becomes a source MAC and a Packet. Nothing raises.

The kernel hands over packets from their IP header on; in a capture the link's header is still there. The MAC is given
where the kernel would match one (`ether saddr`): on links of Ethernet type.

Refuses what Linux would not hand to its IP layer either: IP in LLC/SNAP, PPPoE, MPLS are "not IP".
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from glacic.learning.packet import (
    NESTED,
    NOT_IP,
    TRUNCATED,
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
