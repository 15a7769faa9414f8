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


def by_source(zones: Sequence[Zone]) -> Dispatch:
    """By the zone that a packet came from."""
    return Dispatch(zones, "iifname", "saddr")


def by_destination(zones: Sequence[Zone]) -> Dispatch:
    """By the zone that a packet is going to."""
    return Dispatch(zones, "oifname", "daddr")


class Dispatch:
    """What tells these zones apart in one direction; worked out once, since every zone dispatches by it anew."""

    def __init__(self, zones: Sequence[Zone], interface: str, address: str) -> None:
        both = [zone for zone in zones if zone.interfaces and zone.networks]
        only_interfaces = [zone for zone in zones if zone.interfaces and not zone.networks]
        only_networks = [zone for zone in zones if zone.networks and not zone.interfaces]
        self._tables: list[tuple[str, list[tuple[str, str]]]] = []  # expression, (key, name of its zone), in order
        for family, word in FAMILY_WORD.items():
            keys = [
                (f"{quote(name)} . {network}", zone.name)
                for zone in both
                for name in outermost(zone.interfaces)
                for network in network_elements(family, zone.networks)
            ]
            self._tables.append((f"{interface} . {word} {address}", keys))
        keys = [(quote(name), zone.name) for zone in only_interfaces for name in outermost(zone.interfaces)]
        self._tables.append((interface, keys))
        elsewhere = interface_match(interface, [name for zone in zones for name in zone.interfaces], negated=True)
        for family, word in FAMILY_WORD.items():
            keys = [
                (network, zone.name) for zone in only_networks for network in network_elements(family, zone.networks)
            ]
            self._tables.append((f"{elsewhere} {word} {address}".strip(), keys))

    def rules(self, verdicts: Mapping[str, str]) -> list[Rule]:
        """Rules that give a packet the verdict of its zone (by name); without one it goes on."""
        return [
            rule
            for expression, keys in self._tables
            for rule in _vmap(expression, [f"{key} : {verdicts[zone]}" for key, zone in keys if zone in verdicts])
        ]


def _vmap(expression: str, entries: list[str]) -> list[Rule]:
    if not entries:
        return []
    one_line = f"{expression} vmap {{ {', '.join(entries)} }}"
    if len(one_line) <= MAX_WIDTH:
        return [Rule(one_line)]
    return [Rule(f"{expression} vmap {{\n" + indented(",\n".join(entries)) + "\n}")]


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
