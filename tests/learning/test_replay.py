"""Captures of our own making, through the service's own decoder and engine."""

from __future__ import annotations

import struct
import tracemalloc
from collections import Counter
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    ICMPv6ND_RS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet as Layers
from scapy.utils import PcapNgWriter, wrpcap

from glacic.config.model import Action, Config, Granularity, Identity, Policy, RuleLearning, Zone
from glacic.errors import CaptureError, GlacicError
from glacic.learning import cache
from glacic.learning.flow import Why
from glacic.learning.packet import Reason
from glacic.learning.replay import Report, replay

LAPTOP, LAPTOP6, LAPTOP_MAC = "10.1.0.2", "fd01::2", "02:00:00:00:00:01"
SERVER, SERVER6, ROUTER_MAC = "192.0.2.1", "2001:db8::1", "02:00:00:00:00:02"
ETHERNET, RAW, COOKED, COOKED2 = 1, 101, 113, 276


def config(*, networks: bool = False, granularity: Granularity = Granularity.SERVICE, **options: object) -> Config:
    lan = Zone(name="lan", interfaces=("lan0",), networks=(ip_network("10.1.0.0/24"),) if networks else ())
    wan = Zone(name="wan", interfaces=("wan0",), external=True)
    out = Policy(source="lan", destination="wan", name="lan_wan", granularity=granularity)
    learning = RuleLearning(**{"enabled": True, "learning_mode": True, **options})  # type: ignore[arg-type]
    return Config(path=Path("x.hcl"), rule_learning=learning, zones=(lan, wan), policies=(out,))


# Both addresses always: scapy would ask the network for what is missing.
LINK = Ether(src=LAPTOP_MAC, dst=ROUTER_MAC)


def out(layers: Layers | bytes) -> Layers:
    return LINK / IP(src=LAPTOP, dst=SERVER) / layers


def back(layers: Layers | bytes) -> Layers:
    return Ether(src=ROUTER_MAC, dst=LAPTOP_MAC) / IP(src=SERVER, dst=LAPTOP) / layers


def out6(layers: Layers) -> Layers:
    return LINK / IPv6(src=LAPTOP6, dst=SERVER6) / layers


def back6(layers: Layers) -> Layers:
    return Ether(src=ROUTER_MAC, dst=LAPTOP_MAC) / IPv6(src=SERVER6, dst=LAPTOP6) / layers


