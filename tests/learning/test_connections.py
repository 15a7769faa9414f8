from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Packet as Layers

from glacic.learning.connections import Connections
from glacic.learning.packet import Packet, decode

LAPTOP, SERVER = "10.1.0.2", "192.0.2.1"


def packet(layers: Layers) -> Packet:
    read = decode(bytes(layers))
    assert isinstance(read, Packet)
    return read


def there(layers: Layers | bytes) -> Packet:
    return packet(IP(src=LAPTOP, dst=SERVER) / layers)


def back(layers: Layers | bytes) -> Packet:
    return packet(IP(src=SERVER, dst=LAPTOP) / layers)


def begun_by(first: Packet) -> Connections:
    connections = Connections()
    assert not connections.knows(first)
    connections.add(first)
    return connections


def test_later_packets_and_replies_belong_to_the_connection():
    connections = begun_by(there(TCP(sport=4000, dport=443, flags="S")))
    assert connections.knows(there(TCP(sport=4000, dport=443, flags="S")))  # sent again
    assert connections.knows(back(TCP(sport=443, dport=4000, flags="SA")))
    assert connections.knows(there(TCP(sport=4000, dport=443, flags="A")))


@pytest.mark.parametrize(
    "other",
    [
        there(TCP(sport=4001, dport=443, flags="S")),
        there(TCP(sport=4000, dport=444, flags="S")),
        there(TCP(sport=443, dport=4000, flags="S")),
        back(TCP(sport=4000, dport=443, flags="S")),
        there(UDP(sport=4000, dport=443)),
        packet(IP(src="10.1.0.3", dst=SERVER) / TCP(sport=4000, dport=443)),
    ],
)
def test_other_ports_addresses_and_protocols_are_other_connections(other):
    assert not begun_by(there(TCP(sport=4000, dport=443, flags="S"))).knows(other)


@pytest.mark.parametrize(
    "ending", [there(TCP(sport=4000, dport=443, flags="FA")), back(TCP(sport=443, dport=4000, flags="RA"))]
)
def test_after_an_end_a_syn_begins_anew_and_anything_else_belongs_to_the_old(ending):
    syn = there(TCP(sport=4000, dport=443, flags="S"))
    connections = begun_by(syn)
    assert connections.knows(ending)
    assert connections.knows(back(TCP(sport=443, dport=4000, flags="A")))
    assert not connections.knows(syn)
    assert not connections.knows(there(TCP(sport=4000, dport=443, flags="A")))


def test_an_echo_reply_belongs_to_the_echo_with_its_identifier():
    connections = begun_by(there(ICMP(type=8, id=7)))
    assert connections.knows(there(ICMP(type=8, id=7, seq=2)))
    assert connections.knows(back(ICMP(type=0, id=7)))
    assert not connections.knows(back(ICMP(type=0, id=8)))
    assert not connections.knows(there(ICMP(type=0, id=7)))
    assert not connections.knows(back(ICMP(type=8, id=7)))  # the server's own question
    assert not connections.knows(back(ICMP(type=14, id=7)))  # a reply to another question


def test_an_icmpv6_echo_is_answered_alike():
    connections = begun_by(packet(IPv6(src="fd01::2", dst="2001:db8::1") / ICMPv6EchoRequest(id=7)))
    assert connections.knows(packet(IPv6(src="2001:db8::1", dst="fd01::2") / ICMPv6EchoReply(id=7)))


@pytest.mark.parametrize(
    "first", [TCP(sport=4000, dport=443, flags="S"), UDP(sport=4000, dport=53), ICMP(type=8, id=7)]
)
def test_an_icmp_error_belongs_to_the_connection_it_is_about(first):
    connections = begun_by(there(first))
    quoted = IP(src=LAPTOP, dst=SERVER) / first
    router = packet(IP(src="198.51.100.1", dst=LAPTOP) / ICMP(type=11) / quoted)
    assert connections.knows(router)
    assert not Connections().knows(router)


def test_an_icmp_error_may_be_about_a_reply():
    connections = begun_by(there(UDP(sport=4000, dport=53)))
    assert connections.knows(there(ICMP(type=3, code=3) / IP(src=SERVER, dst=LAPTOP) / UDP(sport=53, dport=4000)))


def test_protocols_without_ports_have_one_connection_between_two_hosts():
    connections = begun_by(packet(IP(src=LAPTOP, dst=SERVER, proto=47) / b"gre"))
    assert connections.knows(packet(IP(src=SERVER, dst=LAPTOP, proto=47) / b"gre"))
    assert not connections.knows(packet(IP(src=SERVER, dst=LAPTOP, proto=50) / b"esp"))


def test_the_connection_that_was_silent_longest_is_forgotten():
    connections = Connections(capacity=2)
    one, two, three = (there(UDP(sport=port, dport=53)) for port in (1, 2, 3))
    connections.add(one)
    connections.add(two)
    assert connections.knows(one)
    connections.add(three)
    assert len(connections) == 2
    assert [connections.knows(each) for each in (one, two, three)] == [True, False, True]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([6, 17]), st.integers(1, 3), st.integers(1, 3)), max_size=40))
def test_it_agrees_with_a_list_of_all_pairs(packets):
    """Against the obvious way: a set of unordered pairs of ends."""
    connections, seen = Connections(), set()
    for outward, protocol, port, other in packets:
        ends = (b"aaaa", port), (b"bbbb", other)
        (source, source_port), (destination, to) = ends if outward else reversed(ends)
        each = Packet(4, source, destination, protocol, source_port, to, first=True)
        pair = (protocol, frozenset(ends))
        assert connections.knows(each) == (pair in seen)
        if pair not in seen:
            connections.add(each)
            seen.add(pair)
