"""Road 1: which zone a packet comes from or goes to, as verdict maps.

A zone's interfaces and networks must both fit. The most exact word counts first: interface and network
together, then the interface alone, then the network alone, and that only on interfaces that no zone names (an
address by itself says nothing about where the cable ends).

Refuses to know what is done with a zone's packets: the caller says so for each, as a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glacic.config.model import Zone
from glacic.firewall.match import FAMILY_WORD, MAX_WIDTH, indented, interface_match, network_elements, outermost
from glacic.firewall.quoting import quote
from glacic.firewall.ruleset import Rule

_FROM = ("iifname", "saddr")
_TO = ("oifname", "daddr")


def by_source(zones: Sequence[Zone], verdicts: Mapping[str, str]) -> list[Rule]:
    """Rules that give a packet the verdict of the zone (by name) it came from; without one it goes on."""
    return _dispatch(zones, verdicts, *_FROM)


def by_destination(zones: Sequence[Zone], verdicts: Mapping[str, str]) -> list[Rule]:
    """Rules that give a packet the verdict of the zone (by name) it is going to; without one it goes on."""
    return _dispatch(zones, verdicts, *_TO)


def _dispatch(zones: Sequence[Zone], verdicts: Mapping[str, str], interface: str, address: str) -> list[Rule]:
    both = [zone for zone in zones if zone.interfaces and zone.networks]
    only_interfaces = [zone for zone in zones if zone.interfaces and not zone.networks]
    only_networks = [zone for zone in zones if zone.networks and not zone.interfaces]
    rules = []
    for family, word in FAMILY_WORD.items():
        entries = [
            (f"{quote(name)} . {network}", verdicts[zone.name])
            for zone in both
            if zone.name in verdicts
            for name in outermost(zone.interfaces)
            for network in network_elements(family, zone.networks)
        ]
        rules += _vmap(f"{interface} . {word} {address}", entries)
    entries = [
        (quote(name), verdicts[zone.name])
        for zone in only_interfaces
        if zone.name in verdicts
        for name in outermost(zone.interfaces)
    ]
    rules += _vmap(interface, entries)
    elsewhere = interface_match(interface, [name for zone in zones for name in zone.interfaces], negated=True)
    for family, word in FAMILY_WORD.items():
        entries = [
            (network, verdicts[zone.name])
            for zone in only_networks
            if zone.name in verdicts
            for network in network_elements(family, zone.networks)
        ]
        rules += _vmap(f"{elsewhere} {word} {address}".strip(), entries)
    return rules


def _vmap(expression: str, entries: list[tuple[str, str]]) -> list[Rule]:
    if not entries:
        return []
    texts = [f"{key} : {verdict}" for key, verdict in entries]
    one_line = f"{expression} vmap {{ {', '.join(texts)} }}"
    if len(one_line) <= MAX_WIDTH:
        return [Rule(one_line)]
    return [Rule(f"{expression} vmap {{\n" + indented(",\n".join(texts)) + "\n}")]


def addressless(zones: Sequence[Zone]) -> list[Rule]:
    """DHCP from hosts that have no address of their zone yet, for zones that offer it and are told apart by networks.

    Such a host asks from 0.0.0.0 (RFC 2131 4.1) or from its link-local address (RFC 8415 13), which are in no network.
    """
    asked = [zone for zone in zones if zone.interfaces and zone.networks and "dhcp" in zone.services]
    names = [name for zone in asked for name in zone.interfaces]
    if not names:
        return []
    interfaces = interface_match("iifname", names)
    note = "A host without an address of its zone yet asks for one"
    return [
        Rule(f"{interfaces} ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept", note),
        Rule(f"{interfaces} ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept"),
    ]
