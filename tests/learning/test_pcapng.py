from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable, Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter

from glacic.errors import CaptureError
from glacic.learning import pcapng
from glacic.learning import stream as stream_module
from glacic.learning.capture import Capture, Record
from glacic.learning.pcapng import MAX_BLOCK
from glacic.learning.stream import LAST_TIME_NS, Stream

ETHERNET, RAW, WIFI = 1, 101, 105
NOW_US = 1_700_000_000_000_005


class Writer:
    """Writes blocks in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def block(self, kind: int, body: bytes) -> bytes:
        padded = body + bytes(-len(body) % 4)
        length = struct.pack(self.order + "I", 12 + len(padded))
        return struct.pack(self.order + "I", kind) + length + padded + length

    def section(self, version: tuple[int, int] = (1, 0), options: bytes = b"") -> bytes:
        return self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, *version, -1) + options)

    def interface(self, link: int = ETHERNET, snap: int = 0, options: bytes = b"") -> bytes:
        return self.block(1, struct.pack(self.order + "HHI", link, 0, snap) + options)

    def option(self, code: int, value: bytes) -> bytes:
        return struct.pack(self.order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    def packet(
        self, data: bytes, interface: int = 0, time: int = NOW_US, original: int | None = None, more: bytes = b""
    ) -> bytes:
        original = len(data) if original is None else original
        fields = struct.pack(self.order + "IIIII", interface, time >> 32, time & 0xFFFF_FFFF, len(data), original)
        return self.block(6, fields + data + bytes(-len(data) % 4) + more)

    def old_packet(self, data: bytes, interface: int = 0, time: int = NOW_US) -> bytes:
        times = time >> 32, time & 0xFFFF_FFFF
        return self.block(2, struct.pack(self.order + "HHIIII", interface, 3, *times, len(data), len(data)) + data)

    def simple_packet(self, data: bytes, original: int | None = None) -> bytes:
        return self.block(3, struct.pack(self.order + "I", len(data) if original is None else original) + data)


def read(data: bytes) -> tuple[list[Record], str | None]:
    capture = Capture(io.BytesIO(data), "x.pcapng")
    records = list(capture.records())
    return records, capture.damage


W = Writer()


@pytest.mark.parametrize("order", ["<", ">"])
def test_packets_of_all_three_kinds_come_out_in_order(order):
    w = Writer(order)
    data = w.section() + w.interface() + w.packet(b"enhanced") + w.old_packet(b"obsolete") + w.simple_packet(b"simple")
    records, damage = read(data)
    assert damage is None
    assert [r.data for r in records] == [b"enhanced", b"obsolete", b"simple"]
    assert [r.time_ns for r in records] == [NOW_US * 1000] * 3  # a simple packet has no time: the last one's
    assert {r.link_type for r in records} == {ETHERNET}


def test_files_of_another_program_are_read(tmp_path):
    path = tmp_path / "scapy.pcapng"
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.1.0.2", dst="192.0.2.1") / TCP()
    frame.time = 1_700_000_000.25
    with PcapNgWriter(str(path)) as writer:
        writer.write([frame] * 3)
    records, damage = read(path.read_bytes())
    assert damage is None
    assert [r.data for r in records] == [bytes(frame)] * 3
    assert records[0].time_ns == 1_700_000_000_250_000_000


def test_sections_in_both_byte_orders_each_with_their_own_interfaces():
    other = Writer(">")
    data = (
        W.section()
        + W.interface(ETHERNET)
        + W.packet(b"one")
        + other.section()
        + other.interface(RAW)
        + other.packet(b"two")
    )
    records, damage = read(data)
    assert damage is None
    assert [(r.data, r.link_type) for r in records] == [(b"one", ETHERNET), (b"two", RAW)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "time", "time_ns"),
    [
        (None, 1_000_000, 1_000_000_000),
        (b"\x06", 1_000_000, 1_000_000_000),
        (b"\x09", 1_000_000_001, 1_000_000_001),
        (b"\x03", 1_500, 1_500_000_000),
        (b"\x00", 7, 7_000_000_000),
        (b"\x0c", 1_000_000_000_999, 1_000_000_000),
        (b"\x8a", 1024 + 512, 1_500_000_000),
        (b"\xff", 1, 0),
        (b"\x7f", 1, 0),
        (b"\x00", (1 << 64) - 1, LAST_TIME_NS),
    ],
)
def test_each_interface_has_its_own_clock(order, resolution, time, time_ns):
    w = Writer(order)
    options = b"" if resolution is None else w.option(2, b"eth0") + w.option(9, resolution) + w.option(0, b"")
    records, _ = read(w.section() + w.interface(options=options) + w.packet(b"x", time=time))
    assert records[0].time_ns == time_ns


@pytest.mark.parametrize(
    ("offset_s", "time_ns"), [(100, 101_000_000_000), (-5, 0), (-(1 << 63), 0), ((1 << 63) - 1, LAST_TIME_NS)]
)
def test_a_clock_may_have_an_offset(offset_s, time_ns):
    options = W.option(14, struct.pack("<q", offset_s))
    records, _ = read(W.section() + W.interface(options=options) + W.packet(b"x", time=1_000_000))
    assert records[0].time_ns == time_ns


def test_options_that_make_no_sense_are_passed_over():
    for options in (W.option(9, b"\x06\x06"), struct.pack("<HH", 9, 4000), b"\x09\x00", W.option(14, b"\0")):
        records, damage = read(W.section() + W.interface(options=options) + W.packet(b"x"))
        assert records[0].time_ns == NOW_US * 1000
        assert damage is None


def test_a_simple_packet_is_cut_where_its_interface_says():
    data = W.section() + W.interface(snap=4) + W.simple_packet(b"abcd", original=1500)
    assert [(r.data, r.original_length) for r in read(data)[0]] == [(b"abcd", 1500)]
    unlimited = W.section() + W.interface() + W.simple_packet(b"abcde")  # padded to 8
    assert read(unlimited)[0][0].data == b"abcde"


def test_what_is_noted_about_a_packet_is_not_part_of_it():
    comment = W.option(1, b"a comment") + W.option(0, b"")
    records, damage = read(W.section() + W.interface() + W.packet(b"abc", more=comment) + W.packet(b"def"))
    assert damage is None
    assert [r.data for r in records] == [b"abc", b"def"]


def test_other_blocks_are_stepped_over_whatever_their_length():
    others = b"".join(W.block(kind, bytes(40)) for kind in (4, 5, 0x0A, 0xBAD, 0x4000_0BAD, 0x8000_0001))
    huge = W.block(0x0A, bytes(MAX_BLOCK + 4))
    tracemalloc.start()
    try:
        file = io.BytesIO(W.section() + others + W.interface() + others + huge + W.packet(b"abc"))
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        capture = Capture(file, "x")
        assert [r.data for r in capture.records()] == [b"abc"]
        assert tracemalloc.get_traced_memory()[1] - before < 6 << 20
    finally:
        tracemalloc.stop()
    assert capture.damage is None


def test_a_capture_without_packets_is_no_mistake():
    assert read(W.section()) == ([], None)
    assert read(W.section() + W.interface()) == ([], None)


# ---- link types


def test_a_link_type_that_is_not_known_is_refused_if_there_is_no_other():
    for data in (W.interface(WIFI), W.interface(WIFI) + W.packet(b"x"), W.interface(WIFI) + W.packet(b"x") + b"damage"):
        with pytest.raises(CaptureError, match="link type 105"):
            read(W.section() + data)


def test_beside_a_known_link_type_packets_of_an_unknown_one_come_out_too():
    data = W.section() + W.interface(WIFI) + W.interface(ETHERNET) + W.packet(b"x", 0) + W.packet(b"y", 1)
    records, damage = read(data)
    assert damage is None
    assert [(r.data, r.link_type) for r in records] == [(b"x", WIFI), (b"y", ETHERNET)]


# ---- damage

GOOD = W.section() + W.interface() + W.packet(b"good")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (W.packet(b"x", interface=1), "interface 1, which the file does not describe"),
        (struct.pack("<II", 6, 8) + bytes(20), "cannot have 8 bytes"),
        (struct.pack("<II", 6, 0) + bytes(20), "cannot have 0 bytes"),
        (struct.pack("<II", 6, 33) + bytes(40), "cannot have 33 bytes"),
        (struct.pack("<II", 6, 0xFFFF_FFFC) + bytes(40), "more than any capture holds"),
        (struct.pack("<II", 6, MAX_BLOCK) + bytes(40), "in the middle of a packet"),
        (struct.pack("<II", 4, 0xFFFF_FFFC) + bytes(40), "in the middle of a block"),
        (W.packet(b"abcd")[:-4] + struct.pack("<I", 40), "two different lengths"),
        (W.block(5, bytes(8))[:-4] + struct.pack("<I", 40), "two different lengths"),
        (W.block(6, bytes(16)), "too short"),
        (W.block(2, bytes(16)), "too short"),
        (W.block(3, b""), "too short"),
        (W.block(1, bytes(4)), "too short"),
        (W.block(6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + bytes(4)), "does not fit its block"),
        (W.block(6, struct.pack("<IIIII", 0, 0, 0, 0xFFFF_FFFF, 5) + bytes(4)), "does not fit its block"),
        (W.section(version=(2, 0)), "version 2.0"),
        (W.block(0x0A0D0D0A, bytes(16)), "no byte order"),
        (b"\0" * 40, "cannot have 0 bytes"),
    ],
)
def test_a_block_that_contradicts_itself_ends_the_capture_and_says_where(bad, words):
    records, damage = read(GOOD + bad + W.packet(b"never reached"))
    assert [r.data for r in records] == [b"good"]
    assert damage is not None
    assert words in damage
    assert "damaged at byte" in damage


@pytest.mark.parametrize("length", range(12, len(GOOD)))
def test_a_capture_cut_anywhere_is_read_as_far_as_it_goes(length):
    records, damage = read(GOOD[:length])
    assert records == []
    assert (damage is None) == (length in (28, 28 + 20))  # between two blocks


def test_a_section_without_interfaces_has_no_packets():
    assert "interface 0" in (read(W.section() + W.packet(b"x"))[1] or "")
    assert "interface 0" in (read(W.section() + W.simple_packet(b"x"))[1] or "")


def test_interfaces_without_end_are_damage():
    records, damage = read(W.section() + W.interface() * 65_537)
    assert records == []
    assert "more interfaces than any machine" in (damage or "")


# ---- anything at all

BLOCKS: list[Callable[[bytes], bytes]] = [
    W.packet,
    lambda data: W.simple_packet(data + bytes(-len(data) % 4)),
    lambda data: W.block(1, data),
    lambda data: W.block(6, data),
    lambda data: W.block(2, data),
    lambda data: W.block(4, data),
    lambda data: data,
]


@given(st.lists(st.tuples(st.sampled_from(BLOCKS), st.binary(max_size=60)), max_size=6))
def test_no_blocks_make_it_raise(blocks):
    records, _ = read(GOOD + b"".join(make(data) for make, data in blocks))
    assert records[0].data == b"good"


@given(st.lists(st.tuples(st.integers(12, len(GOOD) - 1), st.integers(0, 255)), max_size=4))
def test_no_damage_makes_it_raise_anything_but_a_capture_error(changes):
    damaged = bytearray(GOOD)
    for place, value in changes:
        damaged[place] = value
    try:
        records, _ = read(bytes(damaged))
        assert len(records) <= 1
    except CaptureError as error:
        assert "link type" in str(error)  # noqa: PT017 - both outcomes are fine


def no_plain_packets(
    _stream: Stream, _layout: pcapng.Layout, _interfaces: list[pcapng.Interface], time_ns: int
) -> Generator[Record, None, int]:
    """No packet is read the short way."""
    yield from ()
    return time_ns


MANY = [
    b"".join(
        [
            w.section(),
            w.interface(),
            w.interface(RAW, options=w.option(9, b"\x09")),
            w.packet(b"one"),
            w.packet(b"two, and more", 1, NOW_US * 1000),
            w.simple_packet(b"three"),
            w.packet(b"", more=w.option(1, b"a comment")),
            w.block(4, bytes(8)),
            w.packet(b"last"),
        ]
    )
    for w in (W, Writer(">"))
]


@given(
    st.sampled_from(MANY),
    st.lists(st.tuples(st.integers(28, len(MANY[0]) - 1), st.integers(0, 255)), max_size=3),
    st.integers(0, len(MANY[0])),
    st.integers(1, 200),
)
def test_packets_read_the_short_way_are_those_read_the_long_way(
    whole: bytes, changes: list[tuple[int, int]], cut: int, chunk: int
) -> None:
    data = bytearray(whole)
    for at, value in changes:
        data[at] = value
    data = data[:-cut] if cut % 3 == 0 else data
    outcomes = []
    for way in (pcapng._plain_packets, no_plain_packets):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pcapng, "_plain_packets", way)
            patch.setattr(stream_module, "_CHUNK", chunk)
            try:
                outcomes.append(read(bytes(data)))
            except CaptureError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_nearly_all_packets_are_read_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcapng, "_packet", None)
    records, damage = read(W.section() + W.interface() + b"".join(W.packet(bytes(length)) for length in range(200)))
    assert ([len(record.data) for record in records], damage) == (list(range(200)), None)
