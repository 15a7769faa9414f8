from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLQuery,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkHeartbeatReq, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from glacic.learning.packet import MAX_EXTENSION_HEADERS, Packet, Reason, Unknown, decode

LAPTOP, SERVER = "10.1.0.2", "192.0.2.1"
LAPTOP6, SERVER6 = "fd01::2", "2001:db8::1"


def ipv4(payload: Layers | bytes = b"", **fields: object) -> Layers:
    return IP(src=LAPTOP, dst=SERVER, **fields) / payload


def ipv6(payload: Layers | bytes = b"", **fields: object) -> Layers:
    return IPv6(src=LAPTOP6, dst=SERVER6, **fields) / payload


def read(layers: Layers) -> Packet:
    packet = decode(bytes(layers))
    assert isinstance(packet, Packet), packet
    return packet


def reason(data: Layers | bytes) -> Reason:
    packet = decode(bytes(data))
    assert isinstance(packet, Unknown), packet
    return packet.reason


SYN = TCP(sport=40000, dport=443, flags="S", options=[("MSS", 1460), ("WScale", 7), ("SAckOK", "")])
DNS = UDP(sport=40000, dport=53) / b"question"


# ---- what is read


@pytest.mark.parametrize(("make", "version", "source"), [(ipv4, 4, LAPTOP), (ipv6, 6, LAPTOP6)])
def test_a_packet_has_its_version_addresses_protocol_and_ports(make, version, source):
    packet = read(make(SYN))
    assert packet.version == version
    assert packet.source == ip_address(source).packed
    assert packet.destination == ip_address(SERVER if version == 4 else SERVER6).packed
    assert (packet.protocol, packet.source_port, packet.port) == (6, 40000, 443)
    assert packet.first
    assert not packet.neighbour


def test_every_byte_of_a_syn_is_where_the_rfcs_put_it():
    data = bytes.fromhex(
        "45 00 0028"  # version 4, header of 5 words, total length 40
        "1234 4000"  # identification, don't fragment
        "40 06 0000"  # 64 hops, TCP, checksum not set
        "0a010002 c0000201"  # from 10.1.0.2 to 192.0.2.1
        "9c40 01bb"  # from port 40000 to 443
        "00000001 00000000"  # sequence, acknowledgement
        "50 02 ffff 0000 0000"  # header of 5 words, SYN, window
    )
    assert decode(data) == Packet(
        version=4,
        source=bytes([10, 1, 0, 2]),
        destination=bytes([192, 0, 2, 1]),
        protocol=6,
        source_port=40000,
        port=443,
        first=True,
        neighbour=False,
    )


@pytest.mark.parametrize("make", [ipv4, ipv6])
@pytest.mark.parametrize(
    ("payload", "protocol", "port"),
    [
        (DNS, 17, 53),
        (SCTP(sport=1, dport=3868) / SCTPChunkInit(), 132, 3868),
        (SCTP(sport=1, dport=3868), 132, 3868),
    ],
)
def test_ports_are_read_from_every_protocol_that_has_them(make, payload, protocol, port):
    packet = read(make(payload))
    assert (packet.protocol, packet.port, packet.first) == (protocol, port, True)


@pytest.mark.parametrize("coverage", [0, 8, 12])
def test_udp_lite_has_ports_and_a_coverage_in_place_of_the_length(coverage):
    header = struct.pack("!HHHH", 5004, 5005, coverage, 1) + b"data"
    packet = read(ipv4(header, proto=136))
    assert (packet.protocol, packet.source_port, packet.port) == (136, 5004, 5005)


@pytest.mark.parametrize("protocol", [2, 4, 33, 41, 47, 50, 51, 89, 112, 0, 253, 255])
def test_any_other_protocol_has_no_port(protocol):
    packet = read(ipv4(b"whatever is in there", proto=protocol))
    assert (packet.protocol, packet.source_port, packet.port, packet.first) == (protocol, 0, 0, True)


def test_ipv4_options_are_stepped_over():
    options = [IPOption_Router_Alert(), IPOption_Timestamp()]
    assert read(ipv4(DNS, options=options)).port == 53
    assert read(ipv4(b"\x01" * 40 + bytes(DNS), ihl=15, proto=17)).port == 53  # as many as fit: 40 times "no operation"