def pcap(path: Path, *frames: Layers | bytes, link: int = ETHERNET) -> Path:
    """Written by hand, a frame a second, so that any frame and link type will do."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for second, frame in enumerate(map(bytes, frames)):
        data += struct.pack("<IIII", 1_700_000_000 + second, 0, len(frame), len(frame)) + frame
    path.write_bytes(data)
    return path


def handshake(source_port: int = 4000, port: int = 443) -> list[Layers]:
    return [
        out(TCP(sport=source_port, dport=port, flags="S")),
        back(TCP(sport=port, dport=source_port, flags="SA")),
        out(TCP(sport=source_port, dport=port, flags="A")),
    ]


def adds_up(report: Report) -> bool:
    return sum(report.unreadable.values()) + sum(report.decisions.values()) == report.packets


def keys(report: Report) -> set[str]:
    return {f"{flow['source']} {flow['protocol']} {flow['port']}" for flow in report.flows}


# ---- connections and flows


def test_a_connection_is_decided_by_its_first_packet(tmp_path):
    report = replay([pcap(tmp_path / "x.pcap", *handshake(), *handshake(4001))], config())
    assert report.packets == 6
    assert report.decisions == {"established": 4, "learned on first use": 1, "cached allow": 1}
    assert report.unreadable == {}
    assert report.flows == [
        {
            "policy": "lan_wan",
            "source": LAPTOP_MAC,
            "protocol": "tcp",
            "port": 443,
            "destination": None,
            "state": "allowed",
            "first_seen": "2023-11-14T22:13:20.000000Z",
            "last_seen": "2023-11-14T22:13:23.000000Z",
            "packets": 2,
            "origin": "tofu",
            "key": f"lan_wan/{LAPTOP_MAC}/tcp/443",
        }
    ]


def test_the_json_object_has_four_members(tmp_path):
    report = replay([pcap(tmp_path / "x.pcap", *handshake())], config())
    assert list(report.as_dict()) == ["packets", "unreadable", "decisions", "flows"]


def test_with_learning_off_flows_are_pending(tmp_path):
    capture = pcap(tmp_path / "x.pcap", *handshake(), *handshake(4001))
    report = replay([capture], config(), learning=False)
    assert report.decisions == {"established": 4, "new flow, pending": 1, "pending": 1}
    assert [(flow["state"], flow["origin"]) for flow in report.flows] == [("pending", "traffic")]
    assert replay([capture], config(learning_mode=False)).decisions == report.decisions
    assert replay([capture], config(learning_mode=False), learning=True).flows[0]["state"] == "allowed"


def test_a_capture_that_begins_in_the_middle_of_a_connection_learns_nothing_reversed(tmp_path):
    middle = [back(TCP(sport=443, dport=4000, flags="PA")), out(TCP(sport=4000, dport=443, flags="A"))]
    report = replay([pcap(tmp_path / "x.pcap", *middle * 3)], config())
    assert report.decisions == {"not a first packet": 6}
    assert report.flows == []


def test_of_an_allowed_flow_a_connection_is_picked_up_in_its_midst(tmp_path):
    middle = [out(TCP(sport=5000, dport=443, flags="A")), back(TCP(sport=443, dport=5000, flags="A"))]
    report = replay([pcap(tmp_path / "x.pcap", *handshake(), *middle)], config())
    assert report.decisions == {"established": 3, "learned on first use": 1, "cached allow": 1}


def test_replies_of_every_kind_are_established(tmp_path):
    frames = [
        *(out(UDP(sport=5000, dport=53)), back(UDP(sport=53, dport=5000))),
        *(out(ICMP(type=8, id=7)), back(ICMP(type=0, id=7))),
        *(out6(ICMPv6EchoRequest(id=7)), back6(ICMPv6EchoReply(id=7))),
        *(out(SCTP(sport=9, dport=3868) / SCTPChunkInit()), back(SCTP(sport=3868, dport=9) / SCTPChunkInitAck())),
        *(out(UDP(sport=5001, dport=9)), back(ICMP(type=3) / IP(src=LAPTOP, dst=SERVER) / UDP(sport=5001, dport=9))),
    ]
    report = replay([pcap(tmp_path / "x.pcap", *frames)], config())
    assert report.decisions == {"established": 5, "learned on first use": 5}


def test_a_reply_without_its_question_is_no_first_packet(tmp_path):
    report = replay([pcap(tmp_path / "x.pcap", back(ICMP(type=0, id=7)), back(ICMP(type=3)))], config())
    assert report.decisions == {"not a first packet": 2}


def test_captures_are_one_stretch_of_traffic(tmp_path):
    first, second = pcap(tmp_path / "1.pcap", handshake()[0]), pcap(tmp_path / "2.pcap", *handshake()[1:])
    assert replay([first, second], config()).decisions == {"established": 2, "learned on first use": 1}


def test_the_policy_says_what_a_flow_is_made_of(tmp_path):
    capture = pcap(tmp_path / "x.pcap", *handshake())
    report = replay([capture], config(granularity=Granularity.DESTINATION))
    assert report.flows[0]["destination"] == SERVER
    by_address = config()
    zones = tuple(
        Zone(name=z.name, interfaces=z.interfaces, external=z.external, identity=Identity.IP) for z in by_address.zones
    )
    of = Config(path=by_address.path, rule_learning=by_address.rule_learning, zones=zones, policies=by_address.policies)
    assert replay([capture], of).flows[0]["source"] == LAPTOP


def test_limits_and_ignored_networks_hold(tmp_path):
    capture = pcap(tmp_path / "x.pcap", *(out(UDP(sport=1, dport=port)) for port in range(1, 6)))
    report = replay([capture], config(learn_max_per_source=2))
    assert report.decisions == {"learned on first use": 2, "learning limit reached": 2, "pending limit reached": 1}
    assert Counter(flow["state"] for flow in report.flows) == {"allowed": 2, "pending": 2}
    ignored = replay([capture], config(ignore_networks=(ip_network("192.0.2.0/24"),)))
    assert ignored.decisions == {"ignored network": 5}
    assert ignored.flows == []


# ---- which policy


def test_zones_with_networks_keep_the_outside_out(tmp_path):
    frames = [*handshake(), back(TCP(sport=4444, dport=22, flags="S")), out(TCP(sport=22, dport=4444, flags="SA"))]
    report = replay([pcap(tmp_path / "x.pcap", *frames)], config(networks=True))
    assert report.decisions == {"established": 3, "from outside": 1, "learned on first use": 1}
    assert report.notes == ["every packet asks the policy between the zones' networks"]


def test_without_networks_it_says_which_policy_was_asked(tmp_path):
    report = replay([pcap(tmp_path / "x.pcap", *handshake())], config())
    assert report.notes == ["no zone has networks: every packet asks policy 'lan_wan', the only one that learns"]


def test_a_policy_can_be_named(tmp_path):
    capture = pcap(tmp_path / "x.pcap", *handshake())
    report = replay([capture], config(networks=True), policy="DROP_INPUT")
    assert report.flows[0]["policy"] == "DROP_INPUT"
    assert report.notes == []
    with pytest.raises(GlacicError, match="no policy 'lan-wan'; did you mean 'lan_wan'"):
        replay([capture], config(), policy="lan-wan")


def test_what_no_policy_learns_is_counted_too(tmp_path):
    of = config(networks=True)
    accepting = Policy(source="lan", destination="wan", name="lan_wan", action=Action.ACCEPT)
    of = Config(path=of.path, rule_learning=of.rule_learning, zones=of.zones, policies=(accepting,))
    report = replay([pcap(tmp_path / "x.pcap", *handshake())], of)
    assert report.decisions == {"established": 2, "policy does not learn": 1}
    assert report.flows == []


# ---- every header there is

LITE = struct.pack("!HHHH", 5004, 5005, 8, 1) + b"data"

# frame -> the flow it makes, or why it makes none
VARIETY: list[tuple[Layers | bytes, str]] = [
    (out(TCP(sport=1, dport=80, flags="S")), "tcp 80"),
    (out6(TCP(sport=1, dport=81, flags="S")), "tcp 81"),
    (out(UDP(sport=1, dport=53)), "udp 53"),
    (out6(UDP(sport=1, dport=54)), "udp 54"),
    (LINK / IP(src=LAPTOP, dst=SERVER, proto=136) / LITE, "udplite 5005"),
    (out(SCTP(sport=1, dport=3868) / SCTPChunkInit()), "sctp 3868"),
    (out(ICMP(type=8)), "icmp 8"),
    (out(ICMP(type=13)), "icmp 13"),
    (out6(ICMPv6EchoRequest()), "icmpv6 128"),
    (LINK / IP(src=LAPTOP, dst=SERVER, proto=47) / b"gre", "gre 0"),
    (
        LINK / IP(src=LAPTOP, dst=SERVER, options=[IPOption_Router_Alert()]) / UDP(sport=1, dport=55),
        "udp 55",
    ),
    (out6(IPv6ExtHdrHopByHop() / UDP(sport=1, dport=56)), "udp 56"),
    (out6(IPv6ExtHdrRouting(addresses=["fd01::9"]) / UDP(sport=1, dport=57)), "udp 57"),
    (out6(IPv6ExtHdrDestOpt() / UDP(sport=1, dport=58)), "udp 58"),
    (out6(AH(nh=17, payloadlen=4, icv=bytes(12)) / UDP(sport=1, dport=59)), "udp 59"),
    (out6(IPv6ExtHdrFragment() / UDP(sport=1, dport=60)), "udp 60"),
    (LINK / IP(src=LAPTOP, dst=SERVER, flags="MF") / UDP(sport=1, dport=61, len=2000), "udp 61"),
    (LINK / Dot1Q(vlan=5) / IP(src=LAPTOP, dst=SERVER) / UDP(sport=1, dport=62), "udp 62"),
    (LINK / Dot1AD() / Dot1Q() / IP(src=LAPTOP, dst=SERVER) / UDP(sport=1, dport=63), "udp 63"),
    (out6(ICMPv6ND_NS()), "neighbour discovery"),
    (out6(ICMPv6ND_RS()), "neighbour discovery"),
    (
        LINK / IPv6(src="fe80::2", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop() / ICMPv6MLReport2(),
        "neighbour discovery",
    ),
    (out(TCP(sport=1, dport=82, flags="A")), "not a first packet"),
    (out(TCP(sport=1, dport=83, flags="SA")), "not a first packet"),
    (out(ICMP(type=0, id=9)), "not a first packet"),
    (LINK / ARP(), "not IP"),
    (LINK / IP(src=LAPTOP, dst=SERVER, frag=3, proto=17) / b"the rest", "fragment"),
    (out6(IPv6ExtHdrFragment(offset=3, nh=17) / b"the rest"), "fragment"),
    (bytes(out(TCP(sport=1, dport=84, flags="S")))[:40], "truncated"),
    (b"", "truncated"),
    (b"\xff" * 10, "truncated"),
    (LINK / IP(src=LAPTOP, dst=SERVER, ihl=3) / UDP(), "malformed header"),
    (out(TCP(sport=1, dport=85, flags="S", dataofs=2)), "malformed header"),
    (
        LINK / IPv6(src=LAPTOP6, dst=SERVER6, nh=60) / (bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 40),
        "too many headers",
    ),
]


def test_every_header_there_is_adds_up(tmp_path):
    report = replay([pcap(tmp_path / "variety.pcap", *(frame for frame, _ in VARIETY))], config())
    expected = Counter(what for _, what in VARIETY)
    flows = {what for what in expected if what[-1].isdigit()}
    assert {f"{flow['protocol']} {flow['port']}" for flow in report.flows} == flows
    assert {flow["source"] for flow in report.flows} == {LAPTOP_MAC}
    found = {**report.unreadable, **report.decisions}
    assert found.pop("learned on first use") == len(flows)
    assert found == {what: count for what, count in expected.items() if what not in flows}
    assert report.packets == len(VARIETY)
    assert adds_up(report)


def test_pcapng_says_the_same_as_pcap(tmp_path):
    frames = [frame for frame, _ in VARIETY if isinstance(frame, Layers)]
    with PcapNgWriter(str(tmp_path / "x.pcapng")) as writer:
        writer.write(frames)
    wrpcap(str(tmp_path / "x.pcap"), frames, linktype=ETHERNET)
    old, new = (replay([tmp_path / name], config()) for name in ("x.pcap", "x.pcapng"))
    assert (new.decisions, new.unreadable, keys(new)) == (old.decisions, old.unreadable, keys(old))
    assert new.packets == len(frames)


@pytest.mark.parametrize(
    ("link", "frame", "source"),
    [
        (RAW, IP(src=LAPTOP, dst=SERVER) / UDP(dport=53), LAPTOP),
        (RAW, IPv6(src=LAPTOP6, dst=SERVER6) / UDP(dport=53), LAPTOP6),
        (
            COOKED,
            CookedLinux(lladdrtype=1, lladdrlen=6, src=b"\2\0\0\0\0\1") / IP(src=LAPTOP, dst=SERVER) / UDP(dport=53),
            LAPTOP_MAC,
        ),
        (COOKED, CookedLinux(lladdrtype=65534, lladdrlen=0) / IP(src=LAPTOP, dst=SERVER) / UDP(dport=53), LAPTOP),
        (
            COOKED2,
            CookedLinuxV2(proto=0x0800, lladdrtype=1, lladdrlen=6, src=b"\2\0\0\0\0\1")
            / IP(src=LAPTOP, dst=SERVER)
            / UDP(dport=53),
            LAPTOP_MAC,
        ),
    ],
)
def test_a_source_is_the_mac_where_the_link_has_one(tmp_path, link, frame, source):
    report = replay([pcap(tmp_path / "x.pcap", frame, link=link)], config())
    assert [(flow["source"], flow["port"]) for flow in report.flows] == [(source, 53)]


# ---- what is no good


def test_a_damaged_capture_is_read_as_far_as_it_goes_and_says_so(tmp_path):
    capture = pcap(tmp_path / "cut.pcap", *handshake())
    capture.write_bytes(capture.read_bytes()[:-3])
    report = replay([capture, pcap(tmp_path / "whole.pcap", *handshake(4001))], config())
    assert report.packets == 5
    assert "cut.pcap: damaged at byte" in report.notes[1]


def test_a_capture_with_nothing_readable_in_it_is_no_mistake(tmp_path):
    report = replay([pcap(tmp_path / "x.pcap", LINK / ARP(), b"")], config())
    assert report.unreadable == {"not IP": 1, "truncated": 1}
    assert replay([pcap(tmp_path / "y.pcap")], config()).packets == 0


def test_what_is_no_capture_or_not_there_is_refused_in_words(tmp_path):
    text = tmp_path / "x.hcl"
    text.write_text("zone {}\n")
    with pytest.raises(CaptureError, match="no packet capture"):
        replay([text], config())
    with pytest.raises(CaptureError, match="No such file"):
        replay([tmp_path / "nowhere.pcap"], config())
    with pytest.raises(CaptureError, match="Is a directory"):
        replay([tmp_path], config())
    with pytest.raises(CaptureError, match="link type 105"):
        replay([pcap(tmp_path / "wifi.pcap", b"x", link=105)], config())


@settings(max_examples=40)
@given(
    changes=st.lists(st.tuples(st.integers(24, 1 << 16), st.integers(0, 255)), max_size=30), cut=st.integers(0, 2000)
)
def test_whatever_is_damaged_every_packet_is_counted_once(tmp_path_factory, changes, cut):
    capture = pcap(tmp_path_factory.mktemp("damaged") / "x.pcap", *(bytes(frame) for frame, _ in VARIETY))
    data = bytearray(capture.read_bytes())
    for place, value in changes:
        data[24 + place % (len(data) - 24)] = value
    capture.write_bytes(data[: len(data) - cut])
    report = replay([capture], config(networks=True))
    assert adds_up(report)
    assert set(report.decisions) <= set(Why)
    assert set(report.unreadable) <= set(Reason)


# ---- long captures


def test_progress_ends_at_the_size_of_all_captures(tmp_path):
    first = pcap(tmp_path / "1.pcap", *map(bytes, handshake()), *[b""] * 9000)
    captures = [first, pcap(tmp_path / "2.pcap", *handshake())]
    told: list[int] = []
    replay(captures, config(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == sum(capture.stat().st_size for capture in captures)


def syns(path: Path, count: int) -> Path:
    """First packets, each from another laptop."""
    syn = bytearray(bytes(out(TCP(sport=1, dport=443, flags="S"))))
    header = struct.pack("<IIII", 1_700_000_000, 0, len(syn), len(syn))
    with pcap(path).open("ab") as file:
        for number in range(count):
            syn[8:12] = syn[28:32] = number.to_bytes(4, "big")  # in the sender's MAC and address
            file.write(header + syn)
    return path


def test_more_new_flows_than_may_wait_for_the_store_are_all_learned(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MAX_UNWRITTEN", 10_000)
    report = replay([syns(tmp_path / "x.pcap", 12_000)], config(learn_max=11_000, cache_size=100))
    assert report.decisions == {"learned on first use": 11_000, "learning limit reached": 1000}
    assert len(report.flows) == 12_000


def test_a_long_capture_needs_no_more_memory_than_a_short_one(tmp_path):
    def peak(rounds: int) -> int:
        tracemalloc.start()
        try:
            replay([pcap(tmp_path / f"{rounds}.pcap", *frames * rounds)], config())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    frames = [bytes(frame) for frame in handshake()]
    peak(10)  # what is made once
    assert peak(5000) < peak(500) + (6 << 20)  # one buffer and a bit
