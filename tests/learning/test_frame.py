from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, SNAP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether, Loopback
from scapy.layers.ppp import PPPoE
from scapy.packet import Packet as Layers

from glacic.learning import frame as frame_module
from glacic.learning.frame import LINK_TYPES, decode_frame
from glacic.learning.packet import Packet, Reason, Unknown

MAC = bytes.fromhex("020000000001")
SYN = IP(src="10.1.0.2", dst="192.0.2.1") / TCP(dport=443)
SYN6 = IPv6(src="fd01::2", dst="2001:db8::1") / TCP(dport=443)

ETHERNET, RAW, COOKED, COOKED2, NULL, LOOP, IPV4, IPV6 = 1, 101, 113, 276, 0, 108, 228, 229


def ether(payload: Layers | bytes, **fields: object) -> Layers:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields) / payload


def reads_https(link_type: int, data: Layers | bytes) -> bytes | None:
    """The MAC, if the frame is read as it should be."""
    mac, packet = decode_frame(link_type, bytes(data))
    assert isinstance(packet, Packet), packet
    assert (packet.protocol, packet.port) == (6, 443)
    return mac


def reason(link_type: int, data: Layers | bytes) -> Reason:
    _, packet = decode_frame(link_type, bytes(data))
    assert isinstance(packet, Unknown), packet
    return packet.reason


@pytest.mark.parametrize("payload", [SYN, SYN6])
def test_an_ethernet_frame_has_the_mac_of_its_sender(payload):
    assert reads_https(ETHERNET, ether(payload)) == MAC


@pytest.mark.parametrize(
    "tags",
    [
        Dot1Q(vlan=5),
        Dot1Q(vlan=0, prio=7),
        Dot1AD(vlan=100) / Dot1Q(vlan=5),
        Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / Dot1Q(vlan=4),
    ],
)
def test_vlan_tags_are_stepped_over(tags):
    assert reads_https(ETHERNET, ether(tags / SYN)) == MAC
    assert reads_https(ETHERNET, ether(tags / SYN6)) == MAC


def test_a_tower_of_vlan_tags_has_an_end():
    tower = ether(bytes.fromhex("00058100") * 4 + bytes.fromhex("00050800") + bytes(SYN), type=0x8100)
    assert reason(ETHERNET, tower) is Reason.NESTED


def test_a_frame_padded_to_the_least_length_is_read_without_its_padding():
    short = IP(src="10.1.0.2", dst="192.0.2.1", len=20, proto=6)
    assert reason(ETHERNET, bytes(ether(short)) + bytes(26)) is Reason.TRUNCATED


def test_a_frame_on_the_loopback_interface_names_nobody():
    assert reads_https(ETHERNET, bytes(12) + b"\x08\x00" + bytes(SYN)) is None
    assert reads_https(ETHERNET, MAC + bytes(6) + b"\x08\x00" + bytes(SYN)) == bytes(6)


@pytest.mark.parametrize(
    "frame",
    [
        ether(ARP()),
        ether(Dot1Q(vlan=5) / ARP()),
        ether(PPPoE() / b"\x00\x21" / SYN),
        Dot3(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / LLC() / SNAP() / SYN,
        ether(b"\x00" * 46, type=0x88CC),
        ether(b"", type=0xFFFF),
    ],
    ids=["ARP", "ARP in a VLAN", "PPPoE", "SNAP", "LLDP", "nothing"],
)
def test_what_linux_hands_to_another_layer_is_not_ip(frame):
    assert reason(ETHERNET, frame) is Reason.NOT_IP


def test_a_type_that_the_packet_contradicts_is_malformed():
    assert reason(ETHERNET, ether(SYN6, type=0x0800)) is Reason.MALFORMED
    assert reason(ETHERNET, ether(bytes(SYN) + bytes(20), type=0x86DD)) is Reason.MALFORMED
    assert reason(IPV4, SYN6) is Reason.MALFORMED
    assert reason(IPV6, bytes(SYN) + bytes(20)) is Reason.MALFORMED


@pytest.mark.parametrize("link_type", [RAW, 12, 14])
def test_raw_ip_is_either_version(link_type):
    assert reads_https(link_type, SYN) is None
    assert reads_https(link_type, SYN6) is None
    assert reason(link_type, b"\x00" * 40) is Reason.NOT_IP
    assert reason(link_type, b"") is Reason.TRUNCATED


def test_raw_ip_of_one_version_is_read():
    assert reads_https(IPV4, SYN) is None
    assert reads_https(IPV6, SYN6) is None


def test_a_cooked_frame_has_a_mac_only_where_its_link_is_of_ethernet_type():
    def frame(hardware: int, length: int) -> bytes:
        return struct.pack("!HHH8sH", 0, hardware, length, MAC, 0x0800) + bytes(SYN)

    assert reads_https(COOKED, frame(1, 6)) == MAC
    assert reads_https(COOKED, frame(772, 6)) is None  # the loopback interface
    assert reads_https(COOKED, frame(778, 4)) is None  # GRE
    assert reads_https(COOKED, frame(1, 8)) is None
    assert reads_https(COOKED, CookedLinux(lladdrtype=1, lladdrlen=6, src=MAC, proto=0x86DD) / SYN6) == MAC


def test_a_cooked_frame_of_version_2_is_read_alike():
    def frame(hardware: int, length: int, ether_type: int = 0x0800, payload: bytes = bytes(SYN)) -> bytes:
        return struct.pack("!HHIHBB8s", ether_type, 0, 3, hardware, 0, length, MAC) + payload

    assert reads_https(COOKED2, frame(1, 6)) == MAC
    assert reads_https(COOKED2, frame(65534, 0)) is None  # tun
    assert reads_https(COOKED2, frame(1, 6, 0x8100, b"\0\5\x08\0" + bytes(SYN))) == MAC
    assert reason(COOKED2, frame(1, 6, 0x0806, bytes(28))) is Reason.NOT_IP
    assert reads_https(COOKED2, CookedLinuxV2(proto=0x86DD, lladdrtype=1, lladdrlen=6, src=MAC) / SYN6) == MAC


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("family", "payload"), [(2, SYN), (10, SYN6), (24, SYN6), (28, SYN6), (30, SYN6)])
def test_a_bsd_loopback_frame_begins_with_its_family_in_either_byte_order(order, family, payload):
    assert reads_https(NULL, struct.pack(order + "I", family) + bytes(payload)) is None
    assert reads_https(LOOP, struct.pack(">I", family) + bytes(payload)) is None


