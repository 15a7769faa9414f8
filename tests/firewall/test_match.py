"""What a rule of the configuration matches by, as nft text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glacic.config.model import (
    Action,
    AddressRange,
    NamedSet,
    Nat,
    NatKind,
    PortRange,
    Rule,
    SetRef,
    SetType,
)
from glacic.config.services import MANAGEMENT, SERVICES
from glacic.firewall.match import (
    MAX_WIDTH,
    Sets,
    braces,
    interface_match,
    matches,
    nat_matches,
    network_elements,
    opening_match,
    outermost,
    port_elements,
)

SETS = Sets(
    [
        NamedSet(name="v4", type=SetType.IPV4),
        NamedSet(name="v6", type=SetType.IPV6),
        NamedSet(name="any", type=SetType.ADDRESS),
        NamedSet(name="ports", type=SetType.PORT),
    ]
)
WEB = (PortRange(80, 80), PortRange(443, 443))


def rule(**matched: object) -> Rule:
    return Rule(name="r", action=Action.ACCEPT, **matched)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_rule", "expected"),
    [
        (rule(), [""]),
        (rule(protos=("tcp",)), ["meta l4proto tcp"]),
        (rule(protos=("tcp",), dest_port=WEB), ["tcp dport { 80, 443 }"]),
        (rule(protos=("tcp", "udp"), dest_port=WEB), ["meta l4proto { tcp, udp } th dport { 80, 443 }"]),
        (
            rule(protos=("tcp", "udp"), source_port=(PortRange(1, 9),), dest_port=(SetRef("ports"), *WEB)),
            [
                "meta l4proto { tcp, udp } th sport 1-9 th dport { 80, 443 }",
                "meta l4proto { tcp, udp } th sport 1-9 th dport @ports_ports",
            ],
        ),
        (rule(protos=("ospf", "gre")), ["meta l4proto { 89, gre }"]),
        (rule(protos=("tcp", "icmp", "icmpv6")), [f"meta l4proto {proto}" for proto in ("tcp", "icmp", "icmpv6")]),
        (
            rule(protos=("icmp", "icmpv6"), icmp_type=("echo-request", "nd-redirect", "9")),
            ["icmp type { echo-request, 9 }", "icmpv6 type { echo-request, nd-redirect, 9 }"],
        ),
        (rule(protos=("icmp", "icmpv6"), icmp_type=("timestamp-reply",)), ["icmp type timestamp-reply"]),
        (
            rule(protos=("icmp", "icmpv6"), src_ip=(SetRef("any"),)),
            ["ip saddr @addresses_any meta l4proto icmp", "ip6 saddr @addresses6_any meta l4proto icmpv6"],
        ),
        (
            rule(protos=("tcp",), dest_port=WEB, src_ip=(ip_network("10.0.0.0/8"), SetRef("v4"), SetRef("v6"))),
            [
                "ip saddr 10.0.0.0/8 tcp dport { 80, 443 }",
                "ip saddr @addresses_v4 tcp dport { 80, 443 }",
                "ip6 saddr @addresses6_v6 tcp dport { 80, 443 }",
            ],
        ),
        (
            rule(src_ip=(ip_network("10.0.0.0/8"), ip_network("fd01::/64")), dest_ip=(ip_network("192.0.2.1/32"),)),
            ["ip saddr 10.0.0.0/8 ip daddr 192.0.2.1"],
        ),
        (
            rule(in_interface=("a*", "ab"), out_interface=("b",), ct_state=("new", "untracked")),
            ['iifname "a*" oifname "b" ct state new,untracked'],
        ),
    ],
)
def test_a_rule_becomes_these_matches(given_rule: Rule, expected: list[str]) -> None:
    assert matches(given_rule, SETS) == expected


def test_every_part_of_a_split_rule_keeps_its_protocol() -> None:
    split = rule(
        protos=("tcp",),
        dest_port=(PortRange(22, 22), SetRef("ports")),
        src_ip=(ip_network("10.0.0.0/8"), SetRef("any"), ip_network("fd01::/64")),
        dest_ip=(SetRef("any"),),
    )
    found = matches(split, SETS)
    assert len(found) == 8
    assert all(" tcp dport " in match for match in found)


def test_nat_says_its_family_and_one_protocol_at_a_time() -> None:
    masquerade = Nat(name="n", kind=NatKind.MASQUERADE, family=0, out_interface=("w",))
    assert nat_matches(masquerade, SETS) == ['oifname "w" meta nfproto ipv4', 'oifname "w" meta nfproto ipv6']
    forward = Nat(name="n", kind=NatKind.DNAT, in_interface=("w",), protos=("tcp", "udp"), dest_port=WEB)
    assert nat_matches(forward, SETS) == [
        f'iifname "w" meta nfproto ipv4 {proto} dport {{ 80, 443 }}' for proto in ("tcp", "udp")
    ]


def test_every_opening_has_a_match() -> None:
    for openings in [*SERVICES.values(), *MANAGEMENT.values()]:
        for opening in openings:
            assert opening_match(opening)


def test_interfaces_that_a_wildcard_covers_are_left_out() -> None:
    assert outermost(["wlan0", "wl*", "eth0", "wlx*", "eth0", "wl"]) == ["wl*", "eth0"]
    assert interface_match("oifname", ["a", "b"], negated=True) == 'oifname != { "a", "b" }'
    assert interface_match("iifname", []) == ""


def test_long_sets_are_broken_into_lines() -> None:
    text = braces([str(number) for number in range(1000, 1100)])
    assert text.startswith("{\n\t1000, 1001")
    assert all(len(line) <= MAX_WIDTH for line in text.splitlines())


ranges4 = st.tuples(st.integers(0, 600), st.integers(0, 600)).map(sorted)


@given(st.lists(ranges4, max_size=8))
def test_merged_addresses_are_the_same_addresses_in_order_and_apart(ranges: list[list[int]]) -> None:
    spec = [AddressRange(IPv4Address(first), IPv4Address(last)) for first, last in ranges]
    merged: list[set[int]] = [members(text) for text in network_elements(4, spec)]
    assert set().union(*merged) == {number for first, last in ranges for number in range(first, last + 1)}
    for before, after in pairwise(merged):
        assert max(before) + 1 < min(after)


def members(text: str) -> set[int]:
    if "-" in text:
        first, last = (int(ip_address(part)) for part in text.split("-"))
    else:
        network = ip_network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
    return set(range(first, last + 1))


def test_the_families_are_told_apart() -> None:
    spec = (
        IPv4Network("0.0.0.0/0"),
        IPv6Network("::/0"),
        AddressRange(IPv6Address("::1"), IPv6Address("::2")),
        AddressRange(IPv4Address("10.0.0.0"), IPv4Address("10.0.0.255")),
    )
    assert network_elements(4, spec) == ["0.0.0.0/0"]
    assert network_elements(6, spec) == ["::/0"]


def test_ports_that_touch_are_one_range() -> None:
    assert port_elements([PortRange(5, 9), PortRange(1, 1), PortRange(10, 10), PortRange(7, 8)]) == ["1", "5-10"]