EXTENSIONS = [
    IPv6ExtHdrHopByHop(),
    IPv6ExtHdrDestOpt(),
    IPv6ExtHdrRouting(addresses=["fd01::9", "fd01::a"]),
    IPv6ExtHdrFragment(offset=0, m=0),
    IPv6ExtHdrFragment(offset=0, m=1),
    AH(nh=17, icv=b"0" * 12, payloadlen=4),
]


@pytest.mark.parametrize("header", EXTENSIONS, ids=lambda header: header.name)
def test_ipv6_extension_headers_are_stepped_over(header):
    packet = read(ipv6(header / DNS))
    assert (packet.protocol, packet.source_port, packet.port) == (17, 40000, 53)


def test_all_ipv6_extension_headers_at_once_are_stepped_over():
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / IPv6ExtHdrFragment()
    chain /= AH(nh=60, icv=b"0" * 12, payloadlen=4)
    assert read(ipv6(chain / IPv6ExtHdrDestOpt() / SYN)).port == 443


@pytest.mark.parametrize(
    ("following", "protocol"),
    [(59, 59), (135, 135), (139, 139), (253, 253)],
    ids=["no next header", "mobility", "host identity", "experiment"],
)
def test_a_header_that_the_kernel_does_not_step_over_is_the_protocol(following, protocol):
    packet = read(ipv6(IPv6ExtHdrDestOpt(nh=following) / Raw(bytes([6, 0, 0, 0, 0, 0, 0, 0]) + bytes(SYN))))
    assert (packet.protocol, packet.port) == (protocol, 0)


def test_esp_hides_what_it_carries():
    packet = read(ipv6(ESP(spi=1, seq=1, data=bytes(SYN))))
    assert (packet.protocol, packet.port) == (50, 0)


def test_a_packet_cut_to_a_copy_range_of_128_bytes_is_read():
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(addresses=["fd01::9"])
    whole = bytes(ipv6(chain / SYN / (b"x" * 1400)))
    packet = decode(whole[:128])
    assert isinstance(packet, Packet)
    assert packet.port == 443
    assert decode(memoryview(whole)) == decode(whole)


@pytest.mark.parametrize("make", [ipv4, ipv6])
def test_a_length_of_zero_is_what_segmentation_offload_leaves(make):
    packet = read(make(SYN / b"data", **({"len": 0} if make is ipv4 else {"plen": 0})))
    assert packet.port == 443


def test_the_first_fragment_is_read_and_a_later_one_is_not():
    assert read(ipv4(DNS, flags="MF")).port == 53
    assert reason(ipv4(b"the rest", proto=17, frag=2)) is Reason.FRAGMENT
    assert reason(ipv4(b"the rest", proto=17, frag=2, flags="MF")) is Reason.FRAGMENT
    assert read(ipv6(IPv6ExtHdrFragment(offset=0, m=1) / DNS)).port == 53
    assert reason(ipv6(IPv6ExtHdrFragment(offset=2, m=0, nh=17) / b"the rest")) is Reason.FRAGMENT


def test_a_first_fragment_may_hold_less_than_its_datagram():
    announced = struct.pack("!HHHH", 40000, 53, 4000, 0) + bytes(16)
    assert read(ipv4(announced, proto=17, flags="MF")).port == 53
    assert read(ipv6(IPv6ExtHdrFragment(m=1, nh=17) / announced)).port == 53
    assert reason(ipv4(announced, proto=17)) is Reason.MALFORMED
    assert reason(ipv6(announced, nh=17)) is Reason.MALFORMED


# ---- first packets


@pytest.mark.parametrize(
    ("flags", "first"),
    [
        ("S", True),
        ("SEC", True),  # asks for congestion notification (RFC 3168)
        ("SP", True),
        ("SA", False),
        ("A", False),
        ("PA", False),
        ("F", False),
        ("FA", False),
        ("R", False),
        ("RA", False),
        ("SR", False),
        ("SF", False),
        ("", False),
        ("FSRPAUEC", False),
        ("FPU", False),
    ],
)
def test_only_a_syn_alone_begins_a_tcp_connection(flags, first):
    packet = read(ipv4(TCP(dport=80, flags=flags)))
    assert packet.first is first
    assert packet.ends is ("F" in flags or "R" in flags)


