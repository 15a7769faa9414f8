"""Fuzz targets: packets as the kernel hands them over, and frames as captures hold them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.targets import Check
from glacic import native
from glacic.learning.frame import LINK_TYPES, decode_frame
from glacic.learning.packet import TCP, UDP, Packet, Reason, Unknown, decode, decode_any

_LINK_TYPES = sorted(LINK_TYPES)


@contextmanager
def packet() -> Iterator[Check]:
    """An input is the bytes of a packet."""

    def check(data: bytes) -> None:
        plain = decode_any(data)
        sound(plain)
        assert decode(data) == plain
        assert decode(memoryview(b"xyz" + data), 3) == plain
        if native.road is None:
            return
        compiled = native.road.decode(data, 0, Packet)
        if compiled is not None:
            assert repr(compiled) == repr(plain)
        elif isinstance(plain, Packet):
            assert not is_plain(data, plain), plain

    yield check


@contextmanager
def frame() -> Iterator[Check]:
    """An input is a number, which chooses the link type, and the bytes of a frame."""

    def check(data: bytes) -> None:
        if not data:
            return
        link_type = _LINK_TYPES[data[0] % len(_LINK_TYPES)]
        mac, found = decode_frame(link_type, data[1:])
        sound(found)
        assert mac is None or len(mac) == 6
        assert decode_frame(link_type, memoryview(data)[1:]) == (mac, found)

    yield check


def sound(found: Packet | Unknown) -> None:
    """What any packet must be."""
    if isinstance(found, Unknown):
        assert found.reason in Reason
        return
    size = {4: 4, 6: 16}[found.version]
    assert len(found.source) == len(found.destination) == size
    assert type(found.source) is bytes
    assert 0 <= found.protocol <= 255
    assert 0 <= found.port <= 65535
    assert 0 <= found.source_port <= 65535
    if found.quoted is not None:
        assert found.quoted.quoted is None
        sound(found.quoted)


def is_plain(data: bytes, found: Packet) -> bool:
    """TCP or UDP, no fragment, no extension headers; but for a jumbogram's UDP, whose length is 0 (RFC 2675)."""
    if found.protocol not in (TCP, UDP):
        return False
    if found.version == 6:
        whole, transport = data[6] == found.protocol, 40
    else:
        whole, transport = struct.unpack_from("!H", data, 6)[0] & 0x3FFF == 0, (data[0] & 15) * 4
    return whole and not (found.protocol == UDP and data[transport + 4 : transport + 6] == b"\0\0")
