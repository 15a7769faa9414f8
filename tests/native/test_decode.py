"""The compiled decoder against glacic/learning/packet.py, its slow twin.

What it answers, the twin answers as well and in the same way. What it leaves to the twin is never a plain packet.
"""

from __future__ import annotations

import struct
import sys
import tracemalloc
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glacic import native
from glacic.learning.packet import Packet, decode, decode_any

from .conftest import (
    CLIENT,
    CLIENT6,
    NOT_BUILT,
    SERVER,
    SERVER6,
    TCP,
    UDP,
    ipv4,
    ipv6,
    tcp,
    udp,
)

PORT = 443


def found(data: bytes, start: int = 0) -> Packet | None:
    """What the compiled decoder says."""
    assert native.road is not None, NOT_BUILT
    packet: Packet | None = native.road.decode(data, start, Packet)
    return packet


def check(data: bytes) -> None:
    packet, twin = found(data), decode_any(data)
    if packet is not None:
        assert packet == twin
        assert repr(packet) == repr(twin)  # to the types of its fields
    elif isinstance(twin, Packet):
        assert not is_plain(data, twin), twin
    assert decode(data) == twin


def is_plain(data: bytes, packet: Packet) -> bool:
    """TCP or UDP, no fragment, no extension headers; but for a jumbogram's UDP, whose length is 0 (RFC 2675)."""
    if packet.protocol not in (TCP, UDP):
        return False
    if packet.version == 6:
        whole, transport = data[6] == packet.protocol, 40
    else:
        whole, transport = struct.unpack_from("!H", data, 6)[0] & 0x3FFF == 0, (data[0] & 15) * 4
    return whole and not (packet.protocol == UDP and data[transport + 4 : transport + 6] == b"\0\0")


# ---- packets, right and wrong

lengths = st.one_of(st.none(), st.just(0), st.integers(0, 80), st.integers(0, 0xFFFF))
more = st.binary(max_size=24)
transports = st.one_of(
    st.tuples(st.just(TCP), st.builds(tcp, st.just(PORT), words=st.integers(0, 15), more=more)),
    st.tuples(st.just(UDP), st.builds(udp, st.just(PORT), length=lengths, more=more)),
    st.tuples(st.sampled_from([0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 136]), st.binary(max_size=64)),
)
fragments = st.sampled_from([0, 0, 0, 0x4000, 0x8000, 0x2000, 1, 0x1FFF, 0x3FFF])
options = st.sampled_from([b"", b"", bytes(4), bytes(40), b"\x44" + bytes(11)])
packets = st.one_of(
    st.builds(
        lambda transport, **fields: ipv4(*transport, **fields),
        transports,
        options=options,
        words=st.one_of(st.none(), st.integers(0, 15)),
        total=lengths,
        fragment=fragments,
    ),
    st.builds(lambda transport, length: ipv6(*transport, length=length), transports, lengths),
)
right = st.one_of(
    st.builds(lambda payload, options: ipv4(TCP, tcp(PORT, more=payload), options=options), more, options),
    st.builds(lambda payload, options: ipv4(UDP, udp(PORT, more=payload), options=options), more, options),
    st.builds(lambda payload: ipv6(TCP, tcp(PORT, more=payload)), more),
    st.builds(lambda payload: ipv6(UDP, udp(PORT, more=payload)), more),
)


@given(st.binary(max_size=160))
@example(b"")
def test_of_any_bytes_both_say_the_same(data: bytes) -> None:
    check(data)


@given(st.sampled_from([0x45, 0x46, 0x4F, 0x60, 0x6F]), st.binary(min_size=39, max_size=100))
def test_of_anything_that_begins_like_a_packet_both_say_the_same(first: int, rest: bytes) -> None:
    check(bytes([first]) + rest)


@given(packets)
@settings(max_examples=400)
def test_whatever_a_header_says_of_lengths_both_say_the_same(data: bytes) -> None:
    check(data)


@given(right)
def test_every_packet_both_say_the_same_of_at_any_cut(data: bytes) -> None:
    for size in range(len(data) + 1):
        check(data[:size])


