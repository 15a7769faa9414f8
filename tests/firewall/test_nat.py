"""Address translation, and what a port forward opens."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from glacic.config.model import Nat, NatKind, PortRange, Zone
from glacic.firewall.match import Sets
from glacic.firewall.nat import accepted, postrouting, prerouting, to_accepted
from glacic.firewall.ruleset import Chain, Part

SETS = Sets([])
ZONES = [
    Zone(name="wan", interfaces=("wan0",), external=True),
    Zone(name="lan", interfaces=("lan0", "wl*", "wlan1")),
    Zone(name="far", networks=(ip_network("10.9.0.0/24"),)),
]
FORWARD = Nat(
    name="web",
    kind=NatKind.DNAT,
    family=6,
    in_interface=("wan0",),
    protos=("tcp",),
    dest_port=(PortRange(8080, 8080),),
    to_ip=ip_address("fd01::2"),
    to_port=PortRange(80, 80),
    description="an album",
)
RANGE = Nat(
    name="game",
    kind=NatKind.DNAT,
    in_interface=("wan0",),
    src_ip=(ip_network("192.0.2.0/24"),),
    dest_ip=(ip_network("198.51.100.1/32"),),
    protos=("udp",),
    dest_port=(PortRange(6000, 6010),),
    to_ip=ip_address("10.1.0.2"),
)
SNAT = Nat(
    name="fixed",
    kind=NatKind.SNAT,
    out_interface=("wan0",),
    src_ip=(ip_network("10.1.0.0/24"),),
    to_ip=ip_address("192.0.2.1"),
)
MASQUERADE = Nat(name="internet", kind=NatKind.MASQUERADE, family=0, out_interface=("wan0",))


def statements(parts: list[Part]) -> list[str]:
    return [rule.statement for part in parts if isinstance(part, Chain) for rule in part.rules]


def test_a_port_forward_gets_a_new_destination() -> None:
    assert statements(prerouting([FORWARD, SNAT, RANGE], SETS, ZONES)) == [
        'iifname "wan0" meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd01::2]:80 comment "web"',
        'iifname "wan0" ip saddr 192.0.2.0/24 ip daddr 198.51.100.1 udp dport 6000-6010 '
        'dnat ip to 10.1.0.2 comment "game"',
    ]


def test_what_is_let_in_is_what_it_looks_like_afterwards() -> None:
    assert statements(accepted([FORWARD, RANGE], SETS, ZONES)) == [
        'iifname "wan0" ip6 daddr fd01::2 tcp dport 80 accept comment "web"',
        'iifname "wan0" ip saddr 192.0.2.0/24 ip daddr 10.1.0.2 udp dport 6000-6010 accept comment "game"',
    ]
    assert [rule.statement for rule in to_accepted([FORWARD])] == ["ct status dnat jump port_forwards"]


def test_sources_are_translated_in_file_order() -> None:
    assert statements(postrouting([SNAT, FORWARD, MASQUERADE], SETS, ZONES)) == [
        'oifname "wan0" ip saddr 10.1.0.0/24 snat ip to 192.0.2.1 comment "fixed"',
        'oifname "wan0" meta nfproto ipv4 masquerade comment "internet"',
        'oifname "wan0" meta nfproto ipv6 masquerade comment "internet"',
    ]


def test_where_nothing_is_translated_there_is_no_chain() -> None:
    assert prerouting([SNAT], SETS, ZONES) == postrouting([FORWARD], SETS, ZONES) == accepted([SNAT], SETS, ZONES) == []
    assert to_accepted([SNAT]) == []


def test_a_hairpin_is_for_internal_interfaces_and_the_firewalls_other_addresses() -> None:
    (chain,) = prerouting([replace(FORWARD, hairpin=True)], SETS, ZONES)
    assert isinstance(chain, Chain)
    assert chain.rules[1].statement == (
        'iifname { "lan0", "wl*" } meta nfproto ipv6 tcp dport 8080 '
        'fib daddr type local fib daddr . iif type != local dnat ip6 to [fd01::2]:80 comment "web"'
    )
    (allowed,) = statements(accepted([replace(FORWARD, hairpin=True)], SETS, ZONES))
    assert allowed == 'iifname { "wan0", "lan0", "wl*" } ip6 daddr fd01::2 tcp dport 80 accept comment "web"'


def test_a_hairpin_by_a_written_address_asks_for_no_other() -> None:
    found = statements(prerouting([replace(RANGE, hairpin=True)], SETS, ZONES))[1]
    assert "fib" not in found
    assert "ip daddr 198.51.100.1" in found


def test_what_a_hairpin_sends_back_where_it_came_from_gets_the_firewalls_address() -> None:
    assert statements(postrouting([replace(FORWARD, hairpin=True), MASQUERADE], SETS, ZONES))[:2] == [
        f'iifname "{name}" oifname "{name}" ip6 daddr fd01::2 tcp dport 80 ct status dnat masquerade comment "web"'
        for name in ("lan0", "wl*")
    ]


def test_a_range_keeps_its_order_under_other_numbers() -> None:
    moved = replace(RANGE, dest_port=(PortRange(6000, 6002),), to_port=PortRange(7000, 7002))
    (rule,) = statements(prerouting([moved], SETS, ZONES))
    assert 'dnat ip to 10.1.0.2 : th dport map { 6000 : 7000, 6001 : 7001, 6002 : 7002 } comment "game"' in rule
    assert "udp dport 7000-7002 accept" in statements(accepted([moved], SETS, ZONES))[0]