@pytest.mark.parametrize(
    ("chunk", "first"),
    [
        (SCTPChunkInit(), True),
        (SCTPChunkHeartbeatReq(), True),
        (SCTPChunkInitAck(), False),
        (SCTPChunkData(data=b"x"), False),
        (Raw(b"\0\0\0\0"), True),  # no chunk at all
    ],
)
def test_an_sctp_association_begins_with_init(chunk, first):
    assert read(ipv4(SCTP(sport=1, dport=2) / chunk)).first is first


@pytest.mark.parametrize(
    ("kind", "first"),
    [(8, True), (13, True), (15, True), (17, True), (10, True), (42, True)]
    + [(kind, False) for kind in (0, 3, 4, 5, 9, 11, 12, 14, 16, 18, 43)],
)
def test_icmp_requests_are_first_packets_and_replies_and_errors_are_not(kind, first):
    packet = read(ipv4(struct.pack("!BBHHH", kind, 0, 0, 77, 1), proto=1))
    assert (packet.protocol, packet.port, packet.first) == (1, kind, first)


@pytest.mark.parametrize(
    ("kind", "first"),
    [(128, True), (139, True), (144, True), (200, True)] + [(k, False) for k in (1, 2, 3, 4, 100, 127, 129, 140)],
)
def test_icmpv6_requests_are_first_packets_and_replies_and_errors_are_not(kind, first):
    packet = read(ipv6(struct.pack("!BBHHH", kind, 0, 0, 77, 1), nh=58))
    assert (packet.protocol, packet.port, packet.first) == (58, kind, first)


def test_a_query_and_its_reply_carry_the_identifier_as_source_port():
    assert read(ipv4(ICMP(type=8, id=77))).source_port == 77
    assert read(ipv4(ICMP(type=0, id=77))).source_port == 77
    assert read(ipv6(ICMPv6EchoRequest(id=77))).source_port == 77
    assert read(ipv6(ICMPv6EchoReply(id=77))).source_port == 77
    assert read(ipv4(struct.pack("!BBHHH", 10, 0, 0, 77, 1), proto=1)).source_port == 0


# ---- what an ICMP error quotes


@pytest.mark.parametrize("quoted", [SYN, DNS, SCTP(sport=40000, dport=9)], ids=["tcp", "udp", "sctp"])
def test_an_icmp_error_quotes_the_packet_that_it_is_about(quoted):
    about = bytes(ipv4(quoted))[:28]  # the header and 8 bytes: all that RFC 792 asks for
    packet = read(ipv4(ICMP(type=3, code=3) / Raw(about)))
    assert packet.quoted is not None
    assert (packet.quoted.source, packet.quoted.source_port) == (ip_address(LAPTOP).packed, 40000)
    assert packet.quoted.port == quoted.dport
    assert not packet.first


@pytest.mark.parametrize("error", [ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded()])
def test_an_icmpv6_error_quotes_behind_extension_headers(error):
    packet = read(ipv6(error / ipv6(IPv6ExtHdrDestOpt() / DNS)))
    assert packet.quoted is not None
    assert (packet.quoted.protocol, packet.quoted.port) == (17, 53)


def test_an_icmp_error_that_quotes_nothing_readable_is_read_all_the_same():
    for about in (b"", b"\x45", bytes(ipv4(SYN))[:24], b"\xff" * 40, bytes(ipv6(SYN))):
        assert read(ipv4(ICMP(type=3) / Raw(about))).quoted is None


def test_a_quoted_query_keeps_its_identifier():
    packet = read(ipv4(ICMP(type=11) / Raw(bytes(ipv4(ICMP(type=8, id=9))))))
    assert packet.quoted is not None
    assert (packet.quoted.port, packet.quoted.source_port) == (8, 9)


# ---- neighbours


@pytest.mark.parametrize(
    "message",
    [ICMPv6ND_NS(), ICMPv6ND_NA(), ICMPv6ND_RS(), ICMPv6ND_RA(), ICMPv6MLQuery(), ICMPv6MLReport2()],
    ids=lambda message: message.name,
)
def test_what_ipv6_needs_on_the_link_is_neighbour_traffic(message):
    multicast = type(message) in (ICMPv6MLQuery, ICMPv6MLReport2)
    near = ipv6(IPv6ExtHdrHopByHop() / message, hlim=1) if multicast else ipv6(message, hlim=255)
    assert read(near).neighbour
    assert not read(near).first