@given(right, st.data())
@settings(max_examples=300)
def test_of_a_damaged_packet_both_say_the_same(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        damaged[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    check(bytes(damaged) + draw.draw(st.sampled_from([b"", bytes(6), b"\xff" * 40])))


@given(right)
def test_a_right_packet_is_answered(data: bytes) -> None:
    assert found(data) is not None


@given(st.one_of(right, packets), st.binary(max_size=5))
def test_a_packet_may_begin_anywhere(data: bytes, before: bytes) -> None:
    assert found(before + data, len(before)) == found(data)
    assert found(memoryview(before + data)[len(before) :]) == found(data)


V4, V6 = (CLIENT, SERVER), (CLIENT6, SERVER6)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (ipv4(TCP, tcp(PORT)), (*V4, TCP, PORT)),
        (ipv4(UDP, udp(PORT)), (*V4, UDP, PORT)),
        (ipv6(TCP, tcp(PORT)), (*V6, TCP, PORT)),
        (ipv6(UDP, udp(0xFFFF)), (*V6, UDP, 0xFFFF)),
        (ipv4(TCP, tcp(PORT), options=bytes(40)), (*V4, TCP, PORT)),
        (ipv4(TCP, tcp(PORT), fragment=0x4000), (*V4, TCP, PORT)),  # "do not fragment"
        (ipv4(TCP, tcp(PORT), total=0), (*V4, TCP, PORT)),  # segmentation offload
        (ipv6(TCP, tcp(PORT), length=0), (*V6, TCP, PORT)),
        (ipv4(TCP, tcp(PORT), total=1500), (*V4, TCP, PORT)),  # cut to the copy range
        (ipv6(UDP, udp(PORT, length=1452), length=1452), (*V6, UDP, PORT)),
        (ipv4(UDP, udp(PORT, more=b"")) + bytes(18), (*V4, UDP, PORT)),  # a link's padding
        (ipv4(TCP, tcp(PORT, words=15), total=80), (*V4, TCP, PORT)),  # options that are not all here
        (ipv4(TCP, tcp(PORT), fragment=0x2000), None),  # the first fragment
        (ipv4(TCP, tcp(PORT), fragment=1), None),
        (ipv4(TCP, tcp(PORT), total=39), None),  # ends within the header
        (ipv4(TCP, tcp(PORT, words=6), total=40), None),
        (ipv4(TCP, tcp(PORT, words=4)), None),
        (ipv4(UDP, udp(PORT, length=7)), None),
        (ipv4(UDP, udp(PORT, length=10)), None),  # more than the packet has
        (ipv6(UDP, udp(PORT, length=0), length=0), None),  # a jumbogram: Python's
        (ipv4(TCP, tcp(PORT), words=4), None),
        (ipv4(TCP, tcp(PORT), words=15), None),
        (ipv4(UDP, udp(PORT), words=4, total=0), None),
        (ipv4(UDP, udp(PORT), words=0, total=0), None),
        (ipv4(1, b"\x08" + bytes(7)), None),  # ICMP
        (ipv6(0, b"\x06" + bytes(7) + tcp(PORT)), None),  # a hop-by-hop header before TCP
        (ipv6(44, b"\x06" + bytes(7) + tcp(PORT)), None),  # an atomic fragment
        (b"\x50" + ipv4(TCP, tcp(PORT))[1:], None),  # version 5
        (ipv6(TCP, tcp(PORT))[:39], None),
    ],
)
def test_what_is_plain(data: bytes, key: tuple[bytes, bytes, int, int] | None) -> None:
    check(data)
    packet = found(data)
    assert (packet and (packet.source, packet.destination, packet.protocol, packet.port)) == key


def test_the_flags_of_tcp_say_what_it_is() -> None:
    for flags in range(256):
        data = ipv4(TCP, tcp(PORT, flags=flags))
        packet = found(data)
        assert packet is not None
        assert packet == decode_any(data)
        assert (packet.first, packet.ends) == (flags & 0x17 == 0x02, flags & 0x05 != 0)


def test_any_buffer_will_do_wherever_it_begins() -> None:
    packet = ipv4(TCP, tcp(PORT))
    for shift in range(8):
        shifted = bytes(shift) + packet
        for data in (shifted, bytearray(shifted), memoryview(shifted)):
            assert found(cast(bytes, data), shift) == decode_any(packet)


@pytest.mark.parametrize("start", [-1, -40, -(1 << 62), 1, 39, 40, 41, 1 << 62])
def test_where_no_packet_begins_python_is_asked(start: int) -> None:
    assert found(ipv4(TCP, tcp(PORT)), start) is None


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"",),
        (b"", 0),
        (b"", 0, Packet, 1),
        ("text", 0, Packet),
        (5, 0, Packet),
        (None, 0, Packet),
        (memoryview(bytes(80))[::2], 0, Packet),
        (b"", "0", Packet),
        (b"", 1 << 70, Packet),
        (b"", 0, int),
        (b"", 0, None),
        (b"", 0, Packet(4, b"", b"", 6)),
    ],
)
def test_what_is_no_packet_is_refused(road: ModuleType, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, BufferError, OverflowError)):
        road.decode(*arguments)


def test_nothing_is_kept_of_a_packet(road: ModuleType) -> None:
    data = ipv4(TCP, tcp(PORT))
    made = [road.decode(data, 0, Packet) for _ in range(100)]
    references = [sys.getrefcount(thing) for thing in (data, Packet, made[0], made[0].source)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            assert (road.decode(data[: 30 + number % 2], 0, Packet) or road.decode(data, 0, Packet)) == made[0]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5000
    assert references == [sys.getrefcount(thing) for thing in (data, Packet, made[0], made[0].source)]