def test_a_bsd_loopback_frame_of_another_family_is_not_ip():
    assert reason(NULL, struct.pack("<I", 7) + bytes(SYN)) is Reason.NOT_IP
    assert reason(NULL, Loopback(type=0) / SYN) is Reason.NOT_IP
    assert reason(NULL, b"\2\0\0") is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("link_type", "header"), [(ETHERNET, ether(SYN)), (ETHERNET, ether(Dot1Q() / SYN)), (COOKED, CookedLinux() / SYN)]
)
def test_a_frame_cut_in_its_own_header_is_truncated(link_type, header):
    data = bytes(header)
    for length in range(len(data) - len(SYN)):
        assert reason(link_type, data[:length]) is Reason.TRUNCATED


def test_a_link_type_that_is_not_known_says_so():
    assert reason(105, ether(SYN)) is Reason.LINK_TYPE


@given(st.sampled_from(sorted(LINK_TYPES)), st.binary(max_size=120))
def test_no_bytes_make_it_raise(link_type, data):
    mac, packet = decode_frame(link_type, data)
    assert isinstance(packet, Packet | Unknown)
    assert mac is None or len(mac) == 6


@given(st.binary(max_size=24), st.sampled_from([0x0800, 0x86DD, 0x8100, 0x88A8]), st.binary(max_size=100))
def test_no_bytes_behind_an_ethertype_make_it_raise(tags, ether_type, data):
    frame = MAC + MAC + ether_type.to_bytes(2, "big") + tags + data
    assert isinstance(decode_frame(ETHERNET, frame)[1], Packet | Unknown)


PLAIN = [
    Ether(src=MAC.hex(":"), dst="02:00:00:00:00:02") / network / transport
    for network in (IP(src="10.1.0.2", dst="192.0.2.1"), IPv6(src="fd00::2", dst="2001:db8::1"))
    for transport in (
        TCP(sport=4000, dport=443, flags="S"),
        TCP(sport=443, dport=4000, flags="SA", options=[("MSS", 1460)]),
        TCP(sport=4000, dport=443, flags="FA") / b"data",
        UDP(sport=4000, dport=53) / (b"query" * 5),
        UDP(sport=4000, dport=53),
    )
]
INTERESTING = st.sampled_from(
    [0, 1, 2, 4, 5, 6, 8, 0x11, 0x14, 0x1F, 0x20, 0x40, 0x45, 0x46, 0x4F, 0x50, 0x60, 0x86, 0xFF]
)


@given(
    st.sampled_from([bytes(frame) for frame in PLAIN]),
    st.lists(st.tuples(st.integers(0, 75), INTERESTING | st.integers(0, 255)), max_size=3),
    st.integers(0, 20) | st.integers(40, 100),
    st.binary(max_size=12),
    st.booleans(),
)
def test_plain_frames_and_what_is_nearly_plain_are_read_in_one_step_as_in_many(
    frame: bytes, changes: list[tuple[int, int]], cut: int, padding: bytes, loopback: bool
) -> None:
    data = bytearray(frame[:cut] + padding if cut > 40 else frame + padding)
    for at, value in changes:
        data[at % len(data)] = value
    if loopback:
        data[: 12 - cut % 3] = bytes(12 - cut % 3)
    for form in (bytes(data), memoryview(bytes(data))):
        assert decode_frame(1, form) == frame_module._any_ethernet(form)


def test_plain_frames_need_no_second_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_module, "_any_ethernet", None)
    for frame in PLAIN:
        _, packet = decode_frame(1, bytes(frame) + bytes(10))
        assert isinstance(packet, Packet)
