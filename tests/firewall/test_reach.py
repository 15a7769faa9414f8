"""What a rule matches, asked about one packet; tests/firewall/test_simulate.py asks the kernel the same."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address, ip_network

import pytest

from glacic.config.model import Action, AddressRange, NamedSet, Nat, NatKind, PortRange, Rule, SetRef, SetType, Zone
from glacic.config.services import MANAGEMENT, SERVICES
from glacic.firewall import reach
from glacic.firewall.reach import Addresses, Intervals, Probe, conditions, of_forward, of_opening, of_rule

SETS = {
    "ports": NamedSet(name="ports", type=SetType.PORT, elements=(PortRange(53, 53), PortRange(60, 69))),
    "hosts": NamedSet(
        name="hosts", type=SetType.ADDRESS, elements=(ip_network("10.0.0.8/30"), ip_network("fd00::/64"))
    ),
}
TCP = Probe("forward", "lan0", "wan0", bytes([10, 0, 0, 9]), bytes([192, 0, 2, 1]), 6, 40_000, 443)


FORWARDED = {"dest_port": (PortRange(80, 80),), "to_ip": ip_address("10.1.0.5")}


def rule(**words: object) -> Rule:
    return Rule(name="r", action=Action.ACCEPT, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "fits", "changed"),
    [
        ({}, True, {}),
        ({"protos": ("udp",)}, False, {}),
        ({"protos": ("udp", "tcp"), "dest_port": (PortRange(440, 450),)}, True, {}),
        ({"protos": ("tcp",), "dest_port": (SetRef("ports"),)}, True, {"port": 61}),
        ({"protos": ("tcp",), "source_port": (PortRange(1, 1023),)}, False, {}),
        ({"protos": ("gre", "tcp"), "dest_port": (PortRange(0, 65535),)}, False, {"protocol": 47}),
        ({"src_ip": (SetRef("hosts"),)}, True, {}),
        ({"src_ip": (SetRef("hosts"),)}, False, {"source": bytes([10, 0, 0, 12])}),
        ({"dest_ip": (ip_network("fd00::/8"),)}, False, {}),
        ({"protos": ("icmp", "icmpv6"), "icmp_type": ("echo-request",)}, True, {"protocol": 1, "port": 8}),
        ({"protos": ("icmp", "icmpv6"), "icmp_type": ("echo-request",)}, False, {"protocol": 58, "port": 8}),
        ({"protos": ("icmp",)}, True, {"protocol": 1, "port": 13}),
        ({"protos": ("icmp",)}, False, {}),
        ({"in_interface": ("lan*",), "out_interface": ("wan0",)}, True, {}),
        ({"in_interface": ("lan*",)}, False, {"iif": ""}),
        ({"ct_state": ("established",)}, False, {}),
        ({"ct_state": ("untracked", "new")}, True, {}),
    ],
)
def test_a_rule_matches_what_its_words_say(words: dict, fits: bool, changed: dict) -> None:
    found = of_rule(rule(**words), SETS)
    assert found.matches(TCP._replace(**changed)) is fits
    assert found.certain


def test_a_forward_is_matched_as_it_looks_once_translated() -> None:
    ports = {"dest_port": (PortRange(8080, 8080),), "to_port": PortRange(80, 80)}
    nat = Nat(name="web", kind=NatKind.DNAT, protos=("tcp",), **ports)
    to = of_forward(
        Nat(**{field.name: getattr(nat, field.name) for field in fields(nat)} | {"to_ip": ip_address("10.0.0.9")}), {}
    )
    assert to.matches(TCP._replace(destination=bytes([10, 0, 0, 9]), port=80))
    assert not to.matches(TCP._replace(destination=bytes([10, 0, 0, 9]), port=8080))
    assert not to.matches(TCP._replace(port=80))


def test_a_hairpin_is_reached_from_within_too() -> None:
    nat = Nat(name="web", kind=NatKind.DNAT, in_interface=("wan0",), protos=("tcp",), hairpin=True, **FORWARDED)
    zones = [Zone(name="lan", interfaces=("lan0",)), Zone(name="wan", interfaces=("wan0",), external=True)]
    found = of_forward(nat, {}, zones)
    assert found.certain
    packet = Probe("forward", "lan0", "lan0", bytes([10, 1, 0, 2]), bytes([10, 1, 0, 5]), 6, 1, 80)
    assert found.matches(packet)
    assert not found.matches(packet._replace(iif="odd0"))
    assert not of_forward(replace(nat, hairpin=False), {}, zones).matches(packet)


def test_what_has_to_be_translated_matches_nothing_else() -> None:
    found = of_rule(Rule(name="r", action=Action.ACCEPT, translated=True), {})
    packet = Probe("forward", "wan0", "lan0", bytes([192, 0, 2, 2]), bytes([10, 1, 0, 5]), 6, 1, 80)
    assert found.certain
    assert not found.matches(packet)
    assert found.matches(packet._replace(forwarded_port=True))


def test_an_opening_may_be_of_one_family_or_of_types() -> None:
    four, six = SERVICES["dhcp"]
    dhcp = TCP._replace(protocol=17, port=67)
    assert of_opening(four).matches(dhcp)
    assert not of_opening(six).matches(dhcp)
    ping = [of_opening(opening) for opening in MANAGEMENT["ping"]]
    assert [found.matches(TCP._replace(protocol=1, port=8)) for found in ping] == [True, False]
    assert not any(found.matches(TCP) for found in ping)
    assert of_opening(SERVICES["ipsec"][1]).matches(TCP._replace(protocol=50, port=0))


def test_ranges_that_overlap_are_one_and_have_ends() -> None:
    found = Intervals([(5, 9), (1, 3), (7, 12)])
    assert [number for number in range(15) if number in found] == [1, 2, 3, *range(5, 13)]
    assert 0 not in Intervals([])


def test_addresses_are_of_their_own_family() -> None:
    found = Addresses((AddressRange(ip_address("10.0.0.1"), ip_address("10.0.0.3")), SetRef("hosts")), SETS)
    assert bytes([10, 0, 0, 3]) in found
    assert bytes([10, 0, 0, 4]) not in found
    assert bytes([10, 0, 0, 1]) + bytes(12) not in found
    assert ip_address("fd00::1").packed in found


@pytest.mark.parametrize(("type_", "known"), [(Rule, reach._RULE), (Nat, reach._NAT), (Zone, reach._ZONE)])
def test_every_name_that_is_known_is_a_field(type_: type, known: str) -> None:
    assert set(known.split()) <= {field.name for field in fields(type_)}
    assert conditions(Zone(name="z", networks=(ip_network("10.0.0.0/8"),)), "name interfaces") == ["networks"]
