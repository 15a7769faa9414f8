from __future__ import annotations

import gzip
import io
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from glacic.errors import CaptureError
from glacic.learning.capture import LAST_TIME_NS, MAX_FRAME, Capture, Record

ETHERNET = 1
FRAMES = [b"first frame", b"", b"third" * 100]


def pcap(
    *frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, version: tuple[int, int] = (2, 4), link: int = 1
) -> bytes:
    header = struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, link)
    return header + b"".join(record(frame, order=order, fraction=5 + n) for n, frame in enumerate(frames))


def record(frame: bytes, order: str = "<", fraction: int = 0, original: int | None = None) -> bytes:
    lengths = len(frame), len(frame) if original is None else original
    return struct.pack(order + "IIII", 1_700_000_000, fraction, *lengths) + frame


def read(data: bytes) -> tuple[list[Record], str | None]:
    capture = Capture(io.BytesIO(data), "x.pcap")
    records = list(capture.records())
    return records, capture.damage


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_frames_come_out_as_they_went_in_whatever_the_byte_order_and_the_clock(order, magic, unit_ns):
    records, damage = read(pcap(*FRAMES, order=order, magic=magic))
    assert damage is None
    assert [r.data for r in records] == FRAMES
    assert [r.time_ns for r in records] == [1_700_000_000_000_000_000 + (5 + n) * unit_ns for n in range(3)]
    assert {r.link_type for r in records} == {ETHERNET}


@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_files_of_another_program_are_read(tmp_path, nano, endianness):
    path = tmp_path / "scapy.pcap"
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.1.0.2", dst="192.0.2.1") / TCP()
    frame.time = 1_700_000_000.25
    wrpcap(str(path), [frame] * 3, nano=nano, endianness=endianness)
    records, damage = read(path.read_bytes())
    assert damage is None
    assert [r.data for r in records] == [bytes(frame)] * 3
    assert records[0].time_ns == 1_700_000_000_250_000_000


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_variant_with_longer_record_headers_is_read(order):
    longer = struct.pack(order + "IIIIIHBB", 1, 2, 3, 3, 7, 8, 0, 0) + b"abc"
    records, damage = read(pcap(order=order, magic=0xA1B2CD34) + longer * 2)
    assert damage is None
    assert [r.data for r in records] == [b"abc", b"abc"]


def test_a_frame_that_was_cut_when_it_was_captured_keeps_its_length():
    records, _ = read(pcap() + record(b"abc", original=1500))
    assert (records[0].data, records[0].original_length) == (b"abc", 1500)


def test_lengths_that_old_programs_wrote_the_other_way_round_are_turned_back():
    swapped = struct.pack("<IIII", 1, 2, 1500, 3) + b"abc"
    records, damage = read(pcap(version=(2, 2)) + swapped)
    assert damage is None
    assert (records[0].data, records[0].original_length) == (b"abc", 1500)


def test_a_link_type_may_say_that_frames_end_in_a_checksum():
    assert read(pcap(b"abc", link=0x4400_0001))[0][0].link_type == ETHERNET


def test_the_last_moment_that_a_capture_can_name_fits_the_database():
    records, _ = read(pcap() + struct.pack("<IIII", 0xFFFF_FFFF, 0xFFFF_FFFF, 0, 0))
    assert records[0].time_ns < LAST_TIME_NS


def test_a_capture_without_packets_is_no_mistake():
    assert read(pcap()) == ([], None)


# ---- damage


def test_a_capture_cut_anywhere_in_its_last_packet_gives_all_the_others():
    whole = pcap(*FRAMES)
    for cut in range(1, 16 + len(FRAMES[2])):
        records, damage = read(whole[:-cut])
        assert [r.data for r in records] == FRAMES[:2]
        assert damage is not None
        assert "x.pcap: damaged at byte 67" in damage
        assert "ends in the middle of a packet" in damage


@pytest.mark.parametrize("length", range(4, 24))
def test_a_capture_cut_in_its_header_is_damaged_and_not_refused(length):
    records, damage = read(pcap(b"abc")[:length])
    assert records == []
    assert damage is not None


@pytest.mark.parametrize("captured", [MAX_FRAME + 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_length_that_cannot_be_ends_the_capture_and_is_not_believed(captured):
    data = pcap(b"abc") + struct.pack("<IIII", 0, 0, captured, captured) + bytes(1000)
    tracemalloc.start()
    try:
        records, damage = read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [r.data for r in records] == [b"abc"]
    assert damage is not None
    assert f"a packet of {captured} bytes" in damage
    assert peak < 8 << 20


def test_the_longest_frame_there_is_can_be_read():
    assert len(read(pcap(bytes(MAX_FRAME)))[0][0].data) == MAX_FRAME


def test_frames_come_out_whole_where_the_buffer_is_filled_again():
    frames = [struct.pack("!I", n) * (1 + n % 300) for n in range(5000)]
    records, damage = read(pcap(*frames))
    assert damage is None
    assert [r.data for r in records] == frames


def test_a_long_capture_needs_no_more_memory_than_a_short_one():
    def peak(packets: int) -> int:
        file = io.BytesIO(pcap() + record(bytes(60)) * packets)
        tracemalloc.start()
        try:
            for _ in Capture(file, "x").records():
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < 4 << 20


def test_position_counts_the_bytes_that_were_used():
    data = pcap(*FRAMES)
    capture = Capture(io.BytesIO(data), "x")
    places = [capture.position for _ in capture.records()]
    assert places == [24 + 16 + 11, 24 + 16 + 11 + 16, len(data)]


# ---- what is no capture


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\xd4\xc3", "no packet capture"),
        (b'zone "lan" {\n}\n', "no packet capture"),
        (bytes(4096), "no packet capture"),
        (b"\x7fELF" + bytes(100), "no packet capture"),
        (b"\x0a\x0d\x0d\x0a" + bytes(100), "no packet capture"),
        (gzip.compress(pcap(*FRAMES)), r"compressed \(gzip\): unpack it"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), r"compressed \(zstd\)"),
    ],
)
def test_what_is_no_capture_is_refused_in_words(data, words):
    with pytest.raises(CaptureError, match=rf"^x\.pcap: .*{words}"):
        Capture(io.BytesIO(data), "x.pcap")


@pytest.mark.parametrize("frames", [(), (b"abc",)])
def test_a_link_type_that_is_not_known_is_refused_by_its_number(frames):
    capture = Capture(io.BytesIO(pcap(*frames, link=105)), "x.pcap")
    with pytest.raises(CaptureError, match=r"x\.pcap: link type 105 is not known; Glacic reads Ethernet"):
        list(capture.records())


# ---- anything at all


@given(st.sampled_from(["<", ">"]), st.binary(max_size=300))
def test_no_bytes_behind_a_header_make_it_raise(order, data):
    for r in read(pcap(order=order) + data)[0]:
        assert len(r.data) <= 300


@given(st.binary(max_size=100))
def test_no_bytes_make_it_raise_anything_but_a_capture_error(data):
    try:
        read(data)
    except CaptureError as error:
        assert str(error).startswith("x.pcap: ")  # noqa: PT017 - both outcomes are fine