@pytest.mark.parametrize("hops", [0, 2, 64, 254])
def test_discovery_from_beyond_the_link_is_neither_neighbour_traffic_nor_a_first_packet(hops):
    for message in (ICMPv6ND_NS(), ICMPv6ND_RA(), ICMPv6MLQuery()):
        packet = read(ipv6(message, hlim=hops))
        assert not packet.neighbour
        assert not packet.first


# ---- what is not read, and why


@pytest.mark.parametrize("whole", [ipv4(SYN), ipv4(ICMP()), ipv6(DNS), ipv6(ICMPv6EchoRequest()), ipv4(SCTP())])
def test_a_packet_cut_anywhere_in_its_headers_is_truncated(whole):
    data = bytes(whole)
    lengths = {6: 20, 17: 8, 1: 8, 58: 8, 132: 12}
    full = decode(data)
    assert isinstance(full, Packet)
    headers = (20 if full.version == 4 else 40) + lengths[full.protocol]
    for length in range(len(data)):
        cut = decode(data[:length])
        if length < headers:
            assert cut == Unknown(Reason.TRUNCATED), length
        else:
            assert isinstance(cut, Packet), length


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", Reason.TRUNCATED),
        (b"\x00" * 60, Reason.NOT_IP),
        (b"\x50" + b"\x00" * 60, Reason.NOT_IP),
        (b"\xff" * 60, Reason.NOT_IP),
        (bytes(ipv4(SYN, ihl=4)), Reason.MALFORMED),
        (bytes(ipv4(SYN, ihl=0)), Reason.MALFORMED),
        (bytes(ipv4(SYN, len=19)), Reason.MALFORMED),
        (bytes(ipv4(SYN, len=20)), Reason.TRUNCATED),  # the packet ends before its TCP header; what follows is padding
        (bytes(ipv4(SYN, len=39)), Reason.TRUNCATED),
        (bytes(ipv6(SYN, plen=19)), Reason.TRUNCATED),
        (bytes(ipv4(TCP(dataofs=4))), Reason.MALFORMED),
        (bytes(ipv4(TCP(dataofs=0))), Reason.MALFORMED),
        (bytes(ipv4(TCP(dataofs=15))), Reason.MALFORMED),  # longer than the packet
        (bytes(ipv4(UDP(len=7))), Reason.MALFORMED),
        (bytes(ipv4(UDP(len=0))), Reason.MALFORMED),
        (bytes(ipv4(UDP(len=9))), Reason.MALFORMED),
        (bytes(ipv4(struct.pack("!HHHH", 1, 2, 7, 0), proto=136)), Reason.MALFORMED),
        (bytes(ipv6(IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / DNS)), Reason.MALFORMED),
        (bytes(ipv6(bytes([17, 255, 0, 0, 0, 0, 0, 0]) + bytes(DNS), nh=60)), Reason.TRUNCATED),
    ],
)
def test_what_makes_no_sense_is_unknown_and_says_why(data, why):
    assert reason(data) is why


def test_a_chain_of_extension_headers_has_an_end():
    def chain(length: int) -> bytes:
        return bytes(
            ipv6(bytes([60, 0, 1, 4, 0, 0, 0, 0]) * (length - 1) + bytes([17, 0, 1, 4, 0, 0, 0, 0]) + bytes(DNS), nh=60)
        )

    assert isinstance(decode(chain(MAX_EXTENSION_HEADERS)), Packet)
    assert reason(chain(MAX_EXTENSION_HEADERS + 1)) is Reason.NESTED
    assert reason(chain(5000)) is Reason.NESTED


# ---- anything at all

VALID = [
    bytes(whole) for whole in (ipv4(SYN), ipv4(ICMP(type=3) / ipv4(DNS)), ipv6(EXTENSIONS[0] / EXTENSIONS[2] / SYN))
]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(data):
    assert isinstance(decode(data), Packet | Unknown)
    assert decode(memoryview(data)) == decode(data)


@given(st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.binary(max_size=120))
def test_no_bytes_behind_a_version_make_it_raise(first, data):
    packet = decode(bytes([first]) + data)
    if isinstance(packet, Packet):
        assert len(packet.source) == len(packet.destination) == (4 if packet.version == 4 else 16)
        assert 0 <= packet.port <= 65535
        assert 0 <= packet.source_port <= 65535
        assert not (packet.neighbour and packet.first)


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)), max_size=6),
    st.integers(0, 120),
)
def test_no_damage_makes_it_raise(data, changes, length):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    assert isinstance(decode(bytes(damaged[:length])), Packet | Unknown)
